/** What is left to be read of a snapshot, and in which order: asked for first, then small, then in ranges of keys. */
import type { SnapshotTask } from '../snapshot-loop.ts';
import type { TableProgress } from '../snapshot-request.ts';
import { TableNews, TablesAtWork } from '../table-news.ts';
import { nameOf, type RangeJob } from './table-job.ts';
import { TableQueue } from './table-queue.ts';

/** Tables that are read together at most: what one of them meets may have all of them read again, one by one. */
const MOST_TOGETHER = 32;

/** What a connection is to do next: begin with a table, read small ones whole, or read a range of one that was begun. */
export type Step =
  | { readonly kind: 'asked' | 'table'; readonly table: TableProgress }
  | { readonly kind: 'small'; readonly tables: readonly TableProgress[] }
  | { readonly kind: 'range'; readonly job: RangeJob };

export class SnapshotPlan {
  readonly news: TableNews;
  /** The tables that nobody has begun. */
  readonly queue = new TableQueue();
  readonly #task: SnapshotTask;
  readonly #isFed: () => boolean;
  readonly #atWork = new TablesAtWork();
  /** As they were when news was looked for last. */
  #seen: readonly TableProgress[];
  /** Those that were asked for since this run began. */
  #asked: TableProgress[] = [];
  /** Ranges of tables that were begun. */
  #ranges: RangeJob[] = [];

  /** `isFed`: whether what was read keeps the flows busy. */
  constructor(task: SnapshotTask, isFed: () => boolean) {
    this.#task = task;
    this.#isFed = isFed;
    this.news = new TableNews(task);
    this.#seen = task.progress.tables;
  }

  /**
   * The next step; undefined where one has to wait for others, or where nothing is left. Small tables are read together as
   * long as they fit into `bytesTogether`; undefined: each by itself.
   */
  next(bytesTogether: number | undefined): Step | undefined {
    this.#lookForNews();
    const asked = this.#asked.shift();
    if (asked !== undefined) return { kind: 'asked', table: asked };
    const small = bytesTogether === undefined ? [] : this.queue.takeSmall(MOST_TOGETHER, bytesTogether);
    if (small.length > 0) return { kind: 'small', tables: small };
    const [range] = this.#ranges;
    // One that came later and is smaller than what is being read need not wait for it.
    const table = this.queue.take(range === undefined ? Infinity : this.queue.sizeOf(range.job.table));
    if (table !== undefined) return { kind: 'table', table };
    // A target takes rows in the order of their keys with less effort: other ranges of a table are begun when the flows
    // would otherwise have nothing to do.
    if (range === undefined || (range.job.copying > 0 && this.#isFed())) return undefined;
    this.#ranges.shift();
    return { kind: 'range', job: range };
  }

  /** Does what a step asks for. No other reading of these tables begins meanwhile. */
  async during(step: Step, work: () => Promise<void>): Promise<void> {
    await this.#atWork.during(tablesOf(step), work);
  }

  /** Looks for tables that are asked for meanwhile, and lets go of those that others have taken the place of. */
  #lookForNews(): void {
    const { tables } = this.#task.progress;
    if (tables !== this.#seen) this.queue.keep((table) => tables.includes(table));
    this.#seen = tables;
    for (const { job } of this.#ranges) if (!tables.includes(job.table)) job.open -= 1;
    this.#ranges = this.#ranges.filter(({ job }) => tables.includes(job.table));
    // The end of a reading says something of all that came since the last beginning: of a table one at a time.
    const mayBegin = (table: TableProgress): boolean =>
      table.keys !== undefined ||
      (!this.#atWork.has(table) && !this.#ranges.some(({ job }) => nameOf(job.table) === nameOf(table)));
    this.#asked.push(...this.news.take(mayBegin));
  }

  /** The tables of which something is to be begun. */
  get left(): TableProgress[] {
    return [...this.#asked, ...this.queue.waiting, ...this.#ranges.map(({ job }) => job.table)];
  }

  /** Adds ranges of a table, before or behind those of others. */
  addRanges(jobs: readonly RangeJob[], first: boolean): void {
    this.#ranges = first ? [...jobs, ...this.#ranges] : [...this.#ranges, ...jobs];
  }

  /** Adds what is left of a range, at its place among those of its table. */
  addRest(rest: RangeJob): void {
    const next = this.#ranges.findIndex(({ job, place }) => job === rest.job && place > rest.place);
    this.#ranges.splice(Math.max(0, next), 0, rest);
  }
}

function tablesOf(step: Step): readonly TableProgress[] {
  if (step.kind === 'small') return step.tables;
  return [step.kind === 'range' ? step.job.job.table : step.table];
}
