/**
 * Catching up: what the slot has kept is read in slices by SQL instead of through a walsender, which sends a packet for
 * every row. The slices come from a temporary copy of the slot, so that they may be consumed at once: the slot itself
 * stays where the stream is safe (Invariant 1), and the copy goes away with its connection.
 */
import type pg from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { ReplicationError } from '../../core/errors.ts';
import { formatLsn, type PgPosition } from '../../core/position.ts';
import { untilAborted } from '../../core/run-service.ts';
import { PgOutputDecoder, type PgOutputHandler } from './pgoutput.ts';
import type { LogReader } from './replication-stream.ts';
import { sourceError } from './source-error.ts';

/** Changes of a slice: enough that starting one does not count, few enough that the source can hold them in memory. */
const FIRST_SLICE_CHANGES = 100_000;
const MOST_SLICE_CHANGES = 400_000;
const SLICE_MS = 1000;
const COPY_MAGIC = Buffer.from('PGCOPY\n\xFF\r\n\0', 'latin1');
const COPY_HEADER_BYTES = COPY_MAGIC.length + 8;

export interface CatchUpOptions {
  /** A connection of its own: the copy of the slot lives as long as it does. */
  readonly client: pg.Client;
  readonly slot: string;
  readonly publication: string;
  readonly from: PgPosition;
  readonly handler: PgOutputHandler;
  /** Called after every piece of a slice. */
  readonly onActivity: () => void;
}

export class CatchUpReader implements LogReader {
  readonly #options: CatchUpOptions;
  readonly #decoder: PgOutputDecoder;
  readonly #copyName: string;
  #held: Promise<void> | undefined;
  #resumed: Promise<void> | undefined;
  #resume: (() => void) | undefined;
  #changes = FIRST_SLICE_CHANGES;

  constructor(options: CatchUpOptions) {
    this.#options = options;
    this.#decoder = new PgOutputDecoder(options.handler);
    this.#copyName = `${options.slot.slice(0, 40)}_catch_up_${process.pid}`;
  }

  /**
   * Copies the slot. False when the source has no slot to spare: then the log must be streamed. Throws `source_*`.
   */
  async open(): Promise<boolean> {
    const { client, slot, from } = this.#options;
    try {
      await client.query('select pg_copy_logical_replication_slot($1, $2, true)', [slot, this.#copyName]);
    } catch (thrown) {
      const error = sourceError(thrown, `copying replication slot ${slot}`);
      if (error.code === 'source_no_free_slot') return false;
      throw error;
    }
    try {
      // What the stream holds is passed over without being decoded.
      await client.query(
        `select pg_replication_slot_advance(slot_name, $2) from pg_replication_slots
          where slot_name = $1 and confirmed_flush_lsn < $2`,
        [this.#copyName, formatLsn(from.lsn)],
      );
      return true;
    } catch (thrown) {
      throw sourceError(thrown, `advancing a copy of replication slot ${slot}`);
    }
  }

  /** Reads one slice to its end. False when it reached the end of the log. */
  async readSlice(signal: AbortSignal): Promise<boolean> {
    const { client, publication } = this.#options;
    const quoted = `"${publication.replaceAll('"', '""')}"`.replaceAll("'", "''");
    const startedMs = performance.now();
    let messages = 0;
    try {
      const rows = client.query(
        copyTo(
          `copy (select data from pg_logical_slot_get_binary_changes('${this.#copyName}', null, ${this.#changes},` +
            ` 'proto_version', '1', 'publication_names', '${quoted}', 'messages', 'true')) to stdout (format binary)`,
        ),
      );
      const splitter = new CopyFieldSplitter();
      for await (const chunk of rows) {
        splitter.push(chunk as Buffer);
        while (splitter.next()) {
          messages += 1;
          this.#decoder.decode(splitter.data, splitter.start, splitter.end);
          if (this.#held !== undefined) await this.#held;
        }
        this.#options.onActivity();
        // Where publishing failed nobody resumes any more.
        if (this.#resumed !== undefined) await untilAborted(this.#resumed, signal);
        // What has been read stays consumed by the copy alone; the slot still has it.
        if (signal.aborted) return false;
      }
    } catch (thrown) {
      if (signal.aborted) return false;
      throw sourceError(thrown, 'reading a slice of the log');
    }
    const more = messages >= this.#changes;
    const tookMs = performance.now() - startedMs;
    if (tookMs < SLICE_MS / 2) this.#changes = Math.min(MOST_SLICE_CHANGES, this.#changes * 2);
    else if (tookMs > SLICE_MS * 2) this.#changes = Math.max(FIRST_SLICE_CHANGES, Math.floor(this.#changes / 2));
    return more;
  }

  holdUntil(work: Promise<void>): void {
    const held = (this.#held === undefined ? work : Promise.all([this.#held, work])).then(() => {
      if (this.#held === held) this.#held = undefined;
    });
    this.#held = held;
    // The failure is thrown where the slice awaits it.
    held.catch(() => {});
  }

  pause(): void {
    this.#resumed ??= new Promise((resolve) => (this.#resume = resolve));
  }

  resume(): void {
    this.#resume?.();
    this.#resume = undefined;
    this.#resumed = undefined;
  }
}

/**
 * Splits COPY data in binary format (PostgreSQL documentation, COPY, "Binary Format") of one column that is never null
 * into its values; a value may span chunks. After `push`, each `next` that is true finds one in `data[start, end)`.
 */
export class CopyFieldSplitter {
  data: Buffer = Buffer.alloc(0);
  start = 0;
  end = 0;
  #at = 0;
  #headerSeen = false;
  #ended = false;

  push(chunk: Buffer): void {
    this.data = this.#at < this.data.length ? Buffer.concat([this.data.subarray(this.#at), chunk]) : chunk;
    this.#at = 0;
  }

  next(): boolean {
    const { data } = this;
    if (!this.#headerSeen && !this.#header()) return false;
    const at = this.#at;
    const left = data.length - at;
    if (left < 2) return false;
    const fields = data.readInt16BE(at);
    if (fields === -1 && !this.#ended) {
      this.#ended = true;
      this.#at = at + 2;
      return false;
    }
    if (fields !== 1 || this.#ended)
      throw new ReplicationError('source_protocol', `a row of COPY data has ${fields} fields, not 1`);
    if (left < 6) return false;
    const length = data.readInt32BE(at + 2);
    if (length < 0) throw new ReplicationError('source_protocol', 'a row of COPY data is null');
    if (left < 6 + length) return false;
    this.start = at + 6;
    this.end = this.start + length;
    this.#at = this.end;
    return true;
  }

  #header(): boolean {
    const { data } = this;
    if (data.length < COPY_HEADER_BYTES) return false;
    if (!data.subarray(0, COPY_MAGIC.length).equals(COPY_MAGIC))
      throw new ReplicationError('source_protocol', 'COPY data does not begin with the signature of binary format');
    this.#at = COPY_HEADER_BYTES + data.readUInt32BE(COPY_MAGIC.length + 4);
    this.#headerSeen = true;
    return true;
  }
}
