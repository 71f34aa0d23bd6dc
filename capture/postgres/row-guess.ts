/** How many rows a table has, or a range of it, as the planner guesses. */
import type pg from 'pg';
import type { KeySpan } from '../snapshot-request.ts';
import type { CapturedTable } from './catalog.ts';
import { CHANGED_TABLE } from './chunk-reader.ts';
import { guessSql } from './chunk-sql.ts';
import { sourceError } from './source-error.ts';

interface Plan {
  readonly 'QUERY PLAN': readonly [{ readonly Plan: { readonly 'Plan Rows': number } }];
}

/** 0 for a table that is gone by now, or another one. Throws classified errors. */
export async function guessRows(client: pg.Client, table: CapturedTable, span?: KeySpan): Promise<number> {
  try {
    const { rows } = await client.query<Plan>(guessSql(table, span));
    return rows[0]!['QUERY PLAN'][0].Plan['Plan Rows'];
  } catch (thrown) {
    if (CHANGED_TABLE.has((thrown as { code?: string }).code ?? '')) return 0;
    throw sourceError(thrown, `guessing the rows of ${table.schema.schema}.${table.schema.name}`);
  }
}
