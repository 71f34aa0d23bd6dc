import { existsSync, readFileSync } from 'node:fs';

/** The version of Waybill that runs, e.g. '0.1.0': of the nearest package.json above this file, wherever a build put it. */
export function waybillVersion(): string {
  let file = new URL('../package.json', import.meta.url);
  while (!existsSync(file) && file.pathname !== '/package.json') file = new URL('../package.json', file);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
