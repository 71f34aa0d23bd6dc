/**
 * The rows of a frame that holds some as lines of COPY, behind its JSON (docs/frame-format.md, "Lines"). What passes from a
 * snapshot or a large insert of Postgres into a table of Postgres need not be taken apart on its way.
 */
import { mostJsonBytes, parseCopyLine, writeLineAsJson } from './copy-line.ts';
import type { Op, RowChange } from './frame.ts';

const LINE_FEED = 0x0a;
const CLOSE = 0x5d;
/** `["r",32767,` and what stands around that. */
const MOST_AROUND_ROW = 32;

/** In place of a row: so many rows of one table stand behind the JSON, in so many bytes. */
export type LinesEntry = readonly [op: Op, table: number, rows: number, bytes: number];

/** Rows `[from, to)` of a frame as lines, each with its line feed. */
export interface LineBlock {
  readonly op: Op;
  /** Index into the frame's tables. */
  readonly table: number;
  readonly from: number;
  readonly to: number;
  readonly lines: Buffer;
}

/** Throws what is wrong. */
type Refuse = (what: string) => never;

export class PackedRows {
  /** Number of rows. */
  readonly length: number;
  readonly blocks: readonly LineBlock[];
  /** The other rows, by their places. */
  readonly others: ReadonlyMap<number, RowChange>;
  readonly #refuse: Refuse;

  constructor(entries: readonly (RowChange | LinesEntry)[], lines: Buffer, refuse: Refuse) {
    const blocks: LineBlock[] = [];
    const others = new Map<number, RowChange>();
    this.#refuse = refuse;
    let row = 0;
    let at = 0;
    for (const entry of entries) {
      if (!isLines(entry)) {
        others.set(row++, entry);
        continue;
      }
      const [op, table, rows, bytes] = entry;
      const ends = at + bytes;
      if (op !== 'r' && op !== 'i') refuse(`lines have operation ${JSON.stringify(op)}`);
      if (!(rows > 0 && bytes >= rows) || ends > lines.length || lines[ends - 1] !== LINE_FEED)
        refuse(`${rows} rows in ${bytes} bytes are not the lines that it holds`);
      blocks.push({ op, table, from: row, to: row + rows, lines: lines.subarray(at, ends) });
      row += rows;
      at = ends;
    }
    if (at !== lines.length) refuse(`it holds ${lines.length} bytes of lines and names ${at}`);
    this.length = row;
    this.blocks = blocks;
    this.others = others;
  }

  /** All rows, decoded. */
  decode(): RowChange[] {
    const rows: RowChange[] = [];
    for (const [row, change] of this.others) rows[row] = change;
    for (const block of this.blocks) {
      const { op, table, lines } = block;
      let start = 0;
      for (let row = block.from; row < block.to; row++) {
        const end = this.#endOfLine(block, row, start);
        rows[row] = [op, table, parseCopyLine(lines.toString('utf8', start, end))];
        start = end + 1;
      }
    }
    return rows;
  }

  /** All rows as JSON: `head`, the rows with commas between, `]`. Owns its memory. */
  toJson(head: Buffer): Buffer {
    let most = head.length + 1;
    for (const { from, to, lines } of this.blocks) most += mostJsonBytes(lines) + (to - from) * MOST_AROUND_ROW;
    const others = new Map<number, Buffer>();
    for (const [row, change] of this.others) {
      const json = Buffer.from(`${row === 0 ? '' : ','}${JSON.stringify(change)}`);
      others.set(row, json);
      most += json.length;
    }
    const buffer = Buffer.allocUnsafeSlow(most);
    let to = head.copy(buffer);
    for (let row = 0, block = 0; row < this.length;) {
      const other = others.get(row);
      if (other === undefined) {
        const lines = this.blocks[block++]!;
        to = this.#writeBlock(lines, buffer, to);
        row = lines.to;
      } else {
        to += other.copy(buffer, to);
        row += 1;
      }
    }
    buffer[to++] = CLOSE;
    return buffer.subarray(0, to);
  }

  #writeBlock(block: LineBlock, buffer: Buffer, offset: number): number {
    const { op, table, lines } = block;
    const head = Buffer.from(`,["${op}",${table},`, 'latin1');
    let to = offset;
    let start = 0;
    for (let row = block.from; row < block.to; row++) {
      const end = this.#endOfLine(block, row, start);
      for (let i = row === 0 ? 1 : 0; i < head.length; i++) buffer[to++] = head[i]!;
      to = writeLineAsJson(lines, start, end, buffer, to);
      buffer[to++] = CLOSE;
      start = end + 1;
    }
    return to;
  }

  #endOfLine({ from, to, lines }: LineBlock, row: number, start: number): number {
    const end = lines.indexOf(LINE_FEED, start);
    if (end < 0) this.#refuse(`${to - from} rows are fewer lines`);
    if (row === to - 1 && end !== lines.length - 1) this.#refuse(`${to - from} rows are more lines`);
    return end;
  }
}

/** Number of lines, each with its line feed. */
export function countLines(lines: Buffer): number {
  let count = 0;
  for (let at = lines.indexOf(LINE_FEED); at >= 0; at = lines.indexOf(LINE_FEED, at + 1)) count += 1;
  return count;
}

function isLines(entry: RowChange | LinesEntry): entry is LinesEntry {
  return Array.isArray(entry) && typeof entry[2] === 'number';
}
