/** How large a table is that was never analysed: its rows, or those of a range, as the planner guesses; its files. */
import type pg from 'pg';
import { partitionTreeSql } from '../../core/partition-tree.ts';
import type { KeySpan } from '../snapshot-request.ts';
import type { CapturedTable } from './catalog.ts';
import { CHANGED_TABLE } from './chunk-reader.ts';
import { guessSql } from './chunk-sql.ts';
import { sourceError } from './source-error.ts';

interface Plan {
  readonly 'QUERY PLAN': readonly [{ readonly Plan: { readonly 'Plan Rows': number } }];
}

/** 0 for a table that is gone by now, or another one, or that this user may not read: who reads it says so. Throws classified errors. */
export async function guessRows(client: pg.Client, table: CapturedTable, span?: KeySpan): Promise<number> {
  try {
    const { rows } = await client.query<Plan>(guessSql(table, span));
    return rows[0]!['QUERY PLAN'][0].Plan['Plan Rows'];
  } catch (thrown) {
    if (CHANGED_TABLE.has((thrown as { code?: string }).code ?? '')) return 0;
    const error = sourceError(thrown, `guessing the rows of ${table.schema.schema}.${table.schema.name}`);
    if (error.code !== 'source_privilege') throw error;
    return 0;
  }
}

/** Bytes of a table's files with what is stored out of line, of all its partitions; 0 for one that is gone by now. */
export async function measureBytes(client: pg.Client, oid: number): Promise<number> {
  try {
    const { rows } = await client.query<{ bytes: number | null }>(SIZE_SQL, [oid]);
    return rows[0]?.bytes ?? 0;
  } catch (thrown) {
    throw sourceError(thrown, 'measuring a table');
  }
}

const SIZE_SQL = `
select sum(pg_table_size(relid))::float8 as bytes
  from ${partitionTreeSql('$1')} l where isleaf`;
