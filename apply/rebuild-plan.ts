/**
 * From where in its stream a mirror flow can be built anew, if at all. Each of its tables must have been read whole, from a
 * snapshot's `begin` to its `end`, within the frames that the stream still has: what such a reading does not bring does not
 * exist, so that what the target has from then on is what the source had. A stream that lacks it for one table has lost rows.
 */
import { findFirstWhole, keptSequences, readFrames, readHeaders, readReset } from '../core/cdc-stream.ts';
import { ReplicationError } from '../core/errors.ts';
import type { TableSchema } from '../core/frame.ts';
import { IndexedFrame } from '../core/indexed-frame.ts';
import type { Nats } from '../core/nats.ts';
import type { Position } from '../core/position.ts';
import { nameOf, type TableRecord } from './followed-tables.ts';

/** A reading of a table, from its begin on. */
interface Reading {
  readonly id: string;
  readonly seq: number;
}

/** What the frames of a stream tell of a table. */
interface Trace {
  readonly schema: string;
  readonly name: string;
  readonly ids: Set<number>;
  /** The sequences at which versions of the table came, in order. */
  readonly versions: { readonly version: string; readonly seq: number }[];
  readonly begins: Reading[];
  /** The last reading of it that was ended. */
  whole: Reading | undefined;
  lastSeq: number;
}

export interface Place {
  readonly position: Position;
  readonly seq: number;
}

/** Where a flow begins again. */
export interface RebuildPlan {
  /** The flow stands here: at the end of the frame before the first one that it takes. */
  readonly from: Place;
  /** The first frame that it takes. */
  readonly startSeq: number;
  /** When that frame was stored. */
  readonly storedAt: Date;
  /** The tables that are written anew. */
  readonly tables: readonly { readonly schema: string; readonly name: string }[];
  /** Frames to take. */
  readonly frames: number;
}

export interface StreamTraceOptions {
  readonly nats: Nats;
  readonly stream: string;
  readonly includes: (table: { readonly schema: string; readonly name: string }) => boolean;
  /** Called with the sequence that has been read, of those up to the second one. */
  readonly onProgress?: (seq: number, last: number) => void;
}

const MESSAGE_WAIT_MS = 30_000;
/** This part of what a stream keeps, from its oldest frame on, is taken as good as gone. */
const MARGIN = 0.1;
const MARGIN_FRAMES = 10;

/** What the frames that a stream holds tell of a flow's tables. */
export class StreamTrace {
  readonly #o: StreamTraceOptions;
  readonly #tables = new Map<string, Trace>();
  #first: Place | undefined;
  /** Behind which frame the next one begins. */
  #at: Place | undefined;

  constructor(options: StreamTraceOptions) {
    this.#o = options;
  }

  /** Reads all that the stream holds by now; called again, what has come since. */
  async read(): Promise<void> {
    const { nats, stream } = this.#o;
    const { first, last } = await keptSequences(nats, stream);
    if (this.#at === undefined) {
      // After a reset everything is read again, and positions from before mean another history.
      const seq = await findFirstWhole(nats, stream, Math.max(first, await readReset(nats, stream)));
      if (seq === undefined) throw nothingKept(stream);
      const { reset, start, end } = await readHeaders(nats, stream, seq);
      this.#at = reset ? { position: end, seq } : { position: start, seq: seq - 1 };
      this.#first = this.#at;
    }
    if (this.#at.seq < last) await this.#readTo(this.#at, last);
  }

  async #readTo({ position, seq }: Place, lastSeq: number): Promise<void> {
    const { nats, stream, onProgress } = this.#o;
    const last = await this.#lastWhole(seq, lastSeq);
    if (last <= seq) return;
    const quiet = new AbortController();
    const { signal } = quiet;
    let timer = setTimeout(() => quiet.abort(), MESSAGE_WAIT_MS);
    try {
      for await (const frame of readFrames(nats, stream, { startSeq: seq + 1, position, signal })) {
        clearTimeout(timer);
        timer = setTimeout(() => quiet.abort(), MESSAGE_WAIT_MS);
        const indexed = IndexedFrame.open(frame.payload, frame.place);
        this.#take(indexed, frame.seq);
        indexed.giveUp();
        this.#at = { position: frame.end, seq: frame.seq };
        onProgress?.(frame.seq, last);
        if (frame.seq >= last) break;
      }
    } finally {
      clearTimeout(timer);
    }
    if (this.#at!.seq < last)
      throw new ReplicationError('nats_timeout', `stream ${stream} gave no frame behind ${this.#at!.seq} in time`);
  }

  /** A frame of several pieces may not be there whole yet. */
  async #lastWhole(seq: number, lastSeq: number): Promise<number> {
    for (let last = lastSeq; last > seq; last--) {
      const { chunk } = await readHeaders(this.#o.nats, this.#o.stream, last);
      if (chunk === undefined || chunk.index === chunk.of) return last;
    }
    return seq;
  }

  #take(frame: IndexedFrame, seq: number): void {
    const traces = frame.tables.map((table) => (this.#o.includes(table) ? this.#see(table, seq) : undefined));
    for (let row = 0; row < frame.length; row++) {
      if (frame.op(row) !== 's') continue;
      const trace = traces[frame.tableIndex(row)];
      const [id, mark] = frame.row(row)[2] ?? [];
      if (trace === undefined || typeof id !== 'string') continue;
      if (mark === 'begin') trace.begins.push({ id, seq });
      const begun = trace.begins.at(-1);
      if (mark === 'end' && begun?.id === id) trace.whole = begun;
    }
  }

  #see(table: TableSchema, seq: number): Trace {
    const { schema, name } = table;
    const known = this.#tables.get(nameOf(table));
    const trace = known ?? { schema, name, ids: new Set(), versions: [], begins: [], whole: undefined, lastSeq: seq };
    this.#tables.set(nameOf(table), trace);
    trace.lastSeq = seq;
    if (table.id !== undefined) trace.ids.add(table.id);
    if (trace.versions.at(-1)?.version !== table.version) trace.versions.push({ version: table.version, seq });
    return trace;
  }

  /** Where the flow can begin again. Throws `rebuild_impossible`, naming each table that stands against it and why. */
  async plan(records: readonly TableRecord[], source: string): Promise<RebuildPlan> {
    const { nats, stream, includes } = this.#o;
    const known = new Map(records.filter(includes).map((record) => [nameOf(record), record]));
    const problems: string[] = [];
    const wanted = new Map([...this.#tables.values()].map((trace) => [nameOf(trace), trace]));
    for (const [name, record] of known)
      if (record.state !== 'gone' && !wanted.has(name)) problems.push(`${name}: no frame of it is kept`);
    const wholes = [...wanted.values()].flatMap((trace) => {
      if (known.get(nameOf(trace))?.state === 'gone') return [];
      if (trace.whole !== undefined) return [trace.whole.seq];
      problems.push(`${nameOf(trace)}: no whole reading of it is kept`);
      return [];
    });
    const startSeq = Math.min(...wholes);
    if (problems.length === 0 && wholes.length > 0)
      for (const trace of wanted.values()) problems.push(...this.#changes(trace, startSeq, known));
    if (problems.length > 0) throw this.#impossible(problems, source);
    if (wholes.length === 0) throw nothingKept(stream);
    const message = await nats.manager.streams.getMessage(stream, { seq: startSeq });
    const headers = await readHeaders(nats, stream, startSeq);
    if (message === null) throw nothingKept(stream);
    await this.#requireMargin(startSeq, message.time);
    return {
      from: { position: headers.start, seq: startSeq - 1 },
      startSeq,
      storedAt: message.time,
      tables: [...wanted.values()]
        .filter(({ lastSeq }) => lastSeq >= startSeq)
        .map(({ schema, name }) => ({ schema, name })),
      frames: this.#at!.seq - startSeq + 1,
    };
  }

  /** Frames that are dropped before the flow has taken them would leave it blocked, with tables half read. */
  async #requireMargin(startSeq: number, storedAt: Date): Promise<void> {
    const { nats, stream } = this.#o;
    const { config, state } = await nats.manager.streams.info(stream);
    const maxAgeMs = config.max_age / 1e6;
    const isOld = maxAgeMs > 0 && Date.now() - storedAt.getTime() > maxAgeMs * (1 - MARGIN);
    const isFull = config.max_bytes > 0 && state.bytes > config.max_bytes * (1 - MARGIN);
    const isFirst = startSeq - state.first_seq < Math.max(MARGIN_FRAMES, (state.last_seq - state.first_seq) * MARGIN);
    if (isOld || (isFull && isFirst))
      throw new ReplicationError(
        'rebuild_impossible',
        `sequence ${startSeq} of stream ${stream}, from which the flow would be built, is about to be dropped (max_age, max_bytes)`,
        { context: { stream, startSeq } },
      );
  }

  /**
   * The target cannot go back to an earlier definition of a table: from where its rows are taken on, it must have had one.
   */
  #changes(trace: Trace, startSeq: number, known: ReadonlyMap<string, TableRecord>): string[] {
    const name = nameOf(trace);
    if (trace.lastSeq < startSeq) return [];
    const record = known.get(name);
    if (record?.state === 'gone') return [`${name}: the source no longer has it; leave it out of the flow's tables`];
    const other = [...known.values()].find(
      (each) => nameOf(each) !== name && each.definition?.id !== undefined && trace.ids.has(each.definition.id),
    );
    if (record === undefined && other !== undefined) return [`${name}: it is called ${nameOf(other)} by now`];
    const first = trace.begins.find(({ seq }) => seq >= startSeq)!;
    const later = trace.versions.filter(({ seq }, index) => index > 0 && seq >= first.seq);
    return later.length === 0 ? [] : [`${name}: its definition changed since it was read`];
  }

  #impossible(problems: readonly string[], source: string): ReplicationError {
    const { stream } = this.#o;
    const tables = problems.map((problem) => problem.slice(0, problem.indexOf(':')));
    return new ReplicationError(
      'rebuild_impossible',
      `the frames that stream ${stream} has kept, from sequence ${this.#first!.seq + 1} on, are not enough: ${problems.join('; ')}. Run: waybill snapshot ${source} ${tables.join(' ')}`,
      { context: { stream, firstSeq: this.#first!.seq + 1 } },
    );
  }
}

function nothingKept(stream: string): ReplicationError {
  return new ReplicationError('rebuild_impossible', `stream ${stream} holds no whole reading of any table`);
}
