/**
 * Compares records with what their sources say now. The expected records stand still at a place of each source while the
 * target, which has applied at least as much, is read; then everything that came meanwhile is taken. A record that this
 * did not concern was the same all that time, and so must be what the target has: what differs is not on its way. It is
 * drift when that is found twice, with a grace period between.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Position } from '../../../core/position.ts';
import { abortableDelay } from '../../../core/run-service.ts';
import { passed } from '../alignment.ts';
import { maskFor } from '../compare-plan.ts';
import { Buckets, bucketOf, formatDigest } from '../digest.ts';
import { INTERRUPTED, type DriftStore } from '../drift-store.ts';
import { compareRows, rowsById, tooMany, type Finding } from '../findings.ts';
import type { FlowOutcome, TableOutcome } from '../outcome.ts';
import { Pace } from '../pace.ts';
import { imagesOf, placeOf, readRows, SHOWN_FINDINGS, type HidesColumn, type RowImages } from '../row-images.ts';
import type { DigestedRow, DriftTarget, KeyTexts, SideTable } from '../side.ts';
import { rowId } from '../touched.ts';
import type { OnRepair } from '../verify-flow.ts';
import { newTableProgress, type TableProgress } from '../verify-table.ts';
import type { ExpectedRecord, ExpectedRecords } from './expected-records.ts';
import { recordPlan, type RecordPlan } from './record-plan.ts';

/** Mends what differs through the normal path. */
export interface RecordRepairer {
  /** Has records passed on once more, or all of them written anew, which takes away what is not among them. */
  rewrite(records: RecordsToMend | 'all', signal: AbortSignal): Promise<void>;
  /** Has the sources' tables read again, for what is wrong before the records are made. */
  reread(signal: AbortSignal): Promise<void>;
}

/** By the values of the columns of their keys. */
export interface RecordsToMend {
  readonly again: readonly KeyTexts[];
  /** Rows of which there is no record. */
  readonly gone: readonly KeyTexts[];
}

export interface RecordVerificationOptions {
  readonly flow: string;
  readonly expected: ExpectedRecords;
  readonly target: DriftTarget;
  readonly store: DriftStore;
  /** Where the target has the records. */
  readonly place: { readonly schema: string; readonly name: string };
  /** Deletes are not applied, so that extra rows are to be expected. */
  readonly ignoreExtra: boolean;
  /** Extra rows are deleted by a repair. */
  readonly deleteExtra: boolean;
  /** Columns of the records whose values are not kept with findings. */
  readonly hides: HidesColumn;
  readonly maxLoad: number;
  readonly graceMs: number;
  /** How long to wait for deliveries that are due by then. */
  readonly deliveryMs: number;
  readonly maxFindings?: number;
  readonly repairer?: RecordRepairer | undefined;
  readonly signal: AbortSignal;
  /** Told before records are asked for again, of how many. */
  readonly onRepair?: OnRepair;
  readonly onTable?: (table: TableOutcome) => void;
  readonly onShare?: (share: number) => void;
}

const MAX_FINDINGS = 10_000;
const MAX_BUCKETS = 65_536;
/** Rows of differing buckets that are fetched at once. */
const MAX_FETCHED = 50_000;
/** Candidates that are confirmed before all rows have been looked at. */
const SETTLE_AT = 2000;
/** Records that are digested before others have their turn. */
const TURN_RECORDS = 1000;
/** So long the first look at what differed waits for deliveries. */
const SOON_MS = 5000;
const TRIES = 6;
const BATCH = 1000;
/** Of a verification the part that is reading the sources. */
const READING = 0.9;

/** Throws classified errors. */
export async function verifyRecords(options: RecordVerificationOptions): Promise<FlowOutcome> {
  const { flow, store, expected, place, signal, repairer } = options;
  const run = await store.begin(false);
  try {
    const comparison = new RecordComparison(options);
    await expected.read((share) => options.onShare?.(share * READING));
    const id = `${place.schema}.${place.name}`;
    run.tables.set(id, comparison.progress);
    await comparison.compare();
    await store.save(run, id);
    const settle = async (): Promise<void> =>
      await store.settle(run, place.schema, place.name, {
        key: expected.key.map((index) => expected.columns[index]!.name),
        images: await comparison.images(),
      });
    await settle();
    options.onShare?.(1);
    let outcome: TableOutcome = comparison.outcome();
    if (repairer !== undefined && comparison.progress.findings.length > 0) {
      const repaired = await repair(comparison, repairer, options);
      outcome = { ...outcome, repaired };
      comparison.progress.findings = [...repaired.left];
      await store.save(run, id);
      await settle();
    }
    options.onTable?.(outcome);
    await store.finish(run, { state: 'done', compared: [id] });
    return { flow, startedAt: run.startedAt, tables: [outcome] };
  } catch (thrown) {
    // What is worked out is gone with this process: there is nothing to be resumed.
    const error = signal.aborted ? INTERRUPTED : thrown instanceof Error ? thrown.message : String(thrown);
    await store.finish(run, { state: 'failed', error }).catch(() => undefined);
    throw thrown;
  }
}

/** Has what differs mended, and looks whether that has helped; extra rows only where the flow says so. */
async function repair(
  comparison: RecordComparison,
  repairer: RecordRepairer,
  { place, deleteExtra, signal, onRepair }: RecordVerificationOptions,
): Promise<{ asked: number; left: readonly Finding[] }> {
  const { progress } = comparison;
  const mendable = (findings: readonly Finding[]): Finding[] =>
    findings.filter(({ kind }) => kind !== 'extra' || deleteExtra);
  const wanted = mendable(progress.findings);
  if (wanted.length === 0) return { asked: 0, left: progress.findings };
  const keys = (extra: boolean): KeyTexts[] =>
    wanted.filter(({ kind }) => (kind === 'extra') === extra).map((finding) => comparison.keyOf(finding));
  // Where more differs than is listed, all is written anew: but not where that takes away rows that are to stay.
  const all = progress.truncated && deleteExtra;
  onRepair?.(place.schema, place.name, wanted.length);
  await repairer.rewrite(all ? 'all' : { again: keys(false), gone: keys(true) }, signal);
  let left = await comparison.lookAgain();
  if (mendable(left).length > 0) {
    await repairer.reread(signal);
    progress.findings = [...left];
    left = await comparison.lookAgain();
  }
  return { asked: wanted.length, left };
}

/** A row that may differ. */
interface Candidate {
  readonly id: string;
  /** As records have it. */
  readonly key: KeyTexts;
}

class RecordComparison {
  readonly progress: TableProgress = newTableProgress();
  readonly #options: RecordVerificationOptions;
  readonly #pace: Pace;
  readonly #plans = new Map<string, RecordPlan>();
  #table: SideTable | undefined;

  constructor(options: RecordVerificationOptions) {
    this.#options = options;
    this.#pace = new Pace(options.maxLoad, options.signal);
  }

  outcome(): TableOutcome {
    const { place, expected } = this.#options;
    return { ...place, progress: this.progress, estimatedRows: expected.size, skippedColumns: [] };
  }

  async compare(): Promise<void> {
    const { expected, target } = this.#options;
    const { progress } = this;
    await this.#align(this.#options.deliveryMs);
    this.#table = await this.#findTable();
    const plan = this.#plan(expected.openInAll());
    const mask = maskFor(expected.size, MAX_BUCKETS);
    const sums = new Buckets(mask);
    await this.#digests(plan, (row) => sums.addRow(row.digest));
    const others =
      this.#table === undefined ? new Buckets(mask) : await target.scan(plan.table, { kind: 'all' }, mask, this.#pace);
    progress.rows = sums.rows;
    progress.buckets = sums.size;
    const differing = sums.differing(others);
    let candidates: Candidate[] = [];
    const seen = new Set<string>();
    for (let at = 0; at < differing.length && !progress.truncated;) {
      const buckets: number[] = [];
      for (let rows = 0; at < differing.length && (rows < MAX_FETCHED || buckets.length === 0); at++) {
        buckets.push(differing[at]!);
        rows += sums.rowsIn(differing[at]!) + others.rowsIn(differing[at]!);
      }
      for (const candidate of await this.#candidates(plan, mask, buckets)) {
        // The two digests of one row may lie in buckets of two portions.
        if (seen.has(candidate.id)) continue;
        seen.add(candidate.id);
        candidates.push(candidate);
      }
      if (candidates.length < SETTLE_AT) continue;
      await this.#settle(candidates);
      candidates = [];
    }
    await this.#settle(candidates);
    progress.leftOut = await expected.leftOut();
    progress.done = true;
  }

  /** Looks at what was found once more; at all records, where more differed than is listed. */
  async lookAgain(): Promise<readonly Finding[]> {
    // The target may have got the table only now.
    this.#table = await this.#findTable();
    this.#plans.clear();
    if (this.progress.truncated) {
      await this.#options.expected.follow({ toLogEnd: true });
      Object.assign(this.progress, newTableProgress());
      await this.compare();
      return this.progress.findings;
    }
    const candidates = this.progress.findings.map((finding): Candidate => ({
      id: finding.id,
      key: this.keyOf(finding),
    }));
    const { findings, unresolved } = await this.#confirm(candidates, Infinity);
    // What changes all the time is not known to be mended.
    this.progress.unresolved += unresolved;
    return findings;
  }

  /** The key of a finding as records have it. */
  keyOf({ key }: Finding): KeyTexts {
    return this.#plan([]).keyOfRow(key!);
  }

  /** Both sides of the first findings, as far as they are still those that were found. */
  async images(): Promise<Map<string, RowImages>> {
    const { expected, target, hides } = this.#options;
    const images = new Map<string, RowImages>();
    const groups = new Map<string, Finding[]>();
    for (const finding of this.progress.findings.slice(0, SHOWN_FINDINGS)) {
      const open = expected.get(this.keyOf(finding)).open.join();
      groups.set(open, [...(groups.get(open) ?? []), finding]);
    }
    for (const findings of groups.values()) {
      const { table, texts } = this.#plan(expected.get(this.keyOf(findings[0]!)).open);
      const source = new Map<string, (string | null)[]>();
      for (const finding of findings) {
        const { values } = expected.get(this.keyOf(finding));
        if (values === undefined) continue;
        const row = texts(values);
        source.set(placeOf(table, row), row);
      }
      const there = this.#table === undefined ? new Map() : await readRows(target, table, findings, this.#pace);
      for (const [id, image] of imagesOf(table, findings, hides, { source, target: there })) images.set(id, image);
    }
    return images;
  }

  /** Waits until the target has what the expected records hold. */
  async #align(deliveryMs: number): Promise<void> {
    const { expected, target, signal } = this.#options;
    const position: Position = await expected.place(deliveryMs);
    await passed(expected, target, position, signal);
    await expected.look();
  }

  async #findTable(): Promise<SideTable | undefined> {
    const { target, place } = this.#options;
    return (await target.tables()).find((table) => table.schema === place.schema && table.name === place.name);
  }

  /** A plan that leaves out what is open; of a table that is not there one is made up, to have digests. */
  #plan(open: readonly number[]): RecordPlan {
    const id = open.join();
    let plan = this.#plans.get(id);
    if (plan === undefined) {
      const { expected, place } = this.#options;
      const { columns, key } = expected;
      const target = this.#table ?? {
        ...place,
        dialect: 'postgres' as const,
        columns: columns.map(({ name, type }) => ({ name, type, base: type, order: undefined })),
        key: key.map((index) => columns[index]!.name),
        estimatedRows: 0,
      };
      plan = recordPlan({ columns, key, target }, new Set(open));
      this.#plans.set(id, plan);
    }
    return plan;
  }

  async #candidates(plan: RecordPlan, mask: number, buckets: readonly number[]): Promise<Candidate[]> {
    const { expected, target, ignoreExtra } = this.#options;
    const wanted = new Set(buckets);
    const here: DigestedRow[] = [];
    await this.#digests(plan, (row) => {
      if (wanted.has(bucketOf(row.digest, mask))) here.push(row);
    });
    const there =
      this.#table === undefined ? [] : (await target.rows(plan.table, { kind: 'all' }, mask, buckets, this.#pace)).rows;
    return compareRows(true, here, there).flatMap(({ id, kind, key }) => {
      const of = plan.keyOfRow(key!);
      if (!expected.owns(of) || (kind === 'extra' && ignoreExtra)) return [];
      return [{ id, key: of }];
    });
  }

  /** Gives the digests of all records, some at a time: others in this process have work of their own. */
  async #digests(plan: RecordPlan, take: (row: DigestedRow) => void): Promise<void> {
    const records = this.#options.expected.all()[Symbol.iterator]();
    for (let done = false; !done;)
      await this.#pace.work(async () => {
        for (let i = 0; i < TURN_RECORDS && !done; i++) {
          const next = records.next();
          if (next.done === true) done = true;
          else take(plan.digest(next.value.values));
        }
        // A turn of the event loop, also where there is no rest.
        await nextTurn();
      });
  }

  async #settle(candidates: readonly Candidate[]): Promise<void> {
    const { maxFindings = MAX_FINDINGS } = this.#options;
    const { progress } = this;
    if (candidates.length === 0) return;
    const limit = maxFindings + 1 - progress.findings.length;
    const { findings, unresolved } = await this.#confirm(candidates, limit);
    progress.findings.push(...findings);
    progress.unresolved += unresolved;
    if (progress.findings.length <= maxFindings) return;
    progress.findings.length = maxFindings;
    progress.truncated = true;
  }

  async #confirm(
    candidates: readonly Candidate[],
    limit: number,
  ): Promise<{ findings: Finding[]; unresolved: number }> {
    const { expected, graceMs, deliveryMs, signal } = this.#options;
    const findings: Finding[] = [];
    let open = candidates;
    for (let attempt = 0; attempt < TRIES && open.length > 0 && findings.length < limit; attempt++) {
      await abortableDelay(graceMs * Math.min(4, 2 ** attempt), signal);
      signal.throwIfAborted();
      // A scan may have seen what the log told of a moment later: by now it has.
      await expected.follow({ toLogEnd: true });
      // What has not changed since the first look has been delivered if it ever will be; what has, where that is soon.
      await this.#align(attempt === 0 ? Math.min(SOON_MS, deliveryMs) : deliveryMs);
      const differing = await this.#lookUp(open);
      const touched = await expected.follow();
      const again: Candidate[] = [];
      for (const candidate of open) {
        const finding = differing.get(candidate.id);
        if (finding === undefined) this.progress.inFlightBuckets += 1;
        else if (touched.has(rowId(candidate.key))) again.push(candidate);
        else findings.push(finding);
      }
      open = again;
    }
    return { findings, unresolved: open.length };
  }

  /** What differs of these records now, by id. Rows are looked up by what of them can be compared. */
  async #lookUp(candidates: readonly Candidate[]): Promise<Map<string, Finding>> {
    const { expected, target, ignoreExtra } = this.#options;
    const groups = new Map<string, { plan: RecordPlan; wanted: (Candidate & { record: ExpectedRecord })[] }>();
    for (const candidate of candidates) {
      const record = expected.get(candidate.key);
      const id = record.open.join();
      const group = groups.get(id) ?? { plan: this.#plan(record.open), wanted: [] };
      group.wanted.push({ ...candidate, record });
      groups.set(id, group);
    }
    const differing = new Map<string, Finding>();
    for (const { plan, wanted } of groups.values())
      for (let at = 0; at < wanted.length; at += BATCH) {
        const batch = wanted.slice(at, at + BATCH);
        const keys = batch.map(({ id }) => JSON.parse(id) as string[]);
        const reading =
          this.#table === undefined ? [] : (await this.#pace.work(() => target.lookUp(plan.table, keys))).result.rows;
        const there = rowsById(reading);
        for (const { id, record } of batch) {
          const finding = compareOne(id, plan, record, there.get(id) ?? []);
          if (finding !== undefined && !(finding.kind === 'extra' && ignoreExtra)) differing.set(id, finding);
        }
      }
    return differing;
  }
}

function compareOne(
  id: string,
  plan: RecordPlan,
  { values, maybe }: ExpectedRecord,
  rows: readonly DigestedRow[],
): Finding | undefined {
  const key = JSON.parse(id) as string[];
  const [row] = rows;
  const found = row === undefined ? {} : { targetDigest: formatDigest(row.digest) };
  if (values === undefined)
    return row === undefined || maybe ? undefined : { id, key, kind: 'extra', copies: rows.length, ...found };
  const sourceDigest = formatDigest(plan.digest(values).digest);
  if (rows.length > 1) return { id, key, sourceDigest, ...tooMany(rows) };
  if (row === undefined) return maybe ? undefined : { id, key, kind: 'missing', copies: 1, sourceDigest };
  if (found.targetDigest === sourceDigest) return undefined;
  return { id, key, kind: 'different', copies: 1, sourceDigest, ...found };
}
