/** Views beside the tables of a target, made once and replaced when a version of Waybill brings another statement. */
import type { TargetConfig } from '../../core/config.ts';
import { quoteName, quoteLiteral } from './sql.ts';
import { openTargetSession } from './session.ts';
import { targetError } from './target-error.ts';

export interface ViewToMake {
  readonly name: string;
  /** `CREATE OR REPLACE VIEW …`. */
  readonly sql: string;
  /** Tells this version of the view from others. */
  readonly comment: string;
}

/** Any number, the same in every process: only one makes views at a time. */
const VIEWS_LOCK = 7_492_115;

/**
 * Makes the views of a schema that are not there in this version, and before them what `tables` (CREATE … IF NOT EXISTS)
 * makes. Gives the names of those that it made. Throws `target_privilege`, `target_shape` or another classified error.
 */
export async function makeViews(
  target: TargetConfig,
  schema: string,
  tables: readonly string[],
  views: readonly ViewToMake[],
): Promise<string[]> {
  const session = await openTargetSession(target, 'waybill views');
  const { client } = session;
  try {
    const missing = async (): Promise<readonly ViewToMake[]> => {
      const { rows } = await client.query<{ name: string; comment: string | null }>(
        `SELECT c.relname AS name, obj_description(c.oid, 'pg_class') AS comment
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'v'`,
        [schema],
      );
      return views.filter((view) => !rows.some((row) => row.name === view.name && row.comment === view.comment));
    };
    // Replacing a view waits for everybody who reads it: not when nothing has changed.
    if ((await missing()).length === 0) return [];
    await client.query('BEGIN');
    await client.query(`SELECT pg_advisory_xact_lock(${VIEWS_LOCK})`);
    const { rows } = await client.query<{ there: boolean }>('SELECT to_regnamespace($1) IS NOT NULL AS there', [
      quoteName(schema),
    ]);
    // Even with IF NOT EXISTS the statement needs CREATE on the database, which a DBA need not grant.
    if (rows[0]?.there !== true) await client.query(`CREATE SCHEMA IF NOT EXISTS ${quoteName(schema)}`);
    const wanted = await missing();
    if (wanted.length > 0) for (const statement of tables) await client.query(statement);
    for (const { name, sql, comment } of wanted) {
      await client.query(sql);
      await client.query(`COMMENT ON VIEW ${quoteName(schema)}.${quoteName(name)} IS ${quoteLiteral(comment)}`);
    }
    await client.query('COMMIT');
    return wanted.map(({ name }) => name);
  } catch (thrown) {
    throw targetError(thrown, `making views in schema ${schema} of the target`);
  } finally {
    await session.close();
  }
}
