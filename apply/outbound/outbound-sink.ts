/**
 * Writes records into the tables of another system, each batch with the position it brings in one transaction.
 * Invariant 4. Of a batch the newest state of each key counts. A record that does not go in (its parent is not there
 * yet, a constraint refuses it) waits in the quarantine and is tried again by itself; the others go on.
 */
import type { IndexedFrame } from '../../core/indexed-frame.ts';
import { OutboundFault, type OutboundBlock, type OutboundPlan, type OutboundWrite } from '../../core/outbound.ts';
import { formatPosition, type Position } from '../../core/position.ts';
import type { Batch } from '../batch.ts';
import { QuarantineCount } from '../quarantine-count.ts';
import type { RowFailure } from '../quarantine-entry.ts';
import type { BatchSink, SinkOptions } from '../target-store.ts';
import type { Cells, OutboundSession, WaitingRecord } from './outbound-session.ts';
import { RetryPace } from './retry-pace.ts';
import { SharedRows, type Wanted } from './shared-rows.ts';

type Values = readonly (string | null)[];

/** The newest state of a key. */
interface Item {
  readonly key: string;
  /** Of a record that has gone only the key. */
  readonly values: Values;
  readonly gone: boolean;
}

const RETRY_RECORDS = 500;
const IDLE_MS = 1000;

export class OutboundSink implements BatchSink {
  readonly #session: OutboundSession;
  readonly #options: SinkOptions;
  readonly #plan: OutboundPlan;
  /** Keys of records that wait. */
  readonly #waiting: Set<string>;
  readonly #inbox: QuarantineCount;
  readonly #shared: SharedRows;
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
  /** Of those that were written last those whose rows others have, and since the newest retry began the keys of the others. */
  #held: Item[] = [];
  #rivals = new Map<string, string>();
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
    this.#shared = shared;
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
      await this.#transact(batch.next, batch.seq, batch.commitTimeUs, items, new Map());
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

  async #transact(
    next: Position,
    seq: number,
    commitTimeUs: number,
    items: readonly Item[],
    known: ReadonlyMap<string, WaitingRecord>,
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
    const failures = items.length === 0 ? new Map<Item, RowFailure>() : await this.#apply(items);
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
    if (changed.length > 0) this.#inbox.changed();
    await this.#inbox.tell();
    if (this.#waiting.size === 0) this.#pace.done();
    else if (changed.length > 0) this.#pace.failed(performance.now());
  }

  /** Writes all of them together; where a row fails, each by itself. Gives those that are not in, and why. */
  async #apply(items: readonly Item[]): Promise<Map<Item, RowFailure>> {
    const together = await this.#attempt(items);
    if (together instanceof Map) return together;
    const failures = new Map<Item, RowFailure>();
    const held: Item[] = [];
    for (const item of items) {
      const alone = await this.#attempt([item]);
      if (!(alone instanceof Map)) failures.set(item, alone);
      else for (const [each, failure] of alone) failures.set(each, failure);
      held.push(...this.#held);
    }
    // Those that want each other's rows get them together or not at all.
    const exchanged = held.length > 1 ? await this.#attempt(held) : undefined;
    if (exchanged instanceof Map)
      for (const item of held) {
        const failure = exchanged.get(item);
        if (failure === undefined) failures.delete(item);
        else failures.set(item, failure);
      }
    return failures;
  }

  /** Writes records under a savepoint. Gives those that are not in; where none may be written so, why. */
  async #attempt(items: readonly Item[]): Promise<Map<Item, RowFailure> | RowFailure> {
    const session = this.#session;
    this.#held = [];
    await session.savepoint();
    try {
      const failures = await this.#together(items);
      if (!this.#shared.hasHandedOn(keysOf(failures))) {
        await session.settle();
        return failures;
      }
      await session.rollbackToSavepoint();
      return waitingFor('a record keeps the row that another one was to have');
    } catch (thrown) {
      const failure = session.rowFailure(thrown);
      if (failure === undefined) throw thrown;
      await session.rollbackToSavepoint();
      this.#held = [];
      return failure;
    }
  }

  async #together(items: readonly Item[]): Promise<Map<Item, RowFailure>> {
    const failures = new Map<Item, RowFailure>();
    const there = items.filter((item) => !item.gone);
    const gone = items.filter((item) => item.gone);
    const { blocks } = this.#plan;
    this.#shared.begin(
      there.map(({ key }) => key),
      gone.map(({ key }) => key),
    );
    for (const block of blocks) await this.#write(block, block.write, there, failures);
    // What depends on another row goes before it.
    for (const block of blocks.toReversed()) {
      const { gone: ending } = block;
      if (ending === 'ignore') continue;
      const own = await this.#ending(block, ending.write, gone, failures);
      if (!ending.remove) await this.#write(undefined, ending.write, own, failures);
      else {
        const { rows } = this.#cells(ending.write, own, failures);
        if (rows.length > 0) await this.#session.remove(ending.write, rows);
      }
    }
    await this.#shared.end(keysOf(failures));
    return failures;
  }

  /** Of records that have gone those whose rows are no other's. */
  async #ending(
    block: OutboundBlock,
    write: OutboundWrite,
    gone: readonly Item[],
    failures: Map<Item, RowFailure>,
  ): Promise<readonly Item[]> {
    if (!this.#shared.has(block)) return gone;
    const { rows, of } = this.#cells(write, gone, failures);
    if (rows.length === 0) return [];
    const { names } = await this.#session.look(write, rows);
    // What cannot be found is not there.
    const places = [...rows.keys()].filter((index) => names[index] !== undefined);
    const wanted = places.map((index): Wanted => ({ key: of[index]!.key, cells: rows[index]!, name: names[index]! }));
    return (await this.#shared.own(block, wanted, keysOf(failures))).map((place) => of[places[place]!]!);
  }

  /** Writes rows; those of a block unless they are another record's. */
  async #write(
    block: OutboundBlock | undefined,
    write: OutboundWrite,
    items: readonly Item[],
    failures: Map<Item, RowFailure>,
  ): Promise<void> {
    const { rows, of } = this.#cells(write, items, failures);
    if (rows.length === 0) return;
    const waits = (item: Item): void =>
      void failures.set(item, waitingFor(`${write.table}: a row that it needs is not there yet`));
    if (block === undefined || !this.#shared.has(block)) {
      for (const index of await this.#session.write(write, rows)) waits(of[index]!);
      return;
    }
    // What waits has no row: another record may be able to write it.
    const { waiting, names } = await this.#session.look(write, rows);
    for (const index of waiting) waits(of[index]!);
    const found = [...rows.keys()].filter((index) => !waiting.has(index) && names[index] !== undefined);
    const wanted = found.map((index): Wanted => ({ key: of[index]!.key, cells: rows[index]!, name: names[index]! }));
    const others = await this.#shared.claim(block, wanted, keysOf(failures));
    for (const [place, key] of others) {
      const item = of[found[place]!]!;
      const message = `${write.table}: record ${key} has this row; the key of the row does not tell them apart`;
      failures.set(item, waitingFor(message));
      this.#held.push(item);
      this.#rivals.set(item.key, key);
    }
    const claimed = [...wanted.keys()].filter((place) => !others.has(place));
    if (claimed.length === 0) return;
    const all = claimed.length === rows.length;
    const late = await this.#session.write(write, all ? rows : claimed.map((place) => wanted[place]!.cells));
    if (late.size === 0) return;
    for (const index of late) waits(of[found[claimed[index]!]!]!);
    await this.#shared.giveUp(
      block,
      [...late].map((index) => wanted[claimed[index]!]!),
    );
  }

  #cells(write: OutboundWrite, items: readonly Item[], failures: Map<Item, RowFailure>): { rows: Cells[]; of: Item[] } {
    const rows: Cells[] = [];
    const of: Item[] = [];
    for (const item of items) {
      if (failures.has(item)) continue;
      const cells = write.cells(item.values);
      if (cells === undefined) continue;
      if (cells instanceof OutboundFault) {
        // A record without a key for its row never had one: there is nothing to end.
        if (item.gone && cells.inKey) continue;
        failures.set(item, { reason: 'mapping', sqlState: null, message: cells.message });
        continue;
      }
      rows.push(cells);
      of.push(item);
    }
    return { rows, of };
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

  /** Tries records again, and those that it takes for them: records that exchange rows may wait far from each other. */
  async #retry(records: readonly WaitingRecord[]): Promise<void> {
    const tried = new Set<string>();
    for (let group = records; group.length > 0;) {
      this.#rivals = new Map();
      const known = new Map(group.map((each) => [each.key, each]));
      for (const key of known.keys()) tried.add(key);
      const items = group.map((record) => this.#itemOf(record));
      await this.#transact(this.#position, this.#seq, 0, items, known);
      const more = [...new Set(this.#rivals.values())].filter((key) => this.#waiting.has(key) && !tried.has(key));
      const held = group.filter(({ key }) => this.#waiting.has(key) && this.#rivals.has(key));
      if (more.length === 0 || held.length + more.length > 2 * RETRY_RECORDS) return;
      group = [...held, ...(await this.#session.waitingOf(more))];
    }
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

function keysOf(failures: ReadonlyMap<Item, RowFailure>): Set<string> {
  return new Set([...failures.keys()].map(({ key }) => key));
}

function waitingFor(message: string): RowFailure {
  return { reason: 'waits', sqlState: null, message };
}

function keyOf(plan: OutboundPlan, values: Values): string {
  return JSON.stringify(plan.key.map((index) => values[index] ?? ''));
}
