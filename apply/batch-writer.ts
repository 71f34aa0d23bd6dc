/**
 * Writes batches, each with the position it brings, in one target transaction. Invariant 4. A source transaction that
 * comes in several batches keeps the target transaction open until its end. Invariant 3.
 */
import { ReplicationError } from '../core/errors.ts';
import type { TableSchema, TransactionEntry } from '../core/frame.ts';
import { entryLiesBefore, entryPosition, formatPosition, type Position } from '../core/position.ts';
import { divideBehindFirst, lastEntry, type Batch } from './batch.ts';
import type { BatchStore, Move, StoreTransaction } from './batch-store.ts';
import { compact, type Compacted, type Plans, type SourceRow, type TableCount } from './compact.ts';
import type { HeldKeys } from './held-keys.ts';
import { QuarantineCount } from './quarantine-count.ts';
import { retryRefused } from './late-rows.ts';
import { HELD } from './quarantine-entry.ts';
import type { ReplayContext } from './row-passes.ts';
import { quarantine, replayRows } from './row-replay.ts';
import { splitBatch, type BatchPart } from './split-batch.ts';
import type { PlanShape } from './table-changes.ts';
import type { BatchSink, FlowPosition, SinkOptions } from './target-store.ts';

export class BatchWriter<P extends PlanShape, T extends StoreTransaction> implements BatchSink {
  readonly #store: BatchStore<P, T>;
  readonly #options: SinkOptions;
  readonly #at: FlowPosition;
  readonly #inbox: QuarantineCount;
  #held!: HeldKeys;
  #position: Position;
  #seq: number;
  #open: T | undefined;
  /** Of the transaction that is open. */
  #openEntry: TransactionEntry | undefined;
  /** The transaction of the change that went to the quarantine last. */
  #refusedAt: string | undefined;

  private constructor(store: BatchStore<P, T>, options: SinkOptions, at: FlowPosition) {
    this.#store = store;
    this.#options = options;
    this.#at = at;
    this.#position = at.position;
    this.#seq = at.seq;
    this.#inbox = new QuarantineCount(() => store.countKeys(), options.report);
  }

  /** `at`: where the flow stands in the target. */
  static async create<P extends PlanShape, T extends StoreTransaction>(
    store: BatchStore<P, T>,
    options: SinkOptions,
    at: FlowPosition,
  ): Promise<BatchWriter<P, T>> {
    const writer = new BatchWriter(store, options, at);
    try {
      await store.load();
      writer.#held = await store.heldKeys();
      writer.#notice();
      await writer.#inbox.tell();
    } catch (thrown) {
      throw store.error(thrown, 'reading what the flow has left in the target');
    }
    return writer;
  }

  /** A source transaction has been written in part; nobody else sees it yet. */
  get open(): boolean {
    return this.#open !== undefined;
  }

  get position(): Position {
    return this.#position;
  }

  get seq(): number {
    return this.#seq;
  }

  /** Writes and, at a transaction's end, commits. Errors are classified; after one the session must be closed. */
  async write(batch: Batch): Promise<void> {
    try {
      await this.#store.look(batch);
      for (const part of this.#parts(batch)) {
        const started = performance.now();
        const counts = await this.#write(part);
        if (part.batch.next !== undefined) {
          this.#position = part.batch.next;
          this.#seq = part.batch.seq;
        }
        this.#report(part.batch, counts, (performance.now() - started) / 1000);
      }
      this.#notice();
      if (!this.open) await this.#inbox.tell();
    } catch (thrown) {
      throw this.#store.error(thrown, `writing a batch of flow ${this.#options.flow}`);
    }
  }

  /** Called while there is nothing to write. */
  async idle(): Promise<void> {
    if (this.open) return;
    try {
      await this.#inbox.tell();
    } catch (thrown) {
      throw this.#store.error(thrown, `counting what waits in the quarantine of flow ${this.#options.flow}`);
    }
  }

  /** Where rows of the open transaction are to be tried again at its end, that is a part of its own. Invariant 3. */
  *#parts(batch: Batch): Generator<BatchPart, void, void> {
    for (const part of splitBatch(batch, this.#store.followed)) {
      const [first, behind] = this.#refusedOpen === undefined ? [part.batch] : divideBehindFirst(part.batch);
      yield { batch: first!, steps: part.steps };
      if (behind !== undefined) yield { batch: behind, steps: [] };
    }
  }

  /** The open transaction, where some of its rows were refused. */
  get #refusedOpen(): string | undefined {
    if (this.#open === undefined || this.#openEntry === undefined || this.#refusedAt === undefined) return undefined;
    const position = formatPosition(entryPosition(this.#openEntry, 0));
    return position === this.#refusedAt ? position : undefined;
  }

  async #write({ batch, steps }: BatchPart): Promise<readonly TableCount[]> {
    const store = this.#store;
    // Where the target can change tables in a transaction, it is the one that brings the rows.
    const begun =
      steps.length > 0 && store.changesInside ? (this.#open ?? (await store.begin(this.#move(batch)))) : undefined;
    // A table that a check is still to be made of cannot be changed.
    if (steps.length > 0 && this.#open !== undefined) await this.#check(this.#open);
    if (steps.length > 0) {
      await store.follow(steps, begun ?? this.#open);
      await this.#holdAgain(begun ?? this.#open);
    }
    const plansOf = await store.plansFor(batch);
    const leavesOut = (table: TableSchema): boolean => store.followed.leavesOut(table);
    const held = this.#held;
    held.mark();
    const compacted = compact(batch.runs, plansOf, this.#options.settings, held, leavesOut);
    await store.prepare?.(compacted.segments, this.#open);
    const partial = begun !== undefined || this.#open !== undefined || batch.next === undefined;
    const transaction = begun ?? this.#open ?? (await store.begin(this.#move(batch)));
    if (partial) {
      transaction.add('SAVEPOINT part');
      // A failure that needs no server must find the savepoint, too.
      await transaction.flush();
    }
    const late = batch.next === undefined ? undefined : this.#refusedOpen;
    try {
      await this.#writeSegments(transaction, compacted);
      await this.#retry(transaction, late);
      await this.#finish(transaction, batch, partial);
    } catch (thrown) {
      if (!store.isRowError(thrown)) throw thrown;
      await this.#replay(transaction, batch, plansOf, { partial, late, held });
    }
    return compacted.counts;
  }

  /** A table may have another key now, by which what follows it must find those that wait. */
  async #holdAgain(transaction: T | undefined): Promise<void> {
    if (this.#held.empty) return;
    await transaction?.flush();
    this.#hold(await this.#store.heldKeys());
  }

  /** What the target knows of, beside the rows without keys that were refused in the open transaction. */
  #hold(held: HeldKeys): void {
    held.keepRowsOf(this.#held);
    this.#held = held;
  }

  async #writeSegments(transaction: T, { segments }: Compacted<P>): Promise<void> {
    const store = this.#store;
    // Truncates that follow each other are done together.
    let truncates: SourceRow<P>[] = [];
    const truncate = async (): Promise<void> => {
      const rows = truncates;
      truncates = [];
      if (rows.length === 0) return;
      transaction.add(store.checkSql);
      await store.barrier(transaction, rows);
      // What waited of the table went with its rows.
      for (const { plan } of rows) this.#held.releaseTable(plan.id);
    };
    for (const segment of segments) {
      const { barrier } = segment;
      if (segment.tables.size > 0 || segment.held.length > 0 || barrier?.row[0] !== 't') await truncate();
      // A barrier may have stopped a table.
      for (const [id, { plan }] of segment.tables) if (store.followed.leavesOut(plan.table)) segment.tables.delete(id);
      await store.writeSegment(transaction, segment);
      for (const table of segment.tables.values()) table.giveUp();
      for (const item of segment.held)
        if (!store.followed.leavesOut(item.plan.table)) await quarantine(this.#context(), transaction, item, HELD);
      if (barrier?.row[0] === 't') truncates.push(barrier);
      else if (barrier !== undefined) {
        transaction.add(store.checkSql);
        await store.barrier(transaction, [barrier]);
      }
    }
    await truncate();
  }

  /** The batch once more, row by row. */
  async #replay(
    transaction: T,
    batch: Batch,
    plansOf: Plans<P>,
    { partial, late, held }: { readonly partial: boolean; readonly late: string | undefined; readonly held: HeldKeys },
  ): Promise<void> {
    if (partial) await transaction.rollbackTo('part');
    else await transaction.rollback();
    const again = partial ? transaction : await this.#store.begin(this.#move(batch));
    // What failed may have held or released keys, and begun or ended snapshots. Invariant 5: nobody else has changed the
    // quarantine, so that it need not be read again: it may be large, and each part of a transaction may come to this.
    held.restore();
    this.#held = held;
    await this.#store.load();
    try {
      await replayRows(this.#context(), again, batch.runs, plansOf);
      await this.#retry(again, late);
      await this.#finish(again, batch, partial);
    } catch (thrown) {
      throw this.#brokenBefore(thrown);
    }
  }

  /** At the end of the transaction `late`: what was refused of it once more. */
  async #retry(transaction: T, late: string | undefined): Promise<void> {
    if (late === undefined) return;
    await retryRefused(this.#context(), transaction, late);
  }

  /** Makes the checks that constraints have put off, of what earlier parts of the open transaction wrote. */
  async #check(open: T): Promise<void> {
    try {
      open.add(this.#store.checkSql);
      await open.flush();
    } catch (thrown) {
      throw this.#brokenBefore(thrown);
    }
  }

  /**
   * What is to be thrown for a row error that no row of the part at hand explains: an earlier part of the open transaction
   * broke a constraint which is checked later. That part is not at hand any more, so the transaction is written again.
   */
  #brokenBefore(thrown: unknown): unknown {
    const store = this.#store;
    if (this.#open === undefined || store.checkSql === '' || this.#checksParts || !store.isRowError(thrown))
      return thrown;
    this.#options.checks.upTo = this.#openEntry;
    return new ReplicationError(
      'target_conflict',
      'a part of a transaction broke a constraint that is checked at its end; it is written again, each part with its checks',
      { cause: thrown },
    );
  }

  get #checksParts(): boolean {
    const { upTo } = this.#options.checks;
    return upTo !== undefined && !entryLiesBefore(upTo, this.#position);
  }

  async #finish(transaction: T, batch: Batch, partial: boolean): Promise<void> {
    if (batch.next === undefined) {
      // Each part has its own: one inside the other, they would be as deep as the transaction is long.
      if (partial) {
        if (this.#checksParts) transaction.add(this.#store.checkSql);
        transaction.add('RELEASE SAVEPOINT part');
      }
      await transaction.flush();
      this.#open = transaction;
      this.#openEntry = lastEntry(batch) ?? this.#openEntry;
      return;
    }
    if (this.#open !== undefined) await this.#store.advance(transaction, this.#move(batch));
    if (partial) {
      transaction.add(this.#store.checkSql);
      transaction.add('RELEASE SAVEPOINT part');
    }
    await transaction.commit();
    this.#open = undefined;
    this.#held.forgetRows();
    await this.#store.committed?.();
  }

  #move(batch: Batch): Move {
    const { flow, settings, stream } = this.#options;
    return {
      flow,
      source: settings.mirror,
      expected: this.#position,
      next: batch.next ?? this.#position,
      stream,
      seq: batch.seq,
      commitTimeUs: batch.commitTimeUs,
      quarantineVersion: this.#at.quarantineVersion,
    };
  }

  #context(): ReplayContext<P, T> {
    const { settings } = this.#options;
    return {
      store: this.#store,
      settings,
      held: () => this.#held,
      reload: async () => {
        this.#held = await this.#store.heldKeys();
      },
      quarantined: ({ position }) => {
        this.#refusedAt = position;
        this.#inbox.changed();
      },
    };
  }

  #notice(): void {
    const notices = this.#store.followed.takeNotices();
    if (notices !== undefined) this.#options.report.tables(notices);
  }

  #report(batch: Batch, counts: readonly TableCount[], seconds: number): void {
    const { report } = this.#options;
    const { rows, transactions, commitTimeUs } = batch;
    report.applied({ rows, transactions, seconds, commitTimeUs, position: formatPosition(this.#position) });
    for (const { table, counts: byOp } of counts)
      for (const [op, count] of Object.entries(byOp)) if (count > 0) report.rows(table.schema, table.name, op, count);
  }
}
