/**
 * `COPY … TO STDOUT` read where it arrives: the connection's bytes are gathered in one buffer and looked at in place, so
 * that a row costs no object (PostgreSQL documentation, "Message Formats" and "COPY Operations").
 */
import type pg from 'pg';
import { ReplicationError } from '../../core/errors.ts';

const COPY_DATA = 0x64;
const COPY_DONE = 0x63;
const READY_FOR_QUERY = 0x5a;
const HEADER_BYTES = 5;
const FIRST_BUFFER_BYTES = 128 * 1024;

/** The parts of pg's connection that this needs. */
interface WireConnection {
  readonly stream: {
    pause(): void;
    resume(): void;
    listeners(event: 'data'): unknown[];
    removeAllListeners(event: 'data'): void;
    on(event: 'data', listener: (chunk: Buffer) => void): void;
  };
  query(text: string): void;
}

/**
 * A query for `client.query`, of one or more COPYs and perhaps other statements before, between and behind them. `more` waits for bytes, then each `next` that is true has found the content of one CopyData
 * message, a row, in `data[start, end)`: valid until something is waited for. Messages of other kinds are pg's.
 */
export class CopyOut implements pg.Submittable {
  data: Buffer = Buffer.allocUnsafe(FIRST_BUFFER_BYTES);
  start = 0;
  end = 0;
  /** How many COPYs had ended before the row that was found last. */
  copiesBefore = 0;
  /** The last row that another statement gave, as texts. */
  row: readonly (string | null)[] | undefined;
  readonly #text: string;
  #connection: WireConnection | undefined;
  #pgListeners: ((chunk: Buffer) => void)[] = [];
  /** What has come and was not looked at: `data[#at, #length)`. */
  #at = 0;
  #length = 0;
  #came = false;
  #paused = false;
  #done = false;
  #error: unknown;
  #wake: (() => void) | undefined;

  constructor(text: string) {
    this.#text = text;
  }

  /** For pg: the query's turn has come. */
  submit(connection: pg.Connection): void {
    const wire = connection as unknown as WireConnection;
    this.#connection = wire;
    wire.query(this.#text);
    this.#pgListeners = wire.stream.listeners('data') as ((chunk: Buffer) => void)[];
    wire.stream.removeAllListeners('data');
    wire.stream.on('data', (chunk) => this.#take(chunk));
  }

  /** Waits for more bytes; false when the query has ended. Throws what the server or the connection answered. */
  async more(): Promise<boolean> {
    if (!this.#came && !this.#done) {
      const came = new Promise<void>((resolve) => (this.#wake = resolve));
      if (this.#paused) this.#connection?.stream.resume();
      this.#paused = false;
      await came;
    }
    this.#came = false;
    if (this.#error !== undefined) throw this.#error;
    return !this.#done;
  }

  /** Finds the next row in what has come. */
  next(): boolean {
    const { data } = this;
    while (this.#length - this.#at >= HEADER_BYTES) {
      const at = this.#at;
      const length = data.readUInt32BE(at + 1);
      if (length < 4) throw new ReplicationError('source_protocol', `a message of ${length} bytes came in COPY data`);
      const end = at + 1 + length;
      if (end > this.#length) break;
      this.#at = end;
      if (data[at] === COPY_DATA) {
        this.start = at + HEADER_BYTES;
        this.end = end;
        return true;
      }
      if (data[at] === READY_FOR_QUERY) this.#giveBack();
      if (data[at] === COPY_DONE) this.copiesBefore += 1;
      // A copy: pg may keep it, and these bytes move.
      const message = Buffer.from(data.subarray(at, end));
      this.#forward(message);
    }
    // After an error the connection is pg's, and so is the message that has come in part.
    if (this.#connection === undefined && this.#at < this.#length) {
      this.#forward(Buffer.from(data.subarray(this.#at, this.#length)));
      this.#at = this.#length;
    }
    return false;
  }

  #forward(bytes: Buffer): void {
    for (const listener of this.#pgListeners) listener(bytes);
  }

  /** For pg: the server refused, or the connection broke. */
  handleError(error: unknown): void {
    this.#error ??= error;
    this.#finish();
  }

  handleRowDescription(): void {}

  handleDataRow({ fields }: { readonly fields: readonly (string | null)[] }): void {
    this.row = fields;
  }

  handleCommandComplete(): void {}

  handleReadyForQuery(): void {
    this.#finish();
  }

  #finish(): void {
    this.#done = true;
    this.#giveBack();
    this.#wakeUp();
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  /** The connection is pg's again. */
  #giveBack(): void {
    const stream = this.#connection?.stream;
    this.#connection = undefined;
    if (stream === undefined) return;
    stream.removeAllListeners('data');
    for (const listener of this.#pgListeners) stream.on('data', listener);
    stream.resume();
  }

  #take(chunk: Buffer): void {
    // Who waits for bytes is done with them before the next ones come, and then nobody need stop those.
    if (this.#wake === undefined && !this.#paused) {
      this.#paused = true;
      this.#connection?.stream.pause();
    }
    const left = this.#length - this.#at;
    if (left + chunk.length > this.data.length) {
      const grown = Buffer.allocUnsafe(Math.max(left + chunk.length, this.data.length * 2));
      this.data.copy(grown, 0, this.#at, this.#length);
      this.data = grown;
    } else this.data.copyWithin(0, this.#at, this.#length);
    this.#at = 0;
    this.#length = left + chunk.copy(this.data, left);
    this.#came = true;
    this.#wakeUp();
  }
}
