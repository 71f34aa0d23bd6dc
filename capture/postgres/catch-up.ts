/**
 * Catching up: what the slot has kept is read in slices by SQL instead of through a walsender, which sends a packet for
 * every row. The slices come from a temporary copy of the slot, so that they may be consumed at once: the slot itself
 * stays where the stream is safe (Invariant 1), and the copy goes away with its connection.
 */
import type pg from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import { formatLsn, type PgPosition } from '../../core/position.ts';
import { CopyOut } from './copy-out.ts';
import { PgOutputDecoder, type PgOutputHandler } from './pgoutput.ts';
import { ReadGate } from './read-gate.ts';
import type { LogReader } from './replication-stream.ts';
import { NO_SLOT, sourceError } from './source-error.ts';

/** Messages of the first slice: while the source decodes it, all that comes behind has nothing to do. */
const FIRST_SLICE_CHANGES = 25_000;
/** Of the others: enough that starting one does not count, few enough that the source can hold them in memory. */
const LEAST_SLICE_CHANGES = 100_000;
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
  readonly #gate = new ReadGate();
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
      const codes = { ...NO_SLOT, '53400': 'source_no_free_slot' } as const;
      const error = sourceError(thrown, `copying replication slot ${slot}`, codes);
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
      throw sourceError(thrown, `advancing a copy of replication slot ${slot}`, NO_SLOT);
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
        new CopyOut(
          `copy (select data from pg_logical_slot_get_binary_changes('${this.#copyName}', null, ${this.#changes},` +
            ` 'proto_version', '1', 'publication_names', '${quoted}', 'messages', 'true')) to stdout (format binary)`,
        ),
      );
      const field = new CopyField();
      while (await rows.more()) {
        while (rows.next()) {
          if (!field.find(rows.data, rows.start, rows.end)) continue;
          messages += 1;
          this.#decoder.decode(rows.data, field.start, rows.end);
          if (this.#gate.held !== undefined) await this.#gate.held;
        }
        this.#options.onActivity();
        await this.#gate.passed(signal);
        // What has been read stays consumed by the copy alone; the slot still has it.
        if (signal.aborted) return false;
      }
    } catch (thrown) {
      if (signal.aborted) return false;
      throw sourceError(thrown, 'reading a slice of the log', NO_SLOT);
    }
    const more = messages >= this.#changes;
    const tookMs = performance.now() - startedMs;
    if (tookMs < SLICE_MS / 2) this.#changes = Math.min(MOST_SLICE_CHANGES, this.#changes * 4);
    else if (tookMs > SLICE_MS * 2) this.#changes = Math.max(LEAST_SLICE_CHANGES, Math.floor(this.#changes / 2));
    return more;
  }

  holdUntil(work: Promise<void>): void {
    this.#gate.holdUntil(work);
  }

  pause(): void {
    this.#gate.pause();
  }

  resume(): void {
    this.#gate.resume();
  }
}

/**
 * Finds the value in a row of COPY data in binary format (PostgreSQL documentation, COPY, "Binary Format") of one column
 * that is never null. The format's header comes with the first row, its trailer as a row of its own.
 */
export class CopyField {
  start = 0;
  #headerSeen = false;

  /** Whether the row in `data[from, end)` has a value; then it begins at `start` and goes up to `end`. */
  find(data: Buffer, from: number, end: number): boolean {
    let at = from;
    if (!this.#headerSeen) {
      if (
        end - at < COPY_HEADER_BYTES ||
        data.compare(COPY_MAGIC, 0, COPY_MAGIC.length, at, at + COPY_MAGIC.length) !== 0
      )
        throw new ReplicationError('source_protocol', 'COPY data does not begin with the signature of binary format');
      at += COPY_HEADER_BYTES + data.readUInt32BE(at + COPY_MAGIC.length + 4);
      this.#headerSeen = true;
      if (at === end) return false;
    }
    const fields = end - at < 2 ? 0 : data.readInt16BE(at);
    if (fields === -1 && at + 2 === end) return false;
    if (fields !== 1) throw new ReplicationError('source_protocol', `a row of COPY data has ${fields} fields, not 1`);
    const length = end - at < 6 ? -1 : data.readInt32BE(at + 2);
    this.start = at + 6;
    if (length < 0 || this.start + length !== end)
      throw new ReplicationError('source_protocol', `a row of COPY data holds ${end - at} bytes and says ${length}`);
    return true;
  }
}
