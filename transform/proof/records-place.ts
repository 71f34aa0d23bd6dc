/** Where the stream of records stands, as against its sources: what a target must have applied to be compared with them. */
import { askForProgress } from '../../core/asked-progress.ts';
import { canonicalStreamName } from '../../core/canonical-stream.ts';
import { readTail } from '../../core/cdc-stream.ts';
import { ReplicationError } from '../../core/errors.ts';
import type { Nats } from '../../core/nats.ts';
import { describePosition, hasReached, type Position } from '../../core/position.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { parseCheckpoint, type Checkpoint, type Places, type Release } from '../checkpoint.ts';
import type { Tier } from '../delivery-tiers.ts';
import type { FlowPlan } from '../flow-plan.ts';

/** How much of the sources is in records. */
export interface SourcesAt {
  readonly positions: ReadonlyMap<string, Position>;
  /** The time at which a row expired last, without a word in any log: microseconds since 1970, 0 where none has. */
  readonly expiredUs: number;
}

export interface RecordsPlace {
  /** A target that stands here has the records of all that was asked for. */
  readonly position: Position;
  /** Tiers for which changes up to `at` may still wait. */
  waitingSince(at: SourcesAt): Tier[];
}

export interface RecordsPlaceOptions {
  readonly plan: FlowPlan;
  readonly nats: Nats;
  readonly prefix: string;
  /** What the records are to hold of each source. */
  readonly at: SourcesAt;
  /** How long to wait for deliveries that are due by then, in milliseconds. */
  readonly tierWaitMs: number;
  readonly nudge: () => Promise<void>;
  readonly signal: AbortSignal;
  readonly stallMs?: number;
}

const STALL_MS = 120_000;
const NUDGE_EVERY_MS = 5000;
/** A transform that has no records to write tells how far it is when it is asked. */
const ASK_EVERY_MS = 1000;
/** One that is not heard to be asked does so no later than this. */
const QUIET_MS = 15_000;
const FIRST_POLL_MS = 20;
const MOST_POLL_MS = 500;

/** Waits until the stream of records holds everything up to `at`. Throws `verify_stalled` when it stands still. */
export async function recordsPlace(options: RecordsPlaceOptions): Promise<RecordsPlace> {
  const { plan, nats, prefix, at, tierWaitMs, nudge, signal, stallMs = STALL_MS } = options;
  const stream = canonicalStreamName(prefix, plan.entity.name);
  const started = performance.now();
  let movedMs = started;
  let nudgedMs = started;
  let askedMs = -Infinity;
  let last = '';
  const due = plan.tiers.delayed.filter((tier) => isDueWithin(tier, tierWaitMs));
  for (let pollMs = FIRST_POLL_MS; ; pollMs = Math.min(MOST_POLL_MS, pollMs * 1.5)) {
    const tail = await readTail(nats, stream);
    const now = performance.now();
    const text = tail.checkpoint ?? '';
    if (text !== last) {
      last = text;
      movedMs = now;
    }
    const checkpoint = text === '' ? undefined : parseCheckpoint(text, `${stream} sequence ${tail.seq}`);
    if (checkpoint?.plan === plan.fingerprint && holds(checkpoint, at)) {
      const place = { position: tail.end, waitingSince: (since: SourcesAt) => waiting(plan, checkpoint, since) };
      const late = now - started > tierWaitMs + QUIET_MS;
      if (late || !place.waitingSince(at).some((tier) => due.includes(tier))) return place;
    } else if (now - movedMs > stallMs)
      throw new ReplicationError('verify_stalled', whyStalled(plan, checkpoint, at, stallMs));
    if (now - askedMs > ASK_EVERY_MS) {
      askedMs = now;
      askForProgress(nats, prefix, 'transform', plan.name);
    }
    if (now - nudgedMs > NUDGE_EVERY_MS) {
      nudgedMs = now;
      await nudge();
    }
    await abortableDelay(pollMs, signal);
    signal.throwIfAborted();
  }
}

function isDueWithin(tier: Tier, ms: number): boolean {
  const nowUs = Date.now() * 1000;
  return tier.dueAfter(nowUs) - nowUs <= ms * 1000;
}

function holds({ sources, clockUs }: Release, { positions, expiredUs }: SourcesAt): boolean {
  return clockUs >= expiredUs && [...positions].every(([source, position]) => hasCome(sources, source, position));
}

function hasCome(places: Places, source: string, position: Position): boolean {
  const place = places.get(source);
  return place !== undefined && hasReached(place.position, position);
}

function waiting(plan: FlowPlan, { tiers }: Checkpoint, at: SourcesAt): Tier[] {
  return plan.tiers.delayed.filter((tier) => {
    const release = tiers.get(tier.id);
    return release === undefined || !holds(release, at);
  });
}

function whyStalled(
  plan: FlowPlan,
  checkpoint: Checkpoint | undefined,
  { positions }: SourcesAt,
  stallMs: number,
): string {
  const seconds = `in ${Math.round(stallMs / 1000)} s`;
  if (checkpoint === undefined) return `flow ${plan.name} has given no records ${seconds}`;
  if (checkpoint.plan !== plan.fingerprint)
    return `the transform of ${plan.name} works by another mapping, owners, tenant or delivery than the configuration says, and wrote nothing anew ${seconds}`;
  const late = [...positions].find(([name, position]) => !hasCome(checkpoint.sources, name, position));
  if (late === undefined) return `the transform of ${plan.name} let no rows expire ${seconds}`;
  const [source, position] = late;
  return `the records of ${plan.name} did not come to ${describePosition(position)} of ${source} ${seconds}`;
}
