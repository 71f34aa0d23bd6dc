/**
 * The rows of a frame that holds some as lines of COPY, behind its JSON (docs/frame-format.md, "Lines"). What passes from a
 * snapshot of Postgres into a table of Postgres need not be taken apart on its way.
 */
import { mostJsonBytes, parseCopyLine, writeLineAsJson } from './copy-line.ts';
import type { Op, RowChange } from './frame.ts';

const LINE_FEED = 0x0a;
const COMMA = 0x2c;
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
    this.#each(
      (change) => rows.push(change),
      ({ op, table, lines }, start, end) => rows.push([op, table, parseCopyLine(lines.toString('utf8', start, end))]),
    );
    return rows;
  }

  /** All rows as JSON: `head`, the rows with commas between, `]`. Owns its memory. */
  toJson(head: Buffer): Buffer {
    let most = head.length + 1;
    for (const { from, to, lines } of this.blocks) most += mostJsonBytes(lines.length) + (to - from) * MOST_AROUND_ROW;
    const others = new Map<RowChange, Buffer>();
    for (const change of this.others.values()) {
      const json = Buffer.from(JSON.stringify(change));
      others.set(change, json);
      most += json.length + 1;
    }
    const buffer = Buffer.allocUnsafeSlow(most);
    let to = head.copy(buffer);
    const comma = (): void => {
      if (to > head.length) buffer[to++] = COMMA;
    };
    this.#each(
      (change) => {
        comma();
        to += others.get(change)!.copy(buffer, to);
      },
      ({ op, table, lines }, start, end) => {
        comma();
        to += buffer.write(`["${op}",${table},`, to, 'latin1');
        to = writeLineAsJson(lines, start, end, buffer, to);
        buffer[to++] = CLOSE;
      },
    );
    buffer[to++] = CLOSE;
    return buffer.subarray(0, to);
  }

  /** Calls back for every row, in order. */
  #each(other: (change: RowChange) => void, line: (block: LineBlock, start: number, end: number) => void): void {
    let row = 0;
    for (const block of this.blocks) {
      for (; row < block.from; row++) other(this.others.get(row)!);
      const { lines, to } = block;
      let start = 0;
      for (; row < to; row++) {
        const end = lines.indexOf(LINE_FEED, start);
        if (end < 0) this.#refuse(`${to - block.from} rows are fewer lines`);
        line(block, start, end);
        start = end + 1;
      }
      if (start !== lines.length) this.#refuse(`${to - block.from} rows are more lines`);
    }
    for (; row < this.length; row++) other(this.others.get(row)!);
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
