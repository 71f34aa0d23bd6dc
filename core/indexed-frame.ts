/**
 * A frame as apply reads it: tables are decoded, rows and transactions are only indexed. Most rows of a busy stream are
 * replaced by later ones of the same batch, or pass from the frame into the target byte for byte, so that decoding each
 * into strings would be most of the work.
 */
import { giveUp } from './buffer-memory.ts';
import { ReplicationError } from './errors.ts';
import {
  decodeFrame,
  decodePacked,
  decodeTable,
  decodeTail,
  FRAME_VERSION,
  hasLines,
  notJson,
  type FramePayload,
  type Op,
  type Part,
  type RowChange,
  type TableSchema,
} from './frame.ts';
import type { LineBlock, PackedRows } from './packed-rows.ts';
import { plainRows } from './plain-rows.ts';
import { readTables } from './table-texts.ts';
import { TransactionIndex } from './transaction-index.ts';

const LINE_FEED = 0x0a;
const QUOTE = 0x22;
const COMMA = 0x2c;
const MINUS = 0x2d;
const ZERO = 0x30;
const NINE = 0x39;
const OPEN = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE = 0x5d;
const LOWER_N = 0x6e;
const LOWER_S = 0x73;
const LOWER_U = 0x75;
const HEAD = Buffer.from(`{"v":${FRAME_VERSION},"rows":[`, 'latin1');
const TAIL = Buffer.from('],"tx":[', 'latin1');
const OPS: Readonly<Record<number, Op>> = Object.fromEntries(
  (['i', 'u', 'd', 'r', 't', 's', 'm'] as const).map((op) => [op.charCodeAt(0), op]),
);

/** Set for a row with a before-image. */
const HAS_BEFORE = 1;
/** Set for a row whose after-image leaves a column unchanged. */
const HAS_UNCHANGED = 2;
/** FNV-1a. */
const HASH_BASIS = 0x811c_9dc5;
const HASH_PRIME = 0x0100_0193;

export class IndexedFrame implements Pick<FramePayload, 'tx' | 'tables'> {
  readonly tables: readonly TableSchema[];
  /** Number of rows. */
  readonly length: number;
  /** Number of transactions. */
  readonly transactions: number;
  readonly #tx: TransactionIndex;
  #decodedTx: FramePayload['tx'] | undefined;
  readonly #tailStart: number;
  readonly #place: string;
  readonly #payload: Buffer;
  /** Rows as JSON, one behind the other. */
  #bytes: Buffer;
  /** Rows that came as lines, until one of them is asked for. */
  #packed: PackedRows | undefined;
  /** Blocks of lines by their first rows. */
  readonly #blocks: ReadonlyMap<number, LineBlock>;
  readonly #memory: Uint8Array;
  readonly #starts: Uint32Array;
  readonly #ops: Uint8Array;
  readonly #tableIndexes: Int16Array;
  readonly #flags: Uint8Array;
  /** The rows that are marks, ascending. */
  readonly marks: readonly number[];

  private constructor(payload: Buffer, place: string, rowsEnd: number) {
    this.#payload = payload;
    this.#bytes = payload;
    this.#place = place;
    this.#tailStart = rowsEnd + 2;
    const index = rowsEnd < 0 ? undefined : TransactionIndex.read(payload, rowsEnd + TAIL.length);
    let blocks: readonly LineBlock[] = [];
    if (rowsEnd < 0) {
      const { packed, tx, tables } = decodePacked(payload, place);
      this.#packed = packed;
      blocks = packed.blocks;
      this.tables = tables;
      this.#decodedTx = tx;
      this.#tx = TransactionIndex.of(tx);
    } else if (index === undefined) {
      // Laid out in another way, or damaged.
      const { tx, tables } = this.#decodeTail();
      this.tables = tables;
      this.#tx = TransactionIndex.of(tx);
    } else {
      this.#tx = index;
      this.tables =
        readTables(payload, index.end + 2, (text) => decodeTable(text, place)) ??
        decodeTail(`{"tx":[],${payload.toString('utf8', index.end + 2)}`, place).tables;
    }
    this.#blocks = new Map(blocks.map((block) => [block.from, block]));
    this.transactions = this.#tx.length;
    const rows = this.#tx.totalRows;
    this.length = rows;
    // One piece of memory for all: frames come and go by the dozen.
    const memory = new ArrayBuffer((rows + 1) * 4 + rows * 4);
    this.#memory = new Uint8Array(memory);
    this.#starts = new Uint32Array(memory, 0, rows + 1);
    this.#tableIndexes = new Int16Array(memory, (rows + 1) * 4, rows);
    this.#ops = new Uint8Array(memory, (rows + 1) * 4 + rows * 2, rows);
    this.#flags = new Uint8Array(memory, (rows + 1) * 4 + rows * 3, rows);
    if (this.#packed === undefined) this.#index(rowsEnd);
    else this.#indexPacked(this.#packed);
    this.marks = this.#findMarks();
  }

  #findMarks(): number[] {
    const marks: number[] = [];
    for (let row = this.#ops.indexOf(LOWER_S); row >= 0; row = this.#ops.indexOf(LOWER_S, row + 1)) marks.push(row);
    return marks;
  }

  /** What can be said of rows without a look into the lines. */
  #indexPacked({ length, blocks, others }: PackedRows): void {
    if (length !== this.length) this.#refuse(`its transactions count ${this.length} rows and it holds ${length}`);
    for (const { op, table, from, to } of blocks) {
      this.#ops.fill(op.charCodeAt(0), from, to);
      this.#tableIndexes.fill(table, from, to);
    }
    for (const [row, change] of others) {
      this.#ops[row] = change[0].charCodeAt(0);
      this.#tableIndexes[row] = change[1];
      this.#flags[row] =
        (change[4] === undefined ? 0 : HAS_BEFORE) | (change[2]?.includes(0) === true ? HAS_UNCHANGED : 0);
    }
  }

  /** The bytes in which rows lie. Those that came as lines are written out for it. */
  get bytes(): Buffer {
    if (this.#packed !== undefined) this.#unpack(this.#packed);
    return this.#bytes;
  }

  #unpack(packed: PackedRows): void {
    this.#bytes = packed.toJson(HEAD);
    this.#packed = undefined;
    this.#index(this.#bytes.length - 1);
  }

  /** The rows that begin with `row`, where they came as lines of COPY. Valid as long as the frame. */
  linesAt(row: number): LineBlock | undefined {
    return this.#blocks.size === 0 ? undefined : this.#blocks.get(row);
  }

  #decodeTail(): Pick<FramePayload, 'tx' | 'tables'> {
    return decodeTail(`{${this.#payload.toString('utf8', this.#tailStart)}`, this.#place);
  }

  /** Whether a row may have more bytes than that, as a line or as JSON. */
  hasRowBeyond(most: number): boolean {
    if (this.#payload.length <= most) return false;
    if (this.#packed === undefined)
      return this.#starts.some((start, row) => row > 0 && start - this.#starts[row - 1]! > most);
    const { blocks, others } = this.#packed;
    for (const { lines } of blocks)
      for (let at = 0, end = 0; at < lines.length; at = end + 1) {
        end = lines.indexOf(LINE_FEED, at);
        if (end - at > most) return true;
      }
    return [...others.values()].some((change) => Buffer.byteLength(JSON.stringify(change)) > most);
  }

  /** The transactions, decoded. Not for hot paths. */
  get tx(): FramePayload['tx'] {
    return (this.#decodedTx ??= this.#decodeTail().tx);
  }

  /** Rows of transaction `index` in this frame. */
  rowsOf(index: number): number {
    return this.#tx.rowsOf(index);
  }

  /** Where transaction `index` stands; undefined where there is no such one. */
  partOf(index: number): Part | undefined {
    return this.#tx.partOf(index);
  }

  /** When the transaction of a row was committed, microseconds since 1970. */
  commitTimeOf(row: number): number {
    return this.#tx.timeOfRow(row);
  }

  /** Newest commit time of the transactions `[from, to)`, microseconds since 1970; 0 where there is none. */
  newestTime(from: number, to: number): number {
    return this.#tx.newestTime(from, to);
  }

  /**
   * Indexes and checks a frame's payload. Throws `frame_unreadable` or `frame_version`, naming `place`. A payload that
   * another writer laid out in another way is decoded and laid out as ours first.
   */
  static open(payload: Uint8Array, place: string): IndexedFrame {
    const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
    if (hasLines(bytes)) return new IndexedFrame(bytes, place, -1);
    const rowsEnd = bytes.lastIndexOf(TAIL);
    if (rowsEnd >= HEAD.length - 1 && bytes.compare(HEAD, 0, HEAD.length, 0, HEAD.length) === 0)
      return new IndexedFrame(bytes, place, rowsEnd);
    const { v, rows, tx, tables } = decodeFrame(payload, place);
    const again = Buffer.from(JSON.stringify({ v, rows, tx, tables }));
    return new IndexedFrame(again, place, again.lastIndexOf(TAIL));
  }

  /** Gives up the frame's memory. Nothing of it may be read any more. */
  giveUp(): void {
    giveUp(this.#payload);
    if (this.#bytes !== this.#payload) giveUp(new Uint8Array(this.#bytes.buffer));
    giveUp(this.#memory);
  }

  op(row: number): Op {
    return OPS[this.#ops[row]!]!;
  }

  /** Index into `tables`; -1 for a logical message. */
  tableIndex(row: number): number {
    return this.#tableIndexes[row]!;
  }

  hasBefore(row: number): boolean {
    return (this.#flags[row]! & HAS_BEFORE) !== 0;
  }

  hasUnchanged(row: number): boolean {
    return (this.#flags[row]! & HAS_UNCHANGED) !== 0;
  }

  /** The row, decoded. Not for hot paths. */
  row(row: number): RowChange {
    const other = this.#packed?.others.get(row);
    if (other !== undefined) return other;
    try {
      return JSON.parse(this.bytes.toString('utf8', this.#starts[row], this.#starts[row + 1]! - 1)) as RowChange;
    } catch (cause) {
      throw new ReplicationError('frame_unreadable', `${this.#place}: row ${row} ${notJson(cause)}`, { cause });
    }
  }

  /** The rows `[from, to)`, decoded together: half the price of one by one. */
  rows(from: number, to: number): RowChange[] {
    if (from >= to) return [];
    // Rows that came as lines have their places once they are written out.
    const { bytes } = this;
    const start = this.#starts[from]!;
    const end = this.#starts[to]! - 1;
    try {
      const plain = this.#areUpdates(from, to) ? plainRows(bytes, start, end, this.tables) : undefined;
      if (plain !== undefined) return plain;
      return JSON.parse(`[${bytes.toString('utf8', start, end)}]`) as RowChange[];
    } catch (cause) {
      throw new ReplicationError('frame_unreadable', `${this.#place}: a row of ${from} to ${to} ${notJson(cause)}`, {
        cause,
      });
    }
  }

  #areUpdates(from: number, to: number): boolean {
    for (let row = from; row < to; row++) if (this.#ops[row] !== LOWER_U) return false;
    return true;
  }

  /** Offsets of the content of the value that was found last, without its quotes. */
  valueStart = 0;
  valueEnd = 0;

  /** Finds a column of a row's after-image. False where it is null or unchanged. */
  findValue(row: number, column: number): boolean {
    const { bytes } = this;
    let at = this.imageStart(row) + 1;
    for (let i = 0; i < column; i++) at = endOfValue(bytes, at) + 1;
    if (bytes[at] !== QUOTE) return false;
    this.valueStart = at + 1;
    this.valueEnd = endOfString(bytes, at + 1);
    return true;
  }

  /**
   * A hash of the texts of the columns `[from, to)` of a row's after-image, as they stand there; their bytes are from
   * `valueStart` to `valueEnd` then, parted by `","`. -1 where one of them is not a text, or holds a backslash.
   */
  hashTexts(row: number, from: number, to: number): number {
    const { bytes } = this;
    let at = this.imageStart(row) + 1;
    for (let column = 0; column < from; column++) at = endOfValue(bytes, at) + 1;
    this.valueStart = at + 1;
    let hash = HASH_BASIS;
    for (let column = from; column < to; column++) {
      if (bytes[at] !== QUOTE) return -1;
      for (at += 1; bytes[at] !== QUOTE; at++) {
        const byte = bytes[at]!;
        if (byte === BACKSLASH) return -1;
        hash = Math.imul(hash ^ byte, HASH_PRIME);
      }
      hash = Math.imul(hash ^ QUOTE, HASH_PRIME);
      at += 2;
    }
    this.valueEnd = at - 2;
    return (hash ^ (hash >>> 15)) >>> 0;
  }

  /** The value found last as an integer; it must be the text of one that a number holds exactly. */
  valueAsInteger(): number {
    const { bytes, valueEnd } = this;
    let at = this.valueStart;
    const negative = bytes[at] === MINUS;
    if (negative) at += 1;
    let value = 0;
    for (; at < valueEnd; at++) value = value * 10 + bytes[at]! - ZERO;
    return negative ? -value : value;
  }

  /** The value found last as text. */
  valueAsText(): string {
    const text = this.bytes.toString('utf8', this.valueStart, this.valueEnd);
    return text.includes('\\') ? (JSON.parse(`"${text}"`) as string) : text;
  }

  /** Bytes that a row takes. */
  rowBytes(row: number): number {
    if (this.#packed !== undefined) this.#unpack(this.#packed);
    return this.#starts[row + 1]! - this.#starts[row]!;
  }

  /** Offset behind the value of an image that begins at `at`. */
  endOfValue(at: number): number {
    return endOfValue(this.bytes, at);
  }

  /** Offset of the `[` of a row's after-image. */
  imageStart(row: number): number {
    const { bytes } = this;
    let at = this.#starts[row]! + 5;
    while (bytes[at] !== COMMA) at += 1;
    return at + 1;
  }

  #refuse(what: string): never {
    throw new ReplicationError('frame_unreadable', `${this.#place}: ${what}`);
  }

  /** One pass over the rows: where each starts, and that each is whole and as wide as its table. */
  #index(rowsEnd: number): void {
    const { bytes, tables, length } = this;
    let at = HEAD.length;
    for (let row = 0; row < length; row++) {
      this.#starts[row] = at;
      if (bytes[at] !== OPEN || bytes[at + 1] !== QUOTE || bytes[at + 3] !== QUOTE || bytes[at + 4] !== COMMA)
        this.#refuse(
          at >= rowsEnd ? `its transactions count ${length} rows and it holds ${row}` : `row ${row} is damaged`,
        );
      const op = bytes[at + 2]!;
      if (OPS[op] === undefined) this.#refuse(`unknown operation ${JSON.stringify(String.fromCharCode(op))}`);
      this.#ops[row] = op;
      at += 5;
      const negative = bytes[at] === MINUS;
      if (negative) at += 1;
      let index = 0;
      for (let byte = bytes[at]!; byte >= ZERO && byte <= NINE; byte = bytes[++at]!) index = index * 10 + byte - ZERO;
      if (bytes[at] !== COMMA) this.#refuse(`row ${row} names no table`);
      this.#tableIndexes[row] = negative ? -index : index;
      at = this.#indexImages(row, at + 1, negative ? undefined : tables[index]);
      this.#starts[row + 1] = at + 1;
      const last = row === length - 1;
      if (last ? at !== rowsEnd : bytes[at] !== COMMA)
        this.#refuse(last ? `its transactions count ${length} rows and it holds more` : `row ${row} is damaged`);
      at += 1;
    }
    if (length === 0 && rowsEnd !== HEAD.length) this.#refuse('its transactions count 0 rows and it holds more');
  }

  /** The images of a row from the first on; gives the offset behind the row's `]`. */
  #indexImages(row: number, from: number, table: TableSchema | undefined): number {
    const { bytes } = this;
    const op = OPS[this.#ops[row]!]!;
    if (table === undefined && op !== 'm')
      this.#refuse(`row ${row} names table ${this.#tableIndexes[row]} of ${this.tables.length}`);
    const width = table?.columns.length ?? 0;
    const wide = op === 'i' || op === 'r' || op === 'u' || op === 'd';
    let at = from;
    let flags = 0;
    if (bytes[at] === LOWER_N) {
      if (wide && op !== 'd') this.#refuse(`a row of ${table!.name} has 0 of ${width} columns`);
      at += 4;
    } else {
      at = this.#skipImage(row, at, wide ? width : -1, table);
      if (this.#unchanged) flags |= HAS_UNCHANGED;
    }
    if (bytes[at] === COMMA) {
      flags |= HAS_BEFORE;
      if (bytes[at + 1] !== QUOTE || bytes[at + 3] !== QUOTE || bytes[at + 4] !== COMMA)
        this.#refuse(`row ${row} is damaged`);
      at = this.#skipImage(row, at + 5, width, table);
    } else if (op === 'd') this.#refuse(`a deleted row of ${table!.name} has 0 of ${width} columns`);
    if (bytes[at] !== CLOSE) this.#refuse(`row ${row} is damaged`);
    this.#flags[row] = flags;
    return at + 1;
  }

  #unchanged = false;

  /** Passes over `[…]` and checks its width (-1: any); gives the offset behind it and notes unchanged columns. */
  #skipImage(row: number, from: number, width: number, table: TableSchema | undefined): number {
    const { bytes } = this;
    this.#unchanged = false;
    if (bytes[from] !== OPEN) this.#refuse('an image of a row is not a list');
    let at = from + 1;
    let count = 0;
    if (bytes[at] === CLOSE) at += 1;
    else
      for (;;) {
        const byte = bytes[at];
        if (byte === ZERO) this.#unchanged = true;
        else if (byte !== QUOTE && byte !== LOWER_N) this.#refuse(`row ${row} is damaged`);
        at = endOfValue(bytes, at);
        count += 1;
        const next = bytes[at++];
        if (next === CLOSE) break;
        if (next !== COMMA) this.#refuse(`row ${row} is damaged`);
      }
    if (width >= 0 && count !== width) this.#refuse(`a row of ${table!.name} has ${count} of ${width} columns`);
    return at;
  }
}

/** Offset behind a value of an image that has been checked. */
function endOfValue(bytes: Buffer, at: number): number {
  const byte = bytes[at];
  if (byte === QUOTE) return endOfString(bytes, at + 1) + 1;
  return byte === LOWER_N ? at + 4 : at + 1;
}

/** Offset of the quote that ends a JSON string whose content begins at `from`; the end of the buffer where none does. */
function endOfString(bytes: Buffer, from: number): number {
  const { length } = bytes;
  let at = from;
  while (at < length) {
    const byte = bytes[at]!;
    if (byte === QUOTE) return at;
    at += byte === BACKSLASH ? 2 : 1;
  }
  return length;
}
