/**
 * Writes batches, each with the position it brings, in one target transaction. Invariant 4. A source transaction that
 * comes in several batches keeps the target transaction open until its end. Invariant 3.
 */
import type { TableSchema } from '../core/frame.ts';
import { formatPosition, type Position } from '../core/position.ts';
import type { Batch } from './batch.ts';
import type { BatchStore, Move, StoreTransaction } from './batch-store.ts';
import { compact, type Compacted, type Plans, type SourceRow, type TableCount } from './compact.ts';
import type { HeldKeys } from './held-keys.ts';
import { QuarantineCount } from './quarantine-count.ts';
import { HELD } from './quarantine-entry.ts';
import { quarantine, replayRows, type ReplayContext } from './row-replay.ts';
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
    writer.#held = await store.load();
    writer.#notice();
    await writer.#inbox.tell();
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
      for (const part of splitBatch(batch, this.#store.followed)) {
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

  async #write({ batch, steps }: BatchPart): Promise<readonly TableCount[]> {
    const store = this.#store;
    // Where the target can change tables in a transaction, it is the one that brings the rows.
    const begun =
      steps.length > 0 && store.changesInside ? (this.#open ?? (await store.begin(this.#move(batch)))) : undefined;
    if (steps.length > 0) await store.follow(steps, begun ?? this.#open);
    const plansOf = await store.plansFor(batch);
    const leavesOut = (table: TableSchema): boolean => store.followed.leavesOut(table);
    const compacted = compact(batch.runs, plansOf, this.#options.settings, this.#held, leavesOut);
    await store.prepare?.(compacted.segments, this.#open);
    const partial = begun !== undefined || this.#open !== undefined || batch.next === undefined;
    const transaction = begun ?? this.#open ?? (await store.begin(this.#move(batch)));
    if (partial) {
      transaction.add('SAVEPOINT part');
      // A failure that needs no server must find the savepoint, too.
      await transaction.flush();
    }
    try {
      await this.#writeSegments(transaction, compacted);
      await this.#finish(transaction, batch, partial);
    } catch (thrown) {
      if (!store.isRowError(thrown)) throw thrown;
      await this.#replay(transaction, batch, plansOf, partial);
    }
    return compacted.counts;
  }

  async #writeSegments(transaction: T, { segments }: Compacted<P>): Promise<void> {
    const store = this.#store;
    // Truncates that follow each other are done together.
    let truncates: SourceRow<P>[] = [];
    const truncate = async (): Promise<void> => {
      const rows = truncates;
      truncates = [];
      if (rows.length > 0) await store.barrier(transaction, rows);
      // What waited of the table went with its rows.
      for (const { plan } of rows) this.#held.releaseTable(plan.id);
    };
    for (const segment of segments) {
      const { barrier } = segment;
      if (segment.tables.size > 0 || segment.held.length > 0 || barrier?.row[0] !== 't') await truncate();
      await store.writeSegment(transaction, segment);
      for (const item of segment.held) await quarantine(this.#context(), transaction, item, HELD);
      if (barrier?.row[0] === 't') truncates.push(barrier);
      else if (barrier !== undefined) await store.barrier(transaction, [barrier]);
    }
    await truncate();
  }

  /** The batch once more, row by row. */
  async #replay(transaction: T, batch: Batch, plansOf: Plans<P>, partial: boolean): Promise<void> {
    if (partial) await transaction.rollbackTo('part');
    else await transaction.rollback();
    const again = partial ? transaction : await this.#store.begin(this.#move(batch));
    // The compaction that failed may have held or released keys, and begun or ended snapshots.
    this.#held = await this.#store.load();
    await replayRows(this.#context(), again, batch.runs, plansOf);
    await this.#finish(again, batch, partial);
  }

  async #finish(transaction: T, batch: Batch, partial: boolean): Promise<void> {
    if (batch.next === undefined) {
      // Each part has its own: one inside the other, they would be as deep as the transaction is long.
      if (partial) transaction.add('RELEASE SAVEPOINT part');
      await transaction.flush();
      this.#open = transaction;
      return;
    }
    if (this.#open !== undefined) await this.#store.advance(transaction, this.#move(batch));
    if (partial) {
      transaction.add(this.#store.settleSql);
      transaction.add('RELEASE SAVEPOINT part');
    }
    await transaction.commit();
    this.#open = undefined;
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
      held: this.#held,
      quarantined: () => this.#inbox.changed(),
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
