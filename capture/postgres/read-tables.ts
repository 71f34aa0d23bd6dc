/** Reads tables from the catalog without waiting for whoever holds one of them. */
import type pg from 'pg';
import { catalogSql, TABLES_SQL, tableOfRow, type CapturedTable, type CatalogRow } from './catalog.ts';
import { sourceError } from './source-error.ts';

/** The default of each column, by its oid as an object of the catalog. */
export type Defaults = Map<string, string>;

/** So often it is looked who holds tables. */
const MOST_ATTEMPTS = 3;
/** So long whoever holds a table is waited for: what tells a default locks its table. */
const HELD_MS = 100;

/**
 * Reads the tables that `isChosen` chooses (partitions left out), by name. Of those that somebody holds, as `VACUUM FULL` does,
 * the defaults are those of `defaults`, which has what was read last; `isWhole`: there are none.
 */
export async function readTables(
  client: pg.Client,
  isChosen: (schema: string, name: string, oid: number) => boolean,
  defaults: Defaults = new Map(),
): Promise<{ readonly tables: CapturedTable[]; readonly isWhole: boolean }> {
  try {
    for (let round = 1; ; round++) {
      const listed = await client.query<{ oid: string; schema: string; name: string }>(
        `select c.oid::int8::text as oid, n.nspname as schema, c.relname as name ${TABLES_SQL} and not c.relispartition`,
      );
      const oids = listed.rows
        .filter(({ oid, schema, name }) => isChosen(schema, name, Number(oid)))
        .map(({ oid }) => oid);
      const read = await readListed(client, oids, defaults);
      // All that were listed have gone while whoever held them was waited for: others may have come in their place.
      if (read.tables.length > 0 || oids.length === 0 || round === MOST_ATTEMPTS) return read;
    }
  } catch (thrown) {
    throw sourceError(thrown, 'reading the catalog of the source');
  }
}

async function readListed(
  client: pg.Client,
  oids: readonly string[],
  defaults: Defaults,
): Promise<{ readonly tables: CapturedTable[]; readonly isWhole: boolean }> {
  let held: readonly string[] = [];
  for (let attempt = 1; ; attempt++) {
    const rows = await readUnheld(client, oids, held);
    if (rows !== undefined) return { tables: withDefaults(rows, new Set(held), defaults), isWhole: held.length === 0 };
    held = attempt === MOST_ATTEMPTS ? oids : await heldTables(client, oids, held);
  }
}

/** Undefined where others than `held` are held as well. */
async function readUnheld(
  client: pg.Client,
  oids: readonly string[],
  held: readonly string[],
): Promise<CatalogRow[] | undefined> {
  const list = (some: readonly string[]): string => `any('{${some.join()}}'::oid[])`;
  const sql = catalogSql(`c.oid = ${list(oids)} and not c.relispartition`, `(c.oid = ${list(held)})`);
  try {
    // One message is one transaction: the setting is gone behind it, and whoever shares the connection is not concerned.
    const results = (await client.query(`set local lock_timeout = ${HELD_MS}; ${sql}`)) as unknown;
    return (results as readonly pg.QueryResult<CatalogRow>[])[1]!.rows.filter((row) => row.columns !== null);
  } catch (thrown) {
    if (isHeld(thrown)) return undefined;
    throw thrown;
  }
}

/** Whether a lock was not got in time. PostgreSQL documentation, appendix A: lock_not_available. */
export function isHeld(thrown: unknown): boolean {
  const { code, cause } = (thrown ?? {}) as { code?: unknown; cause?: { code?: unknown } };
  return code === '55P03' || cause?.code === '55P03';
}

async function heldTables(
  client: pg.Client,
  oids: readonly string[],
  held: readonly string[],
): Promise<readonly string[]> {
  const { rows } = await client.query<{ oid: string }>(
    `select distinct relation::int8::text as oid from pg_locks where locktype = 'relation' and mode = 'AccessExclusiveLock'
       and database = (select oid from pg_database where datname = current_database()) and relation = any($1::oid[])`,
    [oids],
  );
  return [...new Set([...held, ...rows.map(({ oid }) => oid)])];
}

/** Fills in what is known of defaults, and notes what they are. */
function withDefaults(rows: readonly CatalogRow[], held: ReadonlySet<string>, defaults: Defaults): CapturedTable[] {
  const known = new Map(defaults);
  defaults.clear();
  return rows.map((row) => {
    const columns = row.columns!.map((column) => {
      const { preset } = column;
      if (preset == null) return column;
      const text = held.has(row.oid) ? known.get(preset) : column.default;
      if (text != null) defaults.set(preset, text);
      return { ...column, default: text ?? null };
    });
    return tableOfRow({ ...row, columns });
  });
}
