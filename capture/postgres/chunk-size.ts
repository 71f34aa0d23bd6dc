/** How large chunks are: by what their rows take, how long they take to be read, and what may lie ahead of the flows. */
import type { RowLimit } from '../row-limit.ts';
import type { StreamLead } from '../stream-lead.ts';

/** Of a table of which nobody knows how large its rows are. */
const FIRST_CHUNK_ROWS = 1000;
/** The first of a table, before anybody knows how fast the flows are. */
const FIRST_CHUNK_BYTES = 256 << 10;
/** What the chunks of all connections take together. */
const CHUNK_BYTES = 8 << 20;
/** A chunk has its price, in the source and in the target: rather fewer at once than smaller ones. */
const LEAST_CHUNK_BYTES = 1 << 20;
/** A chunk is to take no longer to read: its window gathers what changes meanwhile. */
const CHUNK_MS = 500;
/** So many rows need not take less time, as long as they are not large for what a chunk may take. */
const LEAST_ROWS = 100;

interface ChunkSizeOptions {
  readonly lead: StreamLead;
  readonly maxChunkRows: number;
  readonly limit: RowLimit;
}

export class ChunkSize {
  readonly #o: ChunkSizeOptions;
  /** Connections that read at once. */
  readers = 1;

  constructor(options: ChunkSizeOptions) {
    this.#o = options;
  }

  /** What a chunk may take now. */
  get bytes(): number {
    const { mostBytes } = this.#o.lead;
    // Half of what may lie ahead of a flow is written while the other half is read.
    const half = mostBytes / 2;
    return Math.max(Math.min(CHUNK_BYTES, half) / this.readers, Math.min(LEAST_CHUNK_BYTES, half));
  }

  /** No chunk has more, but for a row that is larger: sizes of rows differ, and what is known of them is an average. */
  get mostBytes(): number {
    return 2 * this.bytes;
  }

  /** What small tables that are read together may take. */
  get bytesTogether(): number {
    return Math.min(this.bytes, LEAST_CHUNK_BYTES);
  }

  /** Rows of the first chunk of a table. */
  first(rowBytes: number | undefined): number {
    const bytes = this.#o.lead.mostBytes === Infinity ? FIRST_CHUNK_BYTES : this.bytes;
    return rowBytes === undefined ? this.#rows(FIRST_CHUNK_ROWS, 1) : this.#rows(bytes / rowBytes, rowBytes);
  }

  /** Rows of the next one, by the bytes and the time of one of so many rows. */
  next(rowBytes: number, rows: number, tookMs: number): number {
    const own = Math.max(1, rowBytes);
    return this.#rows(Math.min(this.bytes / own, (rows * CHUNK_MS) / Math.max(1, tookMs)), own);
  }

  #rows(wanted: number, rowBytes: number): number {
    const most = Math.min(this.#o.maxChunkRows, this.#o.limit.mostAtOnce);
    const bytes = Math.min(LEAST_CHUNK_BYTES, this.bytes);
    const least = Math.max(1, Math.min(LEAST_ROWS, most, Math.floor(bytes / rowBytes)));
    return Math.max(least, Math.min(most, Math.floor(wanted)));
  }
}
