/**
 * Compares one table: scope by scope (ranges of its key, or the whole table where keys do not sort the same), sums by
 * bucket on both sides, then the rows of buckets that differ, then those rows again until they are confirmed.
 */
import type { Position } from '../../core/position.ts';
import { passed } from './alignment.ts';
import { maskFor, type ComparePlan } from './compare-plan.ts';
import { confirm, type Comparison } from './confirm.ts';
import { bucketOf, Buckets, parseDigest } from './digest.ts';
import { compareRows, type Finding } from './findings.ts';
import { PieceSize } from './pace.ts';
import type { LeftOut } from './records/expected-records.ts';
import type { DriftSource, KeyTexts, Scope } from './side.ts';

/** How far a table is: what a restart needs to go on. */
export interface TableProgress {
  /** Everything up to this key has been compared; null before the first range. */
  cursor: KeyTexts | null;
  rows: number;
  buckets: number;
  /** Buckets that differed only because of changes under way. */
  inFlightBuckets: number;
  unresolved: number;
  /** Rows that differed and wait to be read again. */
  candidates: Finding[];
  findings: Finding[];
  /** More rows differ than are listed. */
  truncated: boolean;
  done: boolean;
  /** Of records: what was not compared, and why. */
  leftOut?: readonly LeftOut[];
}

export function newTableProgress(): TableProgress {
  return {
    cursor: null,
    rows: 0,
    buckets: 0,
    inFlightBuckets: 0,
    unresolved: 0,
    candidates: [],
    findings: [],
    truncated: false,
    done: false,
  };
}

export interface TableVerification extends Comparison {
  readonly plan: ComparePlan;
  /** A second session of the source: it reads the next range while the first one answers questions about this one. */
  readonly scanner: DriftSource;
  readonly progress: TableProgress;
  /** Findings beyond this are not listed, and end the comparison of the table. */
  readonly maxFindings: number;
  /** Told after each range, with the progress to store. */
  readonly onProgress: (progress: TableProgress) => Promise<void>;
}

const FIRST_ROWS = 5000;
const MAX_ROWS = 200_000;
const RANGE_MS = 300;
const MAX_BUCKETS_ALL = 65_536;
const MAX_BUCKETS_RANGE = 1024;
/** Rows of differing buckets that are fetched at once: what bounds memory where all of a table differs. */
const MAX_FETCHED = 50_000;
/** Candidates that are confirmed before the table is through. */
const SETTLE_AT = 2000;

export async function verifyTable(options: TableVerification): Promise<void> {
  const { plan, progress } = options;
  if (progress.done) return;
  if (plan.ranged) await verifyRanges(options);
  else await verifyWhole(options);
  await settle(options);
  // Of rows that lack a column it is not known whether they agree.
  if (plan.lacking.length > 0) progress.unresolved = Math.max(progress.unresolved, progress.rows);
  progress.done = true;
  await options.onProgress(progress);
}

interface SourceSums {
  readonly scope: Scope;
  readonly sums: Buckets;
  readonly watermark: Position;
}

async function verifyRanges(options: TableVerification): Promise<void> {
  const { plan, progress, scanner, pace, onProgress } = options;
  const size = new PieceSize(FIRST_ROWS, MAX_ROWS, RANGE_MS);
  let after = progress.cursor;
  // The target compares one range while the source reads the next.
  let comparing: Promise<void> = Promise.resolve();
  for (let last = false; !last && !progress.truncated;) {
    const upTo = (await scanner.boundary(plan.source, after, size.size)) ?? null;
    last = upTo === null;
    const scope: Scope = { kind: 'range', after, upTo };
    const started = performance.now();
    let restedMs = 0;
    const read = async (): Promise<SourceSums> => {
      const mask = maskFor(size.size, MAX_BUCKETS_RANGE);
      const sums = await scanner.scan(plan.source, scope, mask, pace);
      restedMs = performance.now() - started;
      return { scope, sums, watermark: await scanner.watermark() };
    };
    const [sums] = await Promise.all([read(), comparing]);
    size.took(restedMs * pace.maxLoad);
    comparing = (async () => {
      await compareScope(options, sums);
      progress.cursor = upTo;
      await onProgress(progress);
    })();
    // Its failure is thrown where it is awaited.
    comparing.catch(() => undefined);
    after = upTo;
  }
  await comparing;
}

async function verifyWhole(options: TableVerification): Promise<void> {
  const { plan, source, pace } = options;
  const mask = maskFor(plan.estimatedRows, MAX_BUCKETS_ALL);
  const sums = await source.scan(plan.source, { kind: 'all' }, mask, pace);
  await compareScope(options, { scope: { kind: 'all' }, sums, watermark: await source.watermark() });
}

async function compareScope(options: TableVerification, { scope, sums, watermark }: SourceSums): Promise<void> {
  const { plan, progress, source, target, pace } = options;
  await passed(source, target, watermark, pace.signal);
  const others =
    plan.target === undefined ? new Buckets(sums.mask) : await target.scan(plan.target, scope, sums.mask, pace);
  progress.rows += sums.rows;
  progress.buckets += sums.size;
  const differing = sums.differing(others);
  // The rows behind buckets that differ, in portions that bound memory where all of a table differs.
  for (let at = 0; at < differing.length && !progress.truncated;) {
    const buckets: number[] = [];
    for (let rows = 0; at < differing.length && (rows < MAX_FETCHED || buckets.length === 0); at++) {
      buckets.push(differing[at]!);
      rows += sums.rowsIn(differing[at]!) + others.rowsIn(differing[at]!);
    }
    await findCandidates(options, scope, sums.mask, buckets);
    if (progress.candidates.length >= SETTLE_AT) await settle(options);
  }
}

async function findCandidates(
  { plan, source, target, pace, ignoreExtra, progress }: TableVerification,
  scope: Scope,
  mask: number,
  buckets: readonly number[],
): Promise<void> {
  const here = await source.rows(plan.source, scope, mask, buckets, pace);
  await passed(source, target, await source.watermark(), pace.signal);
  const there = plan.target === undefined ? { rows: [] } : await target.rows(plan.target, scope, mask, buckets, pace);
  const found = compareRows(plan.keyed, here.rows, there.rows).filter(
    (finding) => !(ignoreExtra && finding.kind === 'extra'),
  );
  const explained = new Set<number>();
  for (const { sourceDigest, targetDigest } of found)
    for (const digest of [sourceDigest, targetDigest])
      if (digest !== undefined) explained.add(bucketOf(parseDigest(digest), mask));
  progress.inFlightBuckets += buckets.filter((bucket) => !explained.has(bucket)).length;
  // The two digests of one row may lie in buckets of two portions, which would name it twice.
  const known = new Set([...progress.candidates, ...progress.findings].map((finding) => finding.id));
  progress.candidates.push(...found.filter((finding) => !known.has(finding.id)));
}

/** Confirms the candidates, or finds that they were changes under way. */
async function settle(options: TableVerification): Promise<void> {
  const { plan, progress, maxFindings } = options;
  const { candidates } = progress;
  if (candidates.length === 0) return;
  const { findings, unresolved } = await confirm(options, plan, candidates, maxFindings + 1 - progress.findings.length);
  progress.candidates = [];
  progress.inFlightBuckets += Math.max(0, candidates.length - findings.length);
  progress.unresolved += unresolved;
  progress.findings.push(...findings);
  if (progress.findings.length <= maxFindings) return;
  progress.findings.length = maxFindings;
  progress.truncated = true;
}
