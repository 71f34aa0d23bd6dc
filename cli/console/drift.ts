/** Findings of comparisons, and the rows that they are about, side by side. */
import type { Config } from '../../core/config.ts';
import type { DriftFinding, DriftView, RowPairView, ShownValue } from '../../monitoring/console/views.ts';
import { placeOf } from '../../monitoring/drift/open-sides.ts';
import type { RowImages } from '../../monitoring/drift/row-images.ts';
import { LATEST_RUNS, wasInterrupted } from '../../monitoring/drift/verification.ts';
import type { SqlReader, SqlRow } from '../../monitoring/sql-reader.ts';
import { hiddenColumns, shown, type HidesColumn } from './hidden-columns.ts';

async function compared(reader: SqlReader): Promise<boolean> {
  const rows = await reader.query(
    `SELECT table_name FROM information_schema.tables WHERE table_schema = 'waybill' AND table_name = 'drift'`,
  );
  return rows.length > 0;
}

/** A moment as the server prints it in UTC, as RFC 3339. */
function moment(text: string | null | undefined): string | undefined {
  if (text == null) return undefined;
  return new Date(
    /[zZ]|[+-]\d\d(:?\d\d)?$/.test(text) ? text.replace(/([+-]\d\d)$/, '$1:00') : `${text.replace(' ', 'T')}Z`,
  ).toISOString();
}

/** The values of a finding's key; undefined for a table without one. */
function keyOf(row: SqlRow): string[] | undefined {
  return row['key'] == null ? undefined : (JSON.parse(row['key']) as string[]);
}

function finding(row: SqlRow, hides: HidesColumn): DriftFinding {
  // Of one that an earlier version found the names are not known.
  const names = JSON.parse(row['key_columns'] ?? '[]') as string[];
  const hidden = (index: number): boolean =>
    names[index] !== undefined && hides(row['table_schema']!, row['table_name']!, names[index]);
  return {
    id: row['id']!,
    table: `${row['table_schema']}.${row['table_name']}`,
    kind: row['kind']!,
    key: keyOf(row)?.map((value, index) => shown(value, hidden(index))) ?? null,
    copies: Number(row['copies']),
    foundAt: moment(row['found_at'])!,
    confirmedAt: moment(row['confirmed_at'])!,
  };
}

/** Rows that differ, by table and kind. Empty where nothing was ever compared. */
export async function countFindings(reader: SqlReader, flow: string): Promise<DriftView['tables']> {
  if (!(await compared(reader))) return [];
  const rows = await reader.query(
    `SELECT table_schema, table_name, kind, sum(copies) AS n FROM waybill.drift
      WHERE flow = ? AND state = 'open' GROUP BY table_schema, table_name, kind ORDER BY table_schema, table_name, kind`,
    [flow],
  );
  return rows.map((row) => ({
    table: `${row['table_schema']}.${row['table_name']}`,
    kind: row['kind']!,
    rows: Number(row['n']),
  }));
}

/** SQL that is true of a run in which rows changed whenever they were looked at. */
const unresolvedIn = ({ kind }: SqlReader): string =>
  kind === 'postgres'
    ? `EXISTS (SELECT FROM jsonb_each(tables) AS t WHERE (t.value ->> 'unresolved')::bigint > 0)`
    : `coalesce(CAST(JSON_EXTRACT(tables, '$.*.unresolved') AS char), '') REGEXP '[1-9]'`;

/** When the newest of the latest comparisons began that proved a flow equal; undefined: none of them did. */
export async function lastProof(reader: SqlReader, flow: string): Promise<string | undefined> {
  if (!(await compared(reader))) return undefined;
  const found =
    reader.kind === 'postgres'
      ? `jsonb_path_exists(tables, '$.*.findings[*]')`
      : `JSON_EXTRACT(tables, '$.*.findings[*]') IS NOT NULL`;
  const [row] = await reader.query(
    `SELECT started_at FROM
       (SELECT * FROM waybill.drift_run WHERE flow = ? ORDER BY id DESC LIMIT ${LATEST_RUNS}) AS latest
      WHERE state = 'done' AND tables <> '{}' AND NOT (${found}) AND NOT (${unresolvedIn(reader)}) ORDER BY id DESC LIMIT 1`,
    [flow],
  );
  return moment(row?.['started_at']);
}

export async function lastRun(reader: SqlReader, flow: string): Promise<DriftView['lastRun']> {
  if (!(await compared(reader))) return undefined;
  const leftOut =
    reader.kind === 'postgres'
      ? `jsonb_path_query_array(tables, '$.*.leftOut[*]')`
      : `JSON_EXTRACT(tables, '$.*.leftOut[*]')`;
  const [row] = await reader.query(
    `SELECT state, error, started_at, finished_at, ${leftOut} AS left_out, CASE WHEN ${unresolvedIn(reader)} THEN 1 END AS unresolved FROM waybill.drift_run WHERE flow = ? ORDER BY id DESC LIMIT 1`,
    [flow],
  );
  if (row === undefined) return undefined;
  const finishedAt = moment(row['finished_at']);
  const parts = JSON.parse(row['left_out'] ?? '[]') as { what: string; why: string; records: number }[];
  return {
    ...(parts.length === 0 ? {} : { leftOut: parts.map(({ what, why, records }) => ({ what, why, records })) }),
    ...(row['unresolved'] == null ? {} : { unresolved: true }),
    state: wasInterrupted(row['error'] ?? null) ? 'interrupted' : row['state']!,
    startedAt: moment(row['started_at'])!,
    ...(finishedAt === undefined ? {} : { finishedAt }),
  };
}

/** One that was made by an earlier version gets its newer columns with the next comparison. */
async function columnsOf(reader: SqlReader, ...more: readonly 'images'[]): Promise<string> {
  const newer = await reader.query(
    `SELECT column_name AS c FROM information_schema.columns
      WHERE table_schema = 'waybill' AND table_name = 'drift' AND column_name = 'key_columns'`,
  );
  const columns = `id, table_schema, table_name, kind, ${reader.quote('key')}, copies, found_at, confirmed_at`;
  return newer.length === 0 ? columns : [columns, 'key_columns', ...more].join(', ');
}

export async function readDrift(
  config: Config,
  reader: SqlReader,
  flow: string,
  { offset, limit }: { readonly offset: number; readonly limit: number },
): Promise<DriftView> {
  const hides = hiddenColumns(config, flow);
  const tables = await countFindings(reader, flow);
  const run = await lastRun(reader, flow);
  const rows = (await compared(reader))
    ? await reader.query(
        `SELECT ${await columnsOf(reader)} FROM waybill.drift WHERE flow = ? AND state = 'open' ORDER BY id LIMIT ? OFFSET ?`,
        [flow, limit, offset],
      )
    : [];
  const [count] =
    rows.length === 0
      ? []
      : await reader.query(`SELECT count(*) AS n FROM waybill.drift WHERE flow = ? AND state = 'open'`, [flow]);
  return {
    flow,
    total: Number(count?.['n'] ?? 0),
    tables,
    findings: rows.map((row) => finding(row, hides)),
    ...(run === undefined ? {} : { lastRun: run }),
  };
}

interface Row {
  readonly columns: readonly string[];
  readonly values: ReadonlyMap<string, string | null>;
}

interface Place {
  readonly schema: string;
  readonly name: string;
}

/** The columns of a table, and the row with this key as the server prints it; no values where there is none. */
async function readRow(reader: SqlReader, place: Place, key: readonly [string, string][]): Promise<Row> {
  const columns = await reader.query(
    `SELECT column_name AS c FROM information_schema.columns WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position`,
    [place.schema, place.name],
  );
  const names = columns.map((row) => row['c']!);
  if (names.length === 0) return { columns: [], values: new Map() };
  const where = key.map(([name]) => `${reader.quote(name)} = ?`).join(' AND ');
  const [row] = await reader.query(
    `SELECT ${names.map((name) => reader.quote(name)).join(', ')} FROM ${reader.quote(place.schema)}.${reader.quote(place.name)} WHERE ${where}`,
    key.map(([, value]) => value),
  );
  return { columns: names, values: new Map(row === undefined ? [] : Object.entries(row)) };
}

async function keyColumns(reader: SqlReader, place: Place): Promise<string[]> {
  const rows = await reader.query(
    `SELECT k.column_name AS c FROM information_schema.table_constraints t
       JOIN information_schema.key_column_usage k ON k.constraint_name = t.constraint_name
        AND k.table_schema = t.table_schema AND k.table_name = t.table_name
      WHERE t.constraint_type = 'PRIMARY KEY' AND t.table_schema = ? AND t.table_name = ? ORDER BY k.ordinal_position`,
    [place.schema, place.name],
  );
  return rows.map((row) => row['c']!);
}

/** Both rows as the comparison had them; undefined where it kept none. */
function keptPair(row: SqlRow, hides: HidesColumn): RowPairView | undefined {
  if (row['images'] == null) return undefined;
  const { columns, key, differs, source, target } = JSON.parse(row['images']) as RowImages;
  const found = finding(row, hides);
  const show = (values: RowImages['source'], index: number): ShownValue => {
    const value = values?.[index];
    if (typeof value !== 'string') return value ?? null;
    // What is hidden may be more by now.
    return shown(value, hides(row['table_schema']!, row['table_name']!, columns[index]!));
  };
  return {
    finding: found,
    readAt: found.confirmedAt,
    sourceRow: source !== null,
    targetRow: target !== null,
    columns: columns.map((name, index) => ({
      name,
      key: key.includes(index),
      source: show(source, index),
      target: show(target, index),
      differs: differs.includes(index),
    })),
  };
}

/** One open finding with what was kept of its rows. */
async function readFinding(target: SqlReader, flow: string, id: string): Promise<SqlRow | undefined> {
  const [row] = await target.query(
    `SELECT ${await columnsOf(target, 'images')} FROM waybill.drift WHERE flow = ? AND id = ? AND state = 'open'`,
    [flow, id],
  );
  return row;
}

/** Both sides of a record as the comparison had them; where it kept none, the target's side now. */
export async function readRecordPair(
  config: Config,
  flow: string,
  id: string,
  target: SqlReader,
): Promise<RowPairView | undefined> {
  const row = await readFinding(target, flow, id);
  if (row === undefined) return undefined;
  const hides = hiddenColumns(config, flow);
  const kept = keptPair(row, hides);
  if (kept !== undefined) return kept;
  const found = finding(row, hides);
  const keyTexts = keyOf(row);
  const place = { schema: row['table_schema']!, name: row['table_name']! };
  const names = await keyColumns(target, place);
  const there = await readRow(
    target,
    place,
    names.map((name, i): [string, string] => [name, keyTexts?.[i] ?? '']),
  );
  return {
    finding: found,
    sourceRow: false,
    targetRow: there.values.size > 0,
    columns: there.columns.map((name) => ({
      name,
      key: names.includes(name),
      source: null,
      target: shown(there.values.get(name), hides(place.schema, place.name, name)),
      differs: false,
    })),
    note: 'What the sources say of a record is worked out only while records are compared, and kept for the first findings. Explain shows where each of its values came from.',
  };
}

/** Both rows as the comparison had them; where it kept none, as they are now. */
export async function readRowPair(
  config: Config,
  flow: string,
  id: string,
  target: SqlReader,
  askSource: <T>(work: (source: SqlReader) => Promise<T>) => Promise<T>,
): Promise<RowPairView | undefined> {
  const row = await readFinding(target, flow, id);
  if (row === undefined) return undefined;
  const hides = hiddenColumns(config, flow);
  const kept = keptPair(row, hides);
  if (kept !== undefined) return kept;
  const found = finding(row, hides);
  const keyTexts = keyOf(row);
  const place = { schema: row['table_schema']!, name: row['table_name']! };
  const none = { finding: found, columns: [], sourceRow: false, targetRow: false };
  if (keyTexts === undefined)
    return {
      ...none,
      note: 'The table has no key, so that its rows cannot be looked up here: only their number is known.',
    };
  const names = await askSource((source) => keyColumns(source, place));
  if (names.length !== keyTexts.length)
    return {
      ...none,
      note: 'The rows are told apart by other columns than the primary key: they cannot be looked up here.',
    };
  const key = names.map((name, i): [string, string] => [name, keyTexts[i]!]);
  const [left, right] = await Promise.all([
    askSource((source) => readRow(source, place, key)),
    readRow(target, { schema: placeOf(config, flow)(place.schema), name: place.name }, key),
  ]);
  const both = left.values.size > 0 && right.values.size > 0;
  return {
    finding: found,
    sourceRow: left.values.size > 0,
    targetRow: right.values.size > 0,
    columns: [...new Set([...left.columns, ...right.columns])].map((name) => {
      const hidden = hides(place.schema, place.name, name);
      return {
        name,
        key: names.includes(name),
        source: shown(left.values.get(name), hidden),
        target: shown(right.values.get(name), hidden),
        differs:
          both && left.columns.includes(name) && right.columns.includes(name)
            ? left.values.get(name) !== right.values.get(name)
            : false,
      };
    }),
    ...(both || left.values.size > 0 || right.values.size > 0
      ? {}
      : { note: 'Neither side has the row any more; the next comparison will close this.' }),
  };
}
