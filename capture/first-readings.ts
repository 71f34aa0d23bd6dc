/** Tables whose rows the stream does not hold yet: nothing can be claimed of what a flow has of them. */
import type { KV } from '@nats-io/kv';
import { readProgress, type TableProgress } from './snapshot-request.ts';

/**
 * Whether a table, or a partition of it, is read because the log alone does not bring its rows: when it is captured for the
 * first time, or after the log was lost. A reading that somebody asked for, of a table that is there, is none.
 */
function isFirst({ state, keys, span, request, first, needed }: TableProgress): boolean {
  if (state === 'done' || keys !== undefined || span !== undefined) return false;
  return request === undefined || first === true || needed === true;
}

/** The tables of a source (`schema.name`) that wait to be read, or are read, for the first time. Throws `nats_*`. */
export async function readFirstReadings(bucket: KV, source: string): Promise<ReadonlySet<string>> {
  const progress = await readProgress(bucket, source);
  return new Set((progress?.tables ?? []).filter(isFirst).map(({ schema, name }) => `${schema}.${name}`));
}
