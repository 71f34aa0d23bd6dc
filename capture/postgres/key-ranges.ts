/** Cuts a table into ranges of its keys. */
import type pg from 'pg';
import type { ColumnRules } from '../../core/column-rules.ts';
import type { KeyRange } from '../snapshot-request.ts';
import { sampleSql } from './chunk-sql.ts';
import type { PublishedTable } from './published-table.ts';
import { sourceError } from './source-error.ts';
import { nameOf } from './table-job.ts';

/** Rows for which another connection is worth its price. */
export const ROWS_A_CONNECTION = 50_000;
/** Keys from which the ranges of a table are chosen. */
const SAMPLE_ROWS = 5000;

/** Ranges of about the same size, as many as `most`, by a sample of the keys; none for a table that is not worth it. */
export async function splitByKeys(
  client: pg.Client,
  table: PublishedTable,
  rules: ColumnRules,
  { estimate, most }: { readonly estimate: number; readonly most: number },
): Promise<KeyRange[]> {
  const count = Math.min(most, Math.floor(estimate / ROWS_A_CONNECTION));
  if (count < 2) return [];
  const percent = Math.min(100, Math.ceil((100 * 100 * SAMPLE_ROWS) / estimate) / 100);
  let keys: string[][];
  try {
    keys = (await client.query({ text: sampleSql(table, percent), rowMode: 'array' })).rows;
  } catch (thrown) {
    const error = sourceError(thrown, `sampling keys of ${nameOf(table.schema)}`);
    // Foreign partitions cannot be sampled. Of what may not be read the chunks tell.
    if (error.code !== 'source_query' && error.code !== 'source_privilege') throw error;
    return [];
  }
  const bounds: string[][] = [];
  for (let n = 1; n < count; n++) {
    const key = keys[Math.floor((n * keys.length) / count)];
    if (key !== undefined && JSON.stringify(key) !== JSON.stringify(bounds.at(-1))) bounds.push(key);
  }
  const sealed = bounds.map((key) => rules.sealCursor(table.publication, key));
  return [...sealed, null].map((upTo, n) => ({ cursor: n === 0 ? null : sealed[n - 1]!, upTo }));
}
