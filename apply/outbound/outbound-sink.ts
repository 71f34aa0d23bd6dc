/**
 * Writes records into the tables of another system, each batch with the position it brings in one transaction.
 * Invariant 4. Of a batch the newest state of each key counts. A record that does not go in (its parent is not there
 * yet, a constraint refuses it) waits in the quarantine and is tried again by itself; the others go on.
 */
import type { IndexedFrame } from '../../core/indexed-frame.ts';
import type { OutboundPlan } from '../../core/outbound.ts';
import { formatPosition, type Position } from '../../core/position.ts';
import type { Move } from '../batch-store.ts';
import type { Batch } from '../batch.ts';
import { QuarantineCount } from '../quarantine-count.ts';
import type { RowFailure } from '../quarantine-entry.ts';
import type { BatchSink, SinkOptions } from '../target-store.ts';
import type { OutboundSession, WaitingRecord } from './outbound-session.ts';
import { RecordWriter, type Item, type Values } from './record-writer.ts';
import { RetryPace } from './retry-pace.ts';
import { RowRivals } from './row-rivals.ts';
import { SharedRows } from './shared-rows.ts';

const RETRY_RECORDS = 500;
/** How many records that wait may exchange rows at once. */
const RING_RECORDS = 1000;
const IDLE_MS = 1000;

export class OutboundSink implements BatchSink {
  readonly #session: OutboundSession;
  readonly #options: SinkOptions;
  readonly #plan: OutboundPlan;
  /** Keys of records that wait. */
  readonly #waiting: Set<string>;
  readonly #inbox: QuarantineCount;
  /**
   * Of a batch, and of a transaction whose end has not come. A flow passes on no transaction of records of more than some 16 MB
   * (transform/flow-run.ts), and each in one frame, so that this is no more than a batch holds. Invariant 6.
   */
  #items = new Map<string, Item>();
  #position: Position;
  #seq: number;
  readonly #pace = new RetryPace();
  /** Of the round of tries under way: the last id, and how many are to come of those that waited when it began. */
  #retriedId = '0';
  #roundLeft = 0;
  /** Who has the rows of those that wait. */
  readonly #rivals = new RowRivals();
  readonly #writer: RecordWriter;
  readonly #columns = new WeakMap<object, readonly number[] | undefined>();

  private constructor(
    session: OutboundSession,
    options: SinkOptions,
    plan: OutboundPlan,
    shared: SharedRows,
    waiting: Set<string>,
  ) {
    this.#session = session;
    this.#options = options;
    this.#plan = plan;
    this.#writer = new RecordWriter(session, plan, shared, this.#rivals);
    this.#waiting = waiting;
    this.#inbox = new QuarantineCount(() => session.countKeys(), options.report);
    this.#position = session.at.position;
    this.#seq = session.at.seq;
    if (waiting.size > 0) this.#pace.failed(performance.now());
  }

  /** Throws `mapping_invalid` when the plan does not fit the tables. */
  static async create(session: OutboundSession, options: SinkOptions, plan: OutboundPlan): Promise<OutboundSink> {
    try {
      const shared = await SharedRows.open(session, plan, await session.prepare(plan));
      return new OutboundSink(session, options, plan, shared, await session.waitingKeys());
    } catch (thrown) {
      throw session.error(thrown, `preparing flow ${options.flow}`);
    }
  }

  /** Nothing is written before a transaction is there as a whole. */
  readonly open = false;

  get position(): Position {
    return this.#position;
  }

  get seq(): number {
    return this.#seq;
  }

  /** How soon `idle` wants to be called. */
  get idleMs(): number {
    const waitMs = this.#pace.waitMs(performance.now());
    return waitMs === undefined ? IDLE_MS : Math.max(1, waitMs);
  }

  async write(batch: Batch): Promise<void> {
    const started = performance.now();
    try {
      for (const { frame, from, to } of batch.runs) for (let row = from; row < to; row++) this.#collect(frame, row);
      if (batch.next === undefined) return;
      const items = [...this.#items.values()];
      this.#items = new Map();
      await this.#transact({ next: batch.next, seq: batch.seq, commitTimeUs: batch.commitTimeUs }, items);
      const { rows, transactions, commitTimeUs } = batch;
      const { report } = this.#options;
      const seconds = (performance.now() - started) / 1000;
      report.applied({ rows, transactions, seconds, commitTimeUs, position: formatPosition(this.#position) });
      const gone = items.filter((item) => item.gone).length;
      if (items.length > gone) report.rows('canonical', this.#plan.entity, 'u', items.length - gone);
      if (gone > 0) report.rows('canonical', this.#plan.entity, 'd', gone);
      await this.#retryWhenDue();
    } catch (thrown) {
      throw this.#session.error(thrown, `writing a batch of flow ${this.#options.flow}`);
    }
  }

  /** Called while there is nothing to write. */
  async idle(): Promise<void> {
    try {
      await this.#retryWhenDue();
      await this.#inbox.tell();
    } catch (thrown) {
      throw this.#session.error(thrown, `trying records of flow ${this.#options.flow} again`);
    }
  }

  #collect(frame: IndexedFrame, row: number): void {
    const op = frame.op(row);
    const table = frame.tableIndex(row);
    if (table < 0 || op === 's' || op === 't' || op === 'm') return;
    const columns = this.#columnsOf(frame.tables[table]!);
    if (columns === undefined) return;
    const change = frame.row(row);
    const gone = op === 'd';
    const image = gone ? change[4]! : change[2]!;
    const values = columns.map((column) => {
      const value = image[column];
      return typeof value === 'string' ? value : null;
    });
    const key = keyOf(this.#plan, values);
    this.#items.set(key, { key, values, gone });
  }

  /** Where the entity's fields stand in a table of a frame; undefined for one that is not the entity's. */
  #columnsOf(table: IndexedFrame['tables'][number]): readonly number[] | undefined {
    if (!this.#columns.has(table)) {
      const names = table.columns.map(({ name }) => name);
      const own = table.schema === 'canonical' && table.name === this.#plan.entity;
      this.#columns.set(table, own ? this.#plan.fields.map((field) => names.indexOf(field)) : undefined);
    }
    return this.#columns.get(table);
  }

  /** Writes records. Of those that wait already, `known` by their keys, it gives only what has changed to the quarantine. */
  async #transact(
    { next, seq, commitTimeUs }: Pick<Move, 'next' | 'seq' | 'commitTimeUs'>,
    items: readonly Item[],
    known: ReadonlyMap<string, WaitingRecord> = new Map(),
    apply: () => Promise<Map<Item, RowFailure>> = async () => await this.#writer.write(items),
  ): Promise<void> {
    const { flow, settings, stream } = this.#options;
    const session = this.#session;
    await session.begin({
      flow,
      source: settings.mirror,
      expected: this.#position,
      next,
      stream,
      seq,
      commitTimeUs,
      quarantineVersion: session.at.quarantineVersion,
    });
    const failures = await apply();
    const left = [...failures].map(([{ key, values, gone }, failure]) => ({
      key,
      failure,
      content: {
        row: gone ? null : Object.fromEntries(this.#plan.fields.map((field, index) => [field, values[index]!])),
      },
    }));
    // What fails as it did before stays as it is.
    const changed = left.filter(({ key, failure }) => known.get(key)?.failure.message !== failure.message);
    const freed = items.filter((item) => this.#waiting.has(item.key) && !failures.has(item)).map(({ key }) => key);
    if (changed.length > 0) await session.keep(changed, next);
    if (freed.length > 0) await session.forget(freed);
    await session.commit();
    this.#position = next;
    this.#seq = seq;
    for (const { key } of left) this.#waiting.add(key);
    for (const key of freed) this.#waiting.delete(key);
    this.#rivals.forget(items.filter((item) => !failures.has(item)).map(({ key }) => key));
    if (changed.length > 0) this.#inbox.changed();
    await this.#inbox.tell();
    if (this.#waiting.size === 0) this.#pace.done();
    else if (changed.length > 0) this.#pace.failed(performance.now());
  }

  async #retryWhenDue(): Promise<void> {
    const beganMs = performance.now();
    if (this.#pace.waitMs(beganMs) !== 0) return;
    const before = this.#waiting.size;
    const records = await this.#nextOfRound();
    if (records.length > 0) await this.#retry(records);
    if (this.#waiting.size === 0) this.#pace.done();
    else this.#pace.tried(beganMs, performance.now(), this.#waiting.size < before);
  }

  /** Records that wait, round after round. What is refused anew goes to the end, which a round must not run after. */
  async #nextOfRound(): Promise<WaitingRecord[]> {
    if (this.#roundLeft > 0) {
      const records = await this.#session.waitingAfter(this.#retriedId, RETRY_RECORDS);
      this.#roundLeft -= records.length === 0 ? this.#roundLeft : records.length;
      this.#retriedId = records.at(-1)?.id ?? '0';
      if (records.length > 0) return records;
    }
    const records = await this.#session.waitingAfter('0', RETRY_RECORDS);
    this.#roundLeft = this.#waiting.size - records.length;
    this.#retriedId = records.at(-1)?.id ?? '0';
    return records;
  }

  /** Tries records again, and those with which they could exchange rows: they may wait far from each other. */
  async #retry(records: readonly WaitingRecord[]): Promise<void> {
    const known = new Map(records.map((each) => [each.key, each]));
    await this.#transact(
      this.#now,
      records.map((record) => this.#itemOf(record)),
      known,
    );
    const tried = new Set<string>();
    for (;;) {
      const rings = this.#rivals
        .ringsFrom([...known.keys()], this.#waiting)
        .filter((ring) => ring.length <= RING_RECORDS && !tried.has(nameOf(ring)));
      if (rings.length === 0) return;
      for (const ring of rings) tried.add(nameOf(ring));
      // What one try shows of a record's rows may make a larger ring.
      for (const some of lotsOf(rings)) await this.#exchangeAll(some);
    }
  }

  /** Has the records of each ring exchange their rows, as far as nothing refuses that. */
  async #exchangeAll(rings: readonly (readonly string[])[]): Promise<void> {
    const known = new Map((await this.#session.waitingOf(rings.flat())).map((each) => [each.key, each]));
    const items = new Map([...known].map(([key, record]) => [key, this.#itemOf(record)]));
    await this.#transact(this.#now, [...items.values()], known, async () => {
      const failures = new Map([...items].map(([key, item]) => [item, known.get(key)!.failure]));
      for (const ring of rings) {
        const group = ring.flatMap((key) => items.get(key) ?? []);
        if (group.length === ring.length) await this.#writer.exchange(group, failures);
      }
      return failures;
    });
  }

  /** What a transaction brings that brings no position. */
  get #now(): Pick<Move, 'next' | 'seq' | 'commitTimeUs'> {
    return { next: this.#position, seq: this.#seq, commitTimeUs: 0 };
  }

  #itemOf({ key, content: { row } }: WaitingRecord): Item {
    const parts = JSON.parse(key) as string[];
    const values = this.#plan.fields.map((field, index) => {
      const part = this.#plan.key.indexOf(index);
      return part >= 0 ? parts[part]! : (row?.[field] ?? null);
    });
    return { key, values, gone: row === null };
  }
}

function nameOf(ring: readonly string[]): string {
  return JSON.stringify(ring.toSorted());
}

/** Rings in lots of no more records than may exchange rows at once. */
function lotsOf(rings: readonly string[][]): string[][][] {
  const lots: string[][][] = [];
  let records = Infinity;
  for (const ring of rings) {
    records += ring.length;
    if (records > RING_RECORDS) {
      lots.push([]);
      records = ring.length;
    }
    lots.at(-1)!.push(ring);
  }
  return lots;
}

function keyOf(plan: OutboundPlan, values: Values): string {
  return JSON.stringify(plan.key.map((index) => values[index] ?? ''));
}
