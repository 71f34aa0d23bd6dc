/** Compares two databases in full: first a digest per table, then, where digests differ, row by row. */
import { Client, escapeIdentifier } from 'pg';

/** One thing in which the target differs from the source. */
export interface Difference {
  /** Of the source, `schema.name`. */
  readonly table: string;
  readonly kind: 'no table' | 'no column' | 'missing' | 'extra' | 'different';
  /** The key of the row, or the name of the column. */
  readonly key: string;
}

/** More than this many differing rows of one table are not listed. */
const LISTED_ROWS = 20;
const SESSION = `set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'iso_8601';
  set bytea_output = 'hex'; set extra_float_digits = 1; set default_transaction_isolation = 'repeatable read'`;

/**
 * Compares the content of tables (`schema.name`, as on the source) of two databases; a `targetSchema` holds them all in
 * the target. Gives what differs, and nothing when both sides are equal. Generated columns are left out.
 */
export async function compareDatabases(
  sourceUrl: string,
  targetUrl: string,
  tables: readonly string[],
  targetSchema?: string,
): Promise<Difference[]> {
  const source = await open(sourceUrl);
  try {
    const target = await open(targetUrl);
    try {
      const differences: Difference[] = [];
      for (const table of tables) differences.push(...(await compareTable(source, target, table, targetSchema)));
      return differences;
    } finally {
      await target.end();
    }
  } finally {
    await source.end();
  }
}

async function open(url: string): Promise<Client> {
  const client = new Client({ connectionString: url, application_name: 'comparison' });
  await client.connect();
  await client.query(SESSION);
  return client;
}

async function compareTable(
  source: Client,
  target: Client,
  table: string,
  targetSchema: string | undefined,
): Promise<Difference[]> {
  const [schema, name] = splitName(table);
  const columns = await readColumns(source, schema, name);
  if (columns.length === 0) throw new Error(`the source has no table ${table}`);
  const there = (await readColumns(target, targetSchema ?? schema, name)).map((column) => column.name);
  if (there.length === 0) return [{ table, kind: 'no table', key: `${targetSchema ?? schema}.${name}` }];
  const lacking = columns.filter((column) => !there.includes(column.name));
  if (lacking.length > 0) return lacking.map((column) => ({ table, kind: 'no column', key: column.name }));

  const onSource = rowExpressions(schema, name, columns);
  const onTarget = rowExpressions(targetSchema ?? schema, name, columns);
  const [left, right] = await Promise.all([readDigest(source, onSource), readDigest(target, onTarget)]);
  if (left === right) return [];
  const [leftRows, rightRows] = await Promise.all([readRows(source, onSource), readRows(target, onTarget)]);
  return compareRows(table, leftRows, rightRows);
}

/** What differs between the rows of two tables, given as a hash for each key; no more than a few of them by name. */
export function compareRows(
  table: string,
  left: ReadonlyMap<string, string>,
  right: ReadonlyMap<string, string>,
): Difference[] {
  const differences: Difference[] = [];
  let count = 0;
  const add = (kind: Difference['kind'], key: string): void => {
    count += 1;
    if (count <= LISTED_ROWS) differences.push({ table, kind, key });
  };
  for (const [key, hash] of left) {
    const other = right.get(key);
    if (other === undefined) add('missing', key);
    else if (other !== hash) add('different', key);
  }
  for (const key of right.keys()) if (!left.has(key)) add('extra', key);
  if (count > LISTED_ROWS) differences.push({ table, kind: 'different', key: `… ${count - LISTED_ROWS} rows more` });
  return differences;
}

interface Column {
  readonly name: string;
  /** Place in the primary key, null outside it. */
  readonly keyPlace: number | null;
}

async function readColumns(client: Client, schema: string, name: string): Promise<Column[]> {
  const { rows } = await client.query<Column>(
    `select a.attname as name, array_position(i.indkey::int2[], a.attnum)::int as "keyPlace"
       from pg_attribute a
       join pg_class c on c.oid = a.attrelid
       join pg_namespace n on n.oid = c.relnamespace
       left join pg_index i on i.indrelid = c.oid and i.indisprimary
      where n.nspname = $1 and c.relname = $2 and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
      order by a.attnum`,
    [schema, name],
  );
  return rows;
}

interface RowExpressions {
  readonly from: string;
  readonly key: string;
  readonly hash: string;
}

/** The key and the hash of a row as SQL; columns in the source's order on both sides. */
function rowExpressions(schema: string, name: string, columns: readonly Column[]): RowExpressions {
  const text = (column: Column): string => `quote_nullable(t.${escapeIdentifier(column.name)}::text)`;
  const joined = (list: readonly Column[]): string => `concat_ws(',', ${list.map(text).join(', ')})`;
  const keyed = columns.filter((column) => column.keyPlace !== null).sort((a, b) => a.keyPlace! - b.keyPlace!);
  const hash = `md5(${joined(columns)})`;
  return {
    from: `${escapeIdentifier(schema)}.${escapeIdentifier(name)} t`,
    // Without a key a row is told apart by its content and its place among equals.
    key: keyed.length > 0 ? joined(keyed) : `${hash} || ' #' || row_number() over (partition by ${hash})`,
    hash,
  };
}

async function readDigest(client: Client, { from, hash }: RowExpressions): Promise<string> {
  const { rows } = await client.query<{ digest: string }>(
    `select count(*) || ' ' || coalesce(md5(string_agg(h, '' order by h collate "C")), '') as digest
       from (select ${hash} as h from ${from}) hashes`,
  );
  return rows[0]!.digest;
}

async function readRows(client: Client, { from, key, hash }: RowExpressions): Promise<Map<string, string>> {
  const { rows } = await client.query<[string, string]>({
    text: `select ${key}, ${hash} from ${from}`,
    rowMode: 'array',
  });
  return new Map(rows);
}

function splitName(table: string): [schema: string, name: string] {
  const dot = table.indexOf('.');
  if (dot <= 0) throw new Error(`${table} must have the form schema.table`);
  return [table.slice(0, dot), table.slice(dot + 1)];
}
