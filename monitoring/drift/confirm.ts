/**
 * Tells drift from changes in flight. A row counts as drift only when it still differs after a grace period, in a
 * source snapshot S and a target snapshot that reflects position T ≥ S, *and* the stream shows no change of it from the
 * beginning of the grace period up to T. Then the source's row was the same all that time, and the target had every
 * change of it: what differs is not on its way.
 */
import type { Nats } from '../../core/nats.ts';
import { ORIGIN, type Position } from '../../core/position.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { passed } from './alignment.ts';
import type { ComparePlan } from './compare-plan.ts';
import { bucketOf, parseDigest } from './digest.ts';
import { compareRows, type Finding } from './findings.ts';
import type { Pace } from './pace.ts';
import type { DriftSource, DriftTarget, Reading } from './side.ts';
import { readTouched } from './touched.ts';

export interface Comparison {
  readonly source: DriftSource;
  readonly target: DriftTarget;
  readonly nats: Nats;
  /** The stream of the source. */
  readonly stream: string;
  readonly pace: Pace;
  readonly graceMs: number;
  /** Extra rows are what the flow is told to leave. */
  readonly ignoreExtra: boolean;
  /** A place of the log that lies so far back that every transaction which ended there is visible by now. */
  readonly lookBack: LookBack;
}

/** Remembers ends of the log, to name one of about a minute ago. */
export class LookBack {
  readonly #noted: { readonly position: Position; readonly atMs: number }[] = [];

  note(position: Position): void {
    const atMs = performance.now();
    this.#noted.push({ position, atMs });
    while (this.#noted.length > 1 && this.#noted[1]!.atMs < atMs - LOOK_BACK_MS) this.#noted.shift();
  }

  get position(): Position {
    return this.#noted[0]?.position ?? ORIGIN;
  }
}

const LOOK_BACK_MS = 60_000;

export interface Confirmed {
  readonly findings: readonly Finding[];
  /** Rows that differed every time and changed every time: neither proven equal nor drift. */
  readonly unresolved: number;
}

const TRIES = 6;
const BATCH = 1000;

/**
 * Reads the rows of `candidates` again until each is confirmed, gone, or has changed at every look; stops early when
 * `limit` are confirmed.
 */
export async function confirm(
  comparison: Comparison,
  plan: ComparePlan,
  candidates: readonly Finding[],
  limit = Infinity,
): Promise<Confirmed> {
  const findings: Finding[] = [];
  let open = candidates;
  for (let attempt = 0; attempt < TRIES && open.length > 0; attempt++) {
    const from = await comparison.source.horizon();
    const lookBack = await lookBackOf(comparison, from);
    await abortableDelay(comparison.graceMs * Math.min(4, 2 ** attempt), comparison.pace.signal);
    comparison.pace.signal.throwIfAborted();
    const inFlight: Finding[] = [];
    for (let at = 0; at < open.length && findings.length < limit; at += BATCH) {
      const batch = open.slice(at, at + BATCH);
      const { still, isTouched } = await readAgain(comparison, plan, batch, { lookBack, from });
      const before = new Map(batch.map((finding) => [finding.id, finding.sourceDigest]));
      for (const finding of still)
        // Some sources show a change a moment before their log does: only a row that was seen twice stood still.
        if (isTouched(finding.id) || before.get(finding.id) !== finding.sourceDigest) inFlight.push(finding);
        else findings.push(finding);
    }
    open = inFlight;
  }
  return { findings, unresolved: open.length };
}

/**
 * Where to begin to look for changes. The logs of MySQL and MariaDB have no order but that of the stream: there it is
 * where the target stands, and what it has yet to apply comes behind.
 */
async function lookBackOf({ lookBack, target }: Comparison, from: Position): Promise<Position> {
  if (from.kind !== 'pg') return (await target.position()) ?? ORIGIN;
  lookBack.note(from);
  return lookBack.position;
}

async function readAgain(
  { source, target, nats, stream, pace, ignoreExtra }: Comparison,
  plan: ComparePlan,
  batch: readonly Finding[],
  since: { readonly lookBack: Position; readonly from: Position },
): Promise<{ still: Finding[]; isTouched: (id: string) => boolean }> {
  const ids = new Set(batch.map((finding) => finding.id));
  const before = await readSide(source, plan.source, batch, pace);
  await passed(source, target, await source.watermark(), pace.signal);
  const after = plan.target === undefined ? await bare(target) : await readSide(target, plan.target, batch, pace);
  const still = compareRows(plan.keyed, before.rows, after.rows).filter(
    (finding) => ids.has(finding.id) && !(ignoreExtra && finding.kind === 'extra'),
  );
  if (still.length === 0 || after.position === undefined) return { still: [], isTouched: () => false };
  const touched = await readTouched(nats, stream, plan.source, {
    ...since,
    to: after.position,
    inProgress: before.inProgress ?? new Set(),
  });
  return { still, isTouched: (id) => touched.has(id) };
}

async function bare(target: DriftTarget): Promise<Reading> {
  const position = await target.position();
  return { rows: [], ...(position === undefined ? {} : { position }) };
}

/** The rows that findings name: by their keys, or by their digests where there is no key. */
async function readSide(
  side: DriftSource | DriftTarget,
  table: ComparePlan['source'],
  batch: readonly Finding[],
  pace: Pace,
): Promise<Reading> {
  if (table.key.length > 0)
    return (
      await pace.work(() =>
        side.lookUp(
          table,
          batch.map((finding) => finding.key!),
        ),
      )
    ).result;
  // So many buckets that hardly any row but those that are looked for falls into one of theirs, however large the table.
  const mask = 0x7fffffff;
  const buckets = batch.map(({ id }) => bucketOf(parseDigest(id), mask));
  return await side.rows(table, { kind: 'all' }, mask, [...new Set(buckets)], pace);
}
