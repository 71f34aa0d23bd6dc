/** Findings of comparisons, and the rows that they are about, side by side. */
import type { Config } from '../../core/config.ts';
import type { DriftFinding, DriftView, RowPairView } from '../../monitoring/console/views.ts';
import { placeOf } from '../../monitoring/drift/open-sides.ts';
import type { SqlReader, SqlRow } from '../../monitoring/sql-reader.ts';
import { hiddenColumns, shown } from './hidden-columns.ts';

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

function finding(row: SqlRow): DriftFinding {
  const key = row['key'];
  return {
    id: row['id']!,
    table: `${row['table_schema']}.${row['table_name']}`,
    kind: row['kind']!,
    key: key == null ? null : (JSON.parse(key) as string[]),
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

export async function lastRun(reader: SqlReader, flow: string): Promise<DriftView['lastRun']> {
  if (!(await compared(reader))) return undefined;
  const leftOut =
    reader.kind === 'postgres'
      ? `jsonb_path_query_array(tables, '$.*.leftOut[*]')`
      : `JSON_EXTRACT(tables, '$.*.leftOut[*]')`;
  const [row] = await reader.query(
    `SELECT state, started_at, finished_at, ${leftOut} AS left_out FROM waybill.drift_run WHERE flow = ? ORDER BY id DESC LIMIT 1`,
    [flow],
  );
  if (row === undefined) return undefined;
  const finishedAt = moment(row['finished_at']);
  const parts = JSON.parse(row['left_out'] ?? '[]') as { what: string; why: string; records: number }[];
  return {
    ...(parts.length === 0 ? {} : { leftOut: parts.map(({ what, why, records }) => ({ what, why, records })) }),
    state: row['state']!,
    startedAt: moment(row['started_at'])!,
    ...(finishedAt === undefined ? {} : { finishedAt }),
  };
}

const COLUMNS = (reader: SqlReader): string =>
  `id, table_schema, table_name, kind, ${reader.quote('key')}, copies, found_at, confirmed_at`;

export async function readDrift(reader: SqlReader, flow: string, offset: number, limit: number): Promise<DriftView> {
  const tables = await countFindings(reader, flow);
  const run = await lastRun(reader, flow);
  const rows = (await compared(reader))
    ? await reader.query(
        `SELECT ${COLUMNS(reader)} FROM waybill.drift WHERE flow = ? AND state = 'open' ORDER BY id LIMIT ? OFFSET ?`,
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
    findings: rows.map(finding),
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

/** Reads the target's side of a record now: what its sources say is worked out where records are compared. */
export async function readRecordPair(
  config: Config,
  flow: string,
  id: string,
  target: SqlReader,
): Promise<RowPairView | undefined> {
  const [row] = await target.query(
    `SELECT ${COLUMNS(target)} FROM waybill.drift WHERE flow = ? AND id = ? AND state = 'open'`,
    [flow, id],
  );
  if (row === undefined) return undefined;
  const found = finding(row);
  const place = { schema: row['table_schema']!, name: row['table_name']! };
  const names = await keyColumns(target, place);
  const there = await readRow(
    target,
    place,
    names.map((name, i): [string, string] => [name, found.key?.[i] ?? '']),
  );
  const hides = hiddenColumns(config, flow);
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
    note: 'What the sources say of a record is worked out only while records are compared. Explain shows where each of its values came from.',
  };
}

/** Reads both rows now: what is shown may have been mended since it was found. */
export async function readRowPair(
  config: Config,
  flow: string,
  id: string,
  readers: { readonly source: SqlReader; readonly target: SqlReader },
): Promise<RowPairView | undefined> {
  const { source, target } = readers;
  const [row] = await target.query(
    `SELECT ${COLUMNS(target)} FROM waybill.drift WHERE flow = ? AND id = ? AND state = 'open'`,
    [flow, id],
  );
  if (row === undefined) return undefined;
  const found = finding(row);
  const place = { schema: row['table_schema']!, name: row['table_name']! };
  const none = { finding: found, columns: [], sourceRow: false, targetRow: false };
  if (found.key === null)
    return {
      ...none,
      note: 'The table has no key, so that its rows cannot be told apart: only their number is known.',
    };
  const names = await keyColumns(source, place);
  if (names.length !== found.key.length)
    return {
      ...none,
      note: 'The rows are told apart by other columns than the primary key: they cannot be looked up here.',
    };
  const key = names.map((name, i): [string, string] => [name, found.key![i]!]);
  const [left, right] = await Promise.all([
    readRow(source, place, key),
    readRow(target, { schema: placeOf(config, flow)(place.schema), name: place.name }, key),
  ]);
  const hides = hiddenColumns(config, flow);
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
