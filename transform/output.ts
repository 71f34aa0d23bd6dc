/**
 * Records on their way into the stream: while one frame is in flight the next one fills, as in a capture. Positions in
 * the stream are counted: transaction n of records lies from n to n + 1, in the form of Postgres positions.
 */
import type { StreamTail } from '../core/cdc-stream.ts';
import type { FramePublisher } from '../core/frame-publisher.ts';
import { FrameWriter } from '../core/frame-writer.ts';
import type { TransformReport } from '../core/metrics.ts';
import { asPgPosition, formatHexLsn, formatPosition, pgPosition, type Position } from '../core/position.ts';

export interface OutputOptions {
  readonly publisher: FramePublisher;
  readonly tail: Pick<StreamTail, 'end' | 'checkpoint'>;
  /** A frame is sent before it grows beyond this by more than a transaction. */
  readonly frameBytes: number;
  /** What the stream holds once everything that was added is stored. */
  readonly checkpoint: () => string;
  readonly report: TransformReport;
  /** Called when a frame has been stored, or failed to be. */
  readonly onChange: () => void;
}

export class Output {
  readonly #options: OutputOptions;
  #writer: FrameWriter;
  #spare: FrameWriter;
  #start: Position;
  #next: bigint;
  #checkpoint: string;
  #timeUs = 0;
  #transactions = 0;
  #reset = false;
  #flight: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;
  #sentMs = performance.now();

  constructor(options: OutputOptions) {
    const { tail, frameBytes } = options;
    this.#options = options;
    this.#writer = new FrameWriter(frameBytes);
    this.#spare = new FrameWriter(frameBytes);
    this.#start = tail.end;
    // A stream that is made again, or was emptied, goes on behind whatever position a target has from what was before.
    this.#next = tail.end.kind === 'origin' ? BigInt(Date.now()) * 1000n : asPgPosition(tail.end).lsn;
    this.#checkpoint = tail.checkpoint ?? '';
  }

  /** Whether the frame that fills has room for another transaction. */
  get full(): boolean {
    return this.#writer.bytes >= this.#options.frameBytes;
  }

  /** Milliseconds since something was stored last. */
  get quietMs(): number {
    return performance.now() - this.#sentMs;
  }

  /** Adds a transaction: `write` writes its rows. Without rows nothing is added. */
  transaction(timeUs: number, write: (writer: FrameWriter) => void): void {
    const before = this.#writer.rows;
    write(this.#writer);
    const rows = this.#writer.rows - before;
    if (rows === 0) return;
    const end = this.#next + 1n;
    this.#writer.addTransaction([0, formatHexLsn(this.#next), formatHexLsn(end), timeUs, rows, 'whole', 0]);
    this.#next = end;
    this.#transactions += 1;
    if (timeUs > this.#timeUs) this.#timeUs = timeUs;
  }

  /** Marks the frame that fills as one after which everything is written anew. */
  markReset(): void {
    this.#reset = true;
  }

  /** Sends what has gathered, if nothing is in flight. `evenEmpty` sends the checkpoint alone. Throws what sending met. */
  send(evenEmpty = false): void {
    if (this.#failure !== undefined) throw this.#failure.error;
    if (this.#flight !== undefined) return;
    const after = this.#options.checkpoint();
    if (this.#writer.empty && !(evenEmpty && after !== this.#checkpoint)) return;
    this.#flight = this.#publish(after)
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => {
        this.#flight = undefined;
        this.#options.onChange();
      });
  }

  async #publish(after: string): Promise<void> {
    const { publisher, report } = this.#options;
    const writer = this.#writer;
    this.#writer = this.#spare;
    this.#spare = writer;
    const { rows } = writer;
    const transactions = this.#transactions;
    const end = pgPosition(this.#next);
    const commitTimeUs = this.#timeUs;
    const reset = this.#reset;
    this.#transactions = 0;
    this.#reset = false;
    const payload = writer.finish();
    const started = performance.now();
    await publisher.publish({
      payload,
      start: this.#start,
      end,
      rows,
      transactions,
      timeUs: commitTimeUs,
      ...(reset ? { reset } : {}),
      checkpoint: { before: this.#checkpoint, after },
    });
    const bytes = payload.length;
    writer.reset();
    this.#start = end;
    this.#checkpoint = after;
    this.#sentMs = performance.now();
    const seconds = (this.#sentMs - started) / 1000;
    report.published({ rows, transactions, bytes, seconds, commitTimeUs, position: formatPosition(end) });
  }

  /** Waits until there is room. */
  async room(): Promise<void> {
    while (this.full) {
      this.send();
      await this.#flight;
    }
  }

  /** Waits until everything is stored, the checkpoint included. */
  async drain(): Promise<void> {
    await this.#flight;
    for (;;) {
      this.send(true);
      if (this.#flight === undefined) return;
      await this.#flight;
    }
  }
}
