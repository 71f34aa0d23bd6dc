/**
 * Begins the state of a flow with the one that was saved last: as it was, where the plan is the same; else with the rows that
 * another plan kept, of which all records are made anew.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { ReplicationError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import type { Nats } from '../core/nats.ts';
import type { Checkpoint } from './checkpoint.ts';
import type { FlowPlan } from './flow-plan.ts';
import { FlowState } from './flow-state.ts';
import { keptParts, layoutOf, type KeptPart } from './kept-layout.ts';
import { KeptRows } from './kept-rows.ts';
import { StateRestorer } from './saved-state.ts';
import { findHistory, historyAfter, type History } from './source-history.ts';
import type { SourceState } from './source-state.ts';
import type { SavedState, StateStore } from './state-store.ts';

export interface BeginOptions {
  readonly plan: FlowPlan;
  readonly nats: Nats;
  readonly prefix: string;
  readonly installation: string;
  readonly store: StateStore;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** A state at its beginning. */
export interface Begun {
  readonly state: FlowState;
  /** The frames that are to be read, of each source. */
  readonly histories: ReadonlyMap<SourceState, History>;
  /** The saved state that it is, if it is one as it was. */
  readonly saved: SavedState | undefined;
  /** Some of it are rows that another plan kept: all records are to be written anew. */
  readonly remade: boolean;
}

/**
 * The state to go on with, and from where. What is in no saved state is made of frames: throws `transform_history` where they
 * do not reach back. Of no use when the signal has aborted.
 */
export async function beginState(options: BeginOptions): Promise<Begun> {
  const { plan, store, installation } = options;
  const saved = await store.latest();
  const begun = saved === undefined ? undefined : await fromSaved(options, saved);
  if (begun !== undefined) return begun;
  const state = new FlowState(plan, installation);
  return { state, histories: await withHistories(options, state, new Map()), saved: undefined, remade: false };
}

async function fromSaved(options: BeginOptions, saved: SavedState): Promise<Begun | undefined> {
  const { plan, log, installation } = options;
  const state = new FlowState(plan, installation);
  const { checkpoint } = saved;
  state.clockUs = checkpoint.clockUs;
  const follow = await whatFollows(options, state, checkpoint);
  const isSame =
    checkpoint.plan === plan.fingerprint && plan.tiers.delayed.every((tier) => checkpoint.tiers.has(tier.id));
  if (isSame && follow.size === state.sources.length) return await asItWas(options, state, saved, follow);
  const { layout } = saved;
  if (layout === undefined) return undefined;
  const parts = keptParts(layout, layoutOf(state));
  for (const [number, { source }] of parts) {
    const isThere = [...follow.keys()].some(({ name }) => name === source);
    if (!isThere) parts.delete(number);
  }
  if (parts.size === 0) return undefined;
  const merges = [...plan.ownership.rules.values()].map((rule) => (rule.kind === 'merge' ? rule.merge.merge : ''));
  // What has been counted of the changes of one source cannot be told from that of the others.
  if (merges.includes('delta') && parts.size < state.sources.length) return undefined;
  // Who wrote last, and what changed: of that frames tell more than rows do.
  if (merges.some((merge) => merge === 'delta' || merge === 'lww') && (await reachBack(options, state)))
    return undefined;
  log.info(
    { flow: plan.name, sources: [...parts.values()].map(({ source }) => source) },
    'records are made of kept rows',
  );
  return await ofRows(options, state, saved, { parts, follow });
}

/** The frames behind the places of a saved state, of each source where they follow on it. */
async function whatFollows(
  { nats, prefix, log }: BeginOptions,
  state: FlowState,
  checkpoint: Checkpoint,
): Promise<Map<SourceState, History>> {
  const follow = new Map<SourceState, History>();
  for (const source of state.sources) {
    const place = checkpoint.sources.get(source.name);
    const history = place === undefined ? undefined : await historyAfter(nats, prefix, source.name, place);
    if (history !== undefined) follow.set(source, history);
    else log.info({ source: source.name }, 'the saved state is of no use: the frames do not follow on it');
  }
  return follow;
}

async function asItWas(
  { plan, store, log }: BeginOptions,
  state: FlowState,
  saved: SavedState,
  histories: ReadonlyMap<SourceState, History>,
): Promise<Begun | undefined> {
  const { checkpoint } = saved;
  const restorer = new StateRestorer(state);
  if (!(await store.read(saved, (line) => restorer.take(line)))) {
    log.warn({ flow: plan.name }, 'the saved state is not whole: the state is made from frames');
    return undefined;
  }
  restorer.done();
  for (const source of state.sources) source.restore(checkpoint.sources.get(source.name)!);
  for (const [tier, release] of checkpoint.tiers) state.released.set(tier, release);
  return { state, histories, saved, remade: false };
}

async function ofRows(
  options: BeginOptions,
  state: FlowState,
  saved: SavedState,
  { parts, follow }: { parts: ReadonlyMap<number, KeptPart>; follow: ReadonlyMap<SourceState, History> },
): Promise<Begun | undefined> {
  const { plan, store, log, signal } = options;
  const { sources: places } = saved.checkpoint;
  const rows = new KeptRows(state, saved.layout!, parts);
  if (!(await store.read(saved, (line) => rows.take(line)))) {
    log.warn({ flow: plan.name }, 'the saved state is not whole: the state is made from frames');
    return undefined;
  }
  for (const _ of rows.made(places)) {
    if (signal.aborted) break;
    await turn();
  }
  const kept = new Map<SourceState, History>();
  for (const { source: name } of parts.values()) {
    const source = state.sources.find((each) => each.name === name)!;
    source.restore(places.get(name)!);
    kept.set(source, follow.get(source)!);
  }
  return { state, histories: await withHistories(options, state, kept), saved: undefined, remade: true };
}

/** `known`, and of the other sources the frames from their beginning. */
async function withHistories(
  { nats, prefix }: BeginOptions,
  state: FlowState,
  known: ReadonlyMap<SourceState, History>,
): Promise<Map<SourceState, History>> {
  const histories = new Map<SourceState, History>();
  for (const source of state.sources)
    histories.set(source, known.get(source) ?? (await findHistory(nats, prefix, source.name)));
  return histories;
}

/** Whether the frames of all sources reach back to their beginning. */
async function reachBack({ nats, prefix }: BeginOptions, state: FlowState): Promise<boolean> {
  try {
    for (const source of state.sources) if (!(await findHistory(nats, prefix, source.name)).whole) return false;
    return true;
  } catch (thrown) {
    if (thrown instanceof ReplicationError && thrown.code === 'transform_history') return false;
    throw thrown;
  }
}
