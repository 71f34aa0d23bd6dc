import { existsSync, readFileSync } from 'node:fs';

/** The version of Waybill that runs, e.g. '0.1.0': of the package.json above this file, whether it was compiled or not. */
export function waybillVersion(): string {
  let file = new URL('../package.json', import.meta.url);
  if (!existsSync(file)) file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
