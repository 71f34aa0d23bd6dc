/**
 * The frame: one JetStream message holding many row changes in commit order. docs/frame-format.md describes it for
 * readers in other languages; this file is the same description as types, and the checked decoder.
 */
import { messageOf, ReplicationError } from './errors.ts';
import { PackedRows, type LinesEntry } from './packed-rows.ts';

/** Version of the payload and headers of a frame whose rows all stand in its JSON. */
export const FRAME_VERSION = 1;
/** The same, of one that has lines behind its JSON. A reader refuses a higher one. */
export const LINES_VERSION = 2;

const LINE_FEED = 0x0a;
/** How a payload with lines begins. Its JSON is one line. */
const LINES_HEAD = Buffer.from(`{"v":${LINES_VERSION},`, 'latin1');

export const HEADER = {
  format: 'Waybill-Format',
  source: 'Waybill-Source',
  /** Identity of the source database (Postgres: system identifier and database oid). */
  origin: 'Waybill-Origin',
  /** Postgres: the timeline of the source's log. */
  timeline: 'Waybill-Timeline',
  start: 'Waybill-Start',
  end: 'Waybill-End',
  epoch: 'Waybill-Epoch',
  rows: 'Waybill-Rows',
  /** Newest commit time in the frame, RFC 3339 UTC with microseconds. */
  time: 'Waybill-Time',
  /** `1` on a frame after which every table is read again: a consumer may jump to it over a hole. */
  reset: 'Waybill-Reset',
  /** MySQL, MariaDB: file and offset of the source's log that `end` was reached at. For people. */
  log: 'Waybill-Log',
  /** MySQL, MariaDB: the GTID set from which the log is read again while XA transactions are in doubt. */
  replay: 'Waybill-Replay',
  /** `i/n` on the pieces of a frame that is larger than a message. */
  chunk: 'Waybill-Chunk',
  /** Streams of records: how much of each source they hold, as JSON. For the transform. */
  checkpoint: 'Waybill-Checkpoint',
} as const;

/** A column's value: its canonical text (binary as base64), null, or 0 for *unchanged* (not sent by the source). */
export type Value = string | null | 0;

/** i insert, u update, d delete, r snapshot read, t truncate, s mark of a snapshot or of the schema, m logical message. */
export type Op = 'i' | 'u' | 'd' | 'r' | 't' | 's' | 'm';

/** k: only the identity columns are given (others are null); f: the whole old row. */
export type BeforeKind = 'k' | 'f';

/**
 * One change: operation, index into the frame's tables (-1 for messages), after-image, kind of before-image,
 * before-image. Images are positional by the table's columns. For `t` the image is the options (`cascade`,
 * `restart_identity`), for `s` it is [snapshot id, `begin` | `end`] or [what, `schema` | `gone`], for `m` [prefix,
 * content in base64].
 */
export type RowChange = readonly [
  op: Op,
  table: number,
  after: readonly Value[] | null,
  beforeKind?: BeforeKind,
  before?: readonly Value[],
];

/** Where a frame's run of rows stands in its transaction. */
export type Part = 'whole' | 'first' | 'middle' | 'last';

/**
 * One transaction (or part of one): xid, commit position and end position as 16 hex digits, commit time in
 * microseconds since 1970, number of this frame's rows that belong to it, part, and the ordinal of its first row here.
 * MySQL and MariaDB: xid 0, the GTID twice (`read:<number>` for rows that were read from tables). The origin is there
 * where Waybill itself wrote the transaction (core/origin.ts).
 */
export type TransactionEntry = readonly [
  xid: number,
  commitLsn: string,
  endLsn: string,
  commitTimeUs: number,
  rows: number,
  part: Part,
  ordinal: number,
  origin?: string,
];

/** The kind of database that a table is of: it decides what its type names and its value texts mean. */
export type Dialect = 'postgres' | 'mysql' | 'mariadb';

export interface ColumnSchema {
  readonly name: string;
  /** What tells the column from others of the table under whatever name (Postgres: attnum); absent where none is known. */
  readonly id?: number;
  /** As the source itself writes it: `numeric(12,2)` (format_type), `bigint unsigned`, `enum('a','b')` (COLUMN_TYPE). */
  readonly type: string;
  /** A type every database of this kind has, for types that a target may lack (enums, domains, extensions). */
  readonly portable: string;
  readonly notNull: boolean;
  /** A default that means the same elsewhere (a constant or the current time); absent otherwise. */
  readonly default?: string;
  /** The collation of a character column (MySQL and MariaDB). */
  readonly collation?: string;
  /** What rows have in it that were there when the column was added; absent: NULL. Not part of the version. */
  readonly existing?: string;
}

export interface TableSchema {
  /** Absent: postgres. */
  readonly dialect?: Dialect;
  readonly schema: string;
  readonly name: string;
  /** What tells the table from others of its source under whatever name (Postgres: oid); absent where none is known. */
  readonly id?: number;
  /** Changes whenever anything below does. */
  readonly version: string;
  readonly identity: 'default' | 'index' | 'full' | 'nothing';
  /** Columns that tell rows apart, in key order; empty where only the whole row does (identity full, no key). */
  readonly key: readonly string[];
  readonly columns: readonly ColumnSchema[];
}

export interface FramePayload {
  readonly v: number;
  readonly rows: readonly RowChange[];
  readonly tx: readonly TransactionEntry[];
  readonly tables: readonly TableSchema[];
}

/**
 * Decodes and checks a frame's payload; rows that came as lines are like any others. Throws `frame_unreadable` or
 * `frame_version`, naming `place`.
 */
export function decodeFrame(bytes: Uint8Array, place: string): FramePayload {
  const payload = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (hasLines(payload)) {
    const { packed, tx, tables } = decodePacked(payload, place);
    const frame = { v: FRAME_VERSION, rows: packed.decode(), tx, tables };
    checkRows(frame, refuser(place));
    return frame;
  }
  const frame = parseFrame(payload, place);
  if (frame.v > FRAME_VERSION) refuser(place)(`format ${frame.v} begins with ${LINES_HEAD.toString('latin1')}`);
  checkRows(frame, refuser(place));
  return frame;
}

/** Whether a payload has lines behind its JSON. */
export function hasLines(payload: Buffer): boolean {
  return payload.subarray(0, LINES_HEAD.length).equals(LINES_HEAD);
}

/** What a payload with lines holds. Its lines are not looked into. Throws as `decodeFrame`. */
export function decodePacked(
  payload: Buffer,
  place: string,
): { readonly packed: PackedRows } & Pick<FramePayload, 'tx' | 'tables'> {
  const end = payload.indexOf(LINE_FEED);
  const jsonEnd = end < 0 ? payload.length : end;
  const { rows, tx, tables } = parseFrame(payload.subarray(0, jsonEnd), place);
  const refuse = refuser(place);
  const packed = new PackedRows(rows as readonly (RowChange | LinesEntry)[], payload.subarray(jsonEnd + 1), refuse);
  for (const row of packed.others.values()) checkRow(row, tables, refuse);
  for (const { op, table } of packed.blocks)
    if (tables[table] === undefined) refuse(`lines of operation ${op} name table ${table} of ${tables.length}`);
  return { packed, tx, tables };
}

/** What to say of text that could not be parsed. What a syntax error says holds values; others are of its length. */
export function notJson(cause: unknown): string {
  return cause instanceof SyntaxError ? 'is not JSON' : `cannot be decoded: ${messageOf(cause)}`;
}

/** The JSON of a frame, with its transactions and tables checked. */
function parseFrame(json: Buffer, place: string): FramePayload {
  let parsed: unknown;
  try {
    parsed = JSON.parse(json.toString('utf8'));
  } catch (cause) {
    throw new ReplicationError('frame_unreadable', `${place} ${notJson(cause)}`, { cause });
  }
  const frame = parsed as FramePayload;
  if (frame === null || typeof frame !== 'object' || typeof frame.v !== 'number')
    throw new ReplicationError('frame_unreadable', `${place} is JSON but not a frame: it has no version`);
  if (frame.v > LINES_VERSION) throw tooNew(frame.v, place);
  const refuse = refuser(place);
  if (!Array.isArray(frame.rows)) refuse('rows, tx or tables is missing');
  checkTail(frame, refuse);
  return frame;
}

function tooNew(version: number, place: string): ReplicationError {
  return new ReplicationError(
    'frame_version',
    `${place} has format ${version}; this process reads up to ${LINES_VERSION}`,
  );
}

/** Decodes and checks a frame's transactions and tables alone, from `{"tx":…,"tables":…}`. Throws as `decodeFrame`. */
export function decodeTail(text: string, place: string): Pick<FramePayload, 'tx' | 'tables'> {
  let tail: Pick<FramePayload, 'tx' | 'tables'>;
  try {
    tail = JSON.parse(text) as typeof tail;
  } catch (cause) {
    throw new ReplicationError('frame_unreadable', `${place} ${notJson(cause)}`, { cause });
  }
  checkTail(tail, refuser(place));
  return tail;
}

/** Decodes and checks one table. Throws as `decodeFrame`. */
export function decodeTable(text: string, place: string): TableSchema {
  let table: TableSchema;
  try {
    table = JSON.parse(text) as TableSchema;
  } catch (cause) {
    throw new ReplicationError('frame_unreadable', `${place} ${notJson(cause)}`, { cause });
  }
  checkTable(table, refuser(place));
  return table;
}

type Refuse = (what: string) => never;

function refuser(place: string): Refuse {
  return (what) => {
    throw new ReplicationError('frame_unreadable', `${place}: ${what}`);
  };
}

function checkTail(frame: Pick<FramePayload, 'tx' | 'tables'>, refuse: Refuse): void {
  if (!Array.isArray(frame.tx) || !Array.isArray(frame.tables)) refuse('rows, tx or tables is missing');
  for (const table of frame.tables) checkTable(table, refuse);
  for (const entry of frame.tx) if (!Array.isArray(entry)) refuse('a transaction is not a list');
}

function checkTable(table: TableSchema, refuse: Refuse): void {
  if (typeof table?.schema !== 'string' || typeof table.name !== 'string' || typeof table.version !== 'string')
    refuse('a table has no schema, name or version');
  if (!Array.isArray(table.key) || !Array.isArray(table.columns) || table.columns.length === 0)
    refuse(`table ${table.schema}.${table.name} has no key list or no columns`);
}

function checkRows(frame: FramePayload, refuse: Refuse): void {
  let rows = 0;
  for (const entry of frame.tx) rows += entry[4];
  if (rows !== frame.rows.length) refuse(`its transactions count ${rows} rows and it holds ${frame.rows.length}`);
  for (const row of frame.rows) checkRow(row, frame.tables, refuse);
}

function checkRow(row: RowChange, tables: readonly TableSchema[], refuse: Refuse): void {
  if (!Array.isArray(row) || typeof row[1] !== 'number') refuse('a row is not a list, or names no table');
  if ((row[2] !== null && !Array.isArray(row[2])) || (row[4] !== undefined && !Array.isArray(row[4])))
    refuse('an image of a row is not a list');
  const table = tables[row[1]];
  if (table === undefined && row[0] !== 'm') refuse(`a row names table ${row[1]} of ${tables.length}`);
  const width = table?.columns.length ?? 0;
  switch (row[0]) {
    case 'i':
    case 'r':
    case 'u':
      if (row[2]?.length !== width) refuse(`a row of ${table!.name} has ${row[2]?.length ?? 0} of ${width} columns`);
      if (row[4] !== undefined && row[4].length !== width) refuse(`an old row of ${table!.name} has a wrong width`);
      break;
    case 'd':
      if (row[4]?.length !== width)
        refuse(`a deleted row of ${table!.name} has ${row[4]?.length ?? 0} of ${width} columns`);
      break;
    case 't':
    case 's':
    case 'm':
      break;
    default:
      refuse(`unknown operation ${JSON.stringify(row[0])}`);
  }
}
