/**
 * Writes records as messages of their own, the newest of each key on its subject. With them goes a message that says how
 * far they have come: a batch that is written again says the same again. Invariant 5: each write states the sequence after
 * which it must stand, so that one of two writers is refused.
 */
import { jetstream, type JetStreamClient } from '@nats-io/jetstream';
import { headers, type MsgHdrs } from '@nats-io/transport-node';
import { ReplicationError } from '../../core/errors.ts';
import type { IndexedFrame } from '../../core/indexed-frame.ts';
import { natsError, type Nats } from '../../core/nats.ts';
import { formatPosition, ORIGIN, type Position } from '../../core/position.ts';
import { RECORD_OP, recordsSubject } from '../../core/record-messages.ts';
import type { FlowReport } from '../../core/metrics.ts';
import type { Batch } from '../batch.ts';
import type { BatchSink } from '../target-store.ts';
import { RecordForm } from './record-message.ts';

/** Most messages that are stored together; the server takes a thousand. */
const TOGETHER = 500;
/** Room for the headers of a message, which count against max_payload. */
const HEADER_BYTES = 1024;

export interface FanOutOptions {
  readonly nats: Nats;
  readonly prefix: string;
  readonly entity: string;
  readonly stream: string;
  /** The server stores several messages together, or none of them. */
  readonly atomic: boolean;
  /** The newest message of the stream. */
  readonly lastSeq: number;
  readonly report: FlowReport;
}

/** How far the records have come. */
export interface FanOutPlace {
  readonly v: 1;
  readonly position: string;
  /** Sequence in the stream of frames. */
  readonly seq: number;
  /** All records are being written anew: what stood up to this sequence and does not come again is gone. */
  readonly anew?: number;
}

/** Where a sink goes on. */
export interface FanOutStart {
  readonly position: Position;
  readonly seq: number;
  readonly anew: number | undefined;
}

interface Message {
  readonly subject: string;
  readonly payload: string;
  readonly op: 'put' | 'delete' | undefined;
}

export class FanOutSink implements BatchSink {
  readonly #options: FanOutOptions;
  readonly #js: JetStreamClient;
  readonly #forms = new WeakMap<object, RecordForm | undefined>();
  #position: Position;
  #seq: number;
  #anew: number | undefined;
  #lastSeq: number;
  /** The newest message of each record, of transactions that are not there as a whole yet too. */
  #messages = new Map<string, Message>();

  /** Nothing is written before a transaction is there as a whole. */
  readonly open = false;

  constructor(options: FanOutOptions, start: FanOutStart | undefined) {
    this.#options = options;
    this.#js = jetstream(options.nats.connection);
    this.#position = start?.position ?? ORIGIN;
    this.#seq = start?.seq ?? 0;
    this.#anew = start?.anew;
    this.#lastSeq = options.lastSeq;
  }

  get position(): Position {
    return this.#position;
  }

  get seq(): number {
    return this.#seq;
  }

  async write(batch: Batch): Promise<void> {
    const { report, entity } = this.#options;
    const started = performance.now();
    const counts = { put: 0, delete: 0 };
    try {
      for (const { frame, from, to } of batch.runs)
        for (let row = from; row < to; row++) {
          const mark = this.#collect(frame, row, counts);
          if (mark !== undefined) await this.#mark(mark);
        }
      if (batch.next === undefined) return;
      await this.#flush({ position: batch.next, seq: batch.seq });
    } catch (thrown) {
      throw natsError(thrown, `writing records of ${entity} as messages`);
    }
    const { rows, transactions, commitTimeUs } = batch;
    const seconds = (performance.now() - started) / 1000;
    report.applied({ rows, transactions, seconds, commitTimeUs, position: formatPosition(this.#position) });
    if (counts.put > 0) report.rows('canonical', entity, 'u', counts.put);
    if (counts.delete > 0) report.rows('canonical', entity, 'd', counts.delete);
  }

  /** Takes a row. Gives the mark where it is one. */
  #collect(frame: IndexedFrame, row: number, counts: Record<'put' | 'delete', number>): string | undefined {
    const table = frame.tableIndex(row);
    if (table < 0) return undefined;
    const form = this.#formOf(frame.tables[table]!);
    if (form === undefined) return undefined;
    const op = frame.op(row);
    const change = frame.row(row);
    if (op === 's') return String(change[2]![1]);
    if (op === 't' || op === 'm') return undefined;
    const gone = op === 'd';
    const image = gone ? change[4]! : change[2]!;
    const subject = form.subject(image);
    const payload = gone ? '' : form.payload(image);
    this.#requireFit(subject, payload);
    counts[gone ? 'delete' : 'put'] += 1;
    // The newest stands behind what came before it.
    this.#messages.delete(subject);
    this.#messages.set(subject, { subject, payload, op: gone ? 'delete' : 'put' });
    return undefined;
  }

  #formOf(table: IndexedFrame['tables'][number]): RecordForm | undefined {
    if (!this.#forms.has(table)) {
      const own = table.schema === 'canonical' && table.name === this.#options.entity;
      this.#forms.set(table, own ? new RecordForm(this.#options.prefix, table) : undefined);
    }
    return this.#forms.get(table);
  }

  #requireFit(subject: string, payload: string): void {
    const limit = (this.#options.nats.connection.info?.max_payload ?? 1 << 20) - HEADER_BYTES;
    const bytes = Buffer.byteLength(payload);
    if (bytes > limit)
      throw new ReplicationError(
        'nats_payload_too_small',
        `the record of ${subject} takes ${bytes} bytes, and a message ${limit}`,
      );
  }

  /** Records are written anew between two marks: what stood before the first and did not come again is gone. */
  async #mark(mark: string): Promise<void> {
    const here = { position: this.#position, seq: this.#seq };
    await this.#flush(here);
    if (mark === 'begin') {
      this.#anew = this.#lastSeq;
      return;
    }
    if (this.#anew === undefined) return;
    // The place is written behind what goes, so that it is never without one.
    if (this.#anew === this.#lastSeq) await this.#flush(here);
    await this.#options.nats.manager.streams.purge(this.#options.stream, { seq: this.#anew + 1 });
    this.#anew = undefined;
  }

  /** Writes the messages that wait, and behind them how far that is. */
  async #flush({ position, seq }: { readonly position: Position; readonly seq: number }): Promise<void> {
    const { prefix, entity } = this.#options;
    const place: FanOutPlace = {
      v: 1,
      position: formatPosition(position),
      seq,
      ...(this.#anew === undefined ? {} : { anew: this.#anew }),
    };
    const messages = [
      ...this.#messages.values(),
      { subject: recordsSubject(prefix, entity), payload: JSON.stringify(place), op: undefined },
    ];
    const step = this.#options.atomic ? TOGETHER : 1;
    for (let from = 0; from < messages.length; from += step) await this.#store(messages.slice(from, from + step));
    this.#messages = new Map();
    this.#position = position;
    this.#seq = seq;
  }

  /** Throws `stream_conflict` where somebody else has written, and classified errors. */
  async #store(messages: readonly Message[]): Promise<void> {
    try {
      await this.#publish(messages);
    } catch (thrown) {
      const { nats, stream } = this.#options;
      const { state } = await nats.manager.streams.info(stream);
      // The client does not say why several messages were not stored together.
      if (state.last_seq === this.#lastSeq) throw thrown;
      throw new ReplicationError('stream_conflict', `somebody else has written to stream ${stream}`, { cause: thrown });
    }
  }

  async #publish(messages: readonly Message[]): Promise<void> {
    const [first, ...rest] = messages;
    const expect = { lastSequence: this.#lastSeq, streamName: this.#options.stream };
    const last = rest.pop();
    if (last === undefined) {
      const ack = await this.#js.publish(first!.subject, first!.payload, { headers: headersOf(first!), expect });
      this.#lastSeq = ack.seq;
      return;
    }
    const batch = await this.#js.startBatch(first!.subject, first!.payload, { headers: headersOf(first!), expect });
    for (const message of rest) batch.add(message.subject, message.payload, { headers: headersOf(message) });
    const ack = await batch.commit(last.subject, last.payload, { headers: headersOf(last), timeout: 10_000 });
    this.#lastSeq = ack.seq;
  }
}

function headersOf({ op }: Message): MsgHdrs {
  const named = headers();
  if (op !== undefined) named.set(RECORD_OP, op);
  return named;
}
