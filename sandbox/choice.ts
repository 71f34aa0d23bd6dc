import { messageOf, ServerUnavailableError } from './errors.ts';

/** One place that a kind of server can come from. */
export interface Source<T> {
  /** As in 'the npm package postgres-18'. */
  readonly name: string;
  readonly kind: 'native' | 'docker';
  /** What it takes to start the server; undefined if this source has none; throws if getting it failed. */
  find(): Promise<T | undefined>;
}

/** Which path `WAYBILL_SANDBOX` forces, undefined for none. */
export function forcedPath(): 'docker' | 'native' | undefined {
  const value = process.env['WAYBILL_SANDBOX'];
  if (value === undefined || value === '') return undefined;
  if (value === 'docker' || value === 'native') return value;
  throw new Error(`WAYBILL_SANDBOX=${value}: use docker or native`);
}

/**
 * Gives what the first source that has the server found, sources in the order to try. `WAYBILL_SANDBOX` leaves those of
 * one path only. Starting it is the caller's: a start that fails is never hidden by another source.
 *
 * @param wanted what the error calls it: 'PostgreSQL 18'
 * @param remedy what to install if no source has it
 * @throws ServerUnavailableError
 */
export async function firstOf<T>(sources: readonly Source<T>[], wanted: string, remedy: string): Promise<T> {
  const forced = forcedPath();
  const failures: string[] = [];
  for (const source of sources) {
    if (forced !== undefined && source.kind !== forced) continue;
    try {
      const found = await source.find();
      if (found !== undefined) return found;
      failures.push(`${source.name}: none`);
    } catch (error) {
      failures.push(`${source.name}: ${messageOf(error)}`);
    }
  }
  const path = forced === undefined ? '' : ` (WAYBILL_SANDBOX=${forced})`;
  throw new ServerUnavailableError(`${wanted} cannot be had${path}. ${remedy}\n  ${failures.join('\n  ')}`);
}
