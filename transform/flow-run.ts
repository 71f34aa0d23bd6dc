/**
 * One run of a canonical flow. First its state is brought back, from where it was saved last or from the first frames of its
 * sources on: in silence up to the
 * checkpoint that the stream of records holds, or, where there is none that fits, up to their ends, whereupon all records
 * are written anew. Then every transaction of a source becomes a transaction of records.
 */
import { hearProgressAsked } from '../core/asked-progress.ts';
import { keptSequences, type StreamTail } from '../core/cdc-stream.ts';
import type { FramePublisher } from '../core/frame-publisher.ts';
import type { FrameWriter } from '../core/frame-writer.ts';
import type { Logger } from '../core/logger.ts';
import type { TransformReport } from '../core/metrics.ts';
import type { Nats } from '../core/nats.ts';
import { describePosition, orderPositions } from '../core/position.ts';
import { BETWEEN, formatCheckpoint, parseCheckpoint, type Checkpoint, type Places } from './checkpoint.ts';
import type { Passing } from './delivery.ts';
import type { Tier } from './delivery-tiers.ts';
import { compareReleases, DueTiers, isSameRelease } from './due-tiers.ts';
import { beginState } from './begin-state.ts';
import { BreachTeller } from './breach-teller.ts';
import type { FlowPlan } from './flow-plan.ts';
import { FlowState, type Outcome } from './flow-state.ts';
import { HeldTeller, isShown } from './held-teller.ts';
import { layoutOf } from './kept-layout.ts';
import { Output } from './output.ts';
import { RecordRows } from './record-rows.ts';
import type { RecordValues } from './canonical/entity.ts';
import type { ResolvedChange } from './ownership/resolved.ts';
import { passedAgain } from './passed-again.ts';
import type { AgainRequest } from './request.ts';
import { SalesRate } from './sales-rate.ts';
import { SourceFeed } from './source-feed.ts';
import { leadsTo, type History } from './source-history.ts';
import type { SourceState } from './source-state.ts';
import { vanishedRecords } from './vanished-records.ts';
import { StateSaver } from './state-saver.ts';
import type { StateStore } from './state-store.ts';
import { Waker } from './waker.ts';

const TICK_MS = 1000;
/** Most bytes of a transaction of records, give or take one: it goes in one frame, which is whole or not there. */
const TRANSACTION_BYTES = 16 << 20;
/** After so long without records the checkpoint is stored by itself, so that a restart has less to read again. */
const QUIET_MS = 10_000;
/** The state is saved so often, where anything has come, so that a restart reads few frames again. */
const SAVE_MS = 300_000;

export interface FlowRunOptions {
  readonly plan: FlowPlan;
  readonly nats: Nats;
  readonly prefix: string;
  /** Id of this installation: what it wrote into its sources is told apart by it. */
  readonly installation: string;
  readonly store: StateStore;
  /** How often the state is saved, in milliseconds; left out: every five minutes. */
  readonly saveMs?: number;
  readonly publisher: FramePublisher;
  readonly tail: StreamTail;
  /** Write all records anew, though the checkpoint fits. */
  readonly anew: boolean;
  /** Names the run that writes all records anew. */
  readonly runId: string;
  readonly report: TransformReport;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly progressed: () => void;
  /** Called when all records have been written anew, with the sequence of the first frame that did so. */
  readonly onAnew: (seq: number) => Promise<void>;
  /** Asked once a second: true ends the run, so that another one writes all records anew. */
  readonly wantsAnew: () => Promise<boolean>;
  /** Asked once a second: records that are to be passed on once more. */
  readonly wantedAgain: () => Promise<AgainRequest | undefined>;
  /** Called when they have been. */
  readonly onAgain: (request: AgainRequest) => Promise<void>;
}

export async function runFlow(options: FlowRunOptions): Promise<void> {
  const ended = new AbortController();
  const run = new FlowRun(options, AbortSignal.any([options.signal, ended.signal]));
  const { nats, prefix, plan } = options;
  const asked = hearProgressAsked(nats, prefix, 'transform', plan.name, () => run.tellPlace());
  try {
    await run.run();
  } finally {
    ended.abort();
    asked.unsubscribe();
    await run.ended();
  }
}

class FlowRun {
  readonly #options: FlowRunOptions;
  readonly #signal: AbortSignal;
  #state: FlowState;
  readonly #rows: RecordRows;
  readonly #output: Output;
  readonly #feeds = new Map<SourceState, SourceFeed>();
  #histories: ReadonlyMap<SourceState, History> = new Map();
  readonly #waker: Waker;
  /** All records are being written anew: the stream holds a part of them. */
  #incomplete = false;
  /** The source of which a transaction is passed on in pieces. */
  #partly: SourceState | undefined;
  #tickMs = 0;
  /** Somebody waits to hear how far this is. */
  #asked = false;
  /** Up to here everything that expires has been seen to, and the checkpoint says so: what a clock ahead of it left out comes again. */
  #expiredUs = 0;
  readonly #due = new DueTiers();
  readonly #saver: StateSaver;
  readonly #sales: SalesRate | undefined;
  readonly #breaches: BreachTeller;
  readonly #held: HeldTeller;
  /** What is held is being written anew: a target has a part of it. */
  #heldIncomplete = false;
  /** Which owners were silent, in the records that have been passed on. */
  #standing = '';

  constructor(options: FlowRunOptions, signal: AbortSignal) {
    const { plan, publisher, tail, report, installation } = options;
    this.#options = options;
    this.#signal = signal;
    this.#state = new FlowState(plan, installation);
    this.#waker = new Waker(signal);
    this.#rows = new RecordRows(plan.name, plan.entity, plan.settings.tenant);
    this.#output = new Output({
      publisher,
      tail,
      frameBytes: plan.settings.frame_bytes,
      checkpoint: () => formatCheckpoint(this.#checkpoint()),
      report,
      onChange: () => this.#waker.wake(),
    });
    this.#held = new HeldTeller({ rows: this.#rows, held: (id) => this.#state.resolver.held.get(id), report });
    this.#saver = new StateSaver({ store: options.store, flow: plan.name, report, log: options.log, signal });
    this.#breaches = new BreachTeller({ flow: plan.name, checked: this.#state.invariants, report, log: options.log });
    this.#sales = plan.entity.name === 'inventory_position' ? new SalesRate() : undefined;
  }

  #checkpoint(): Checkpoint {
    const checkpoint = {
      ...this.#state.checkpoint(this.#partly),
      clockUs: this.#expiredUs,
      heldBehind: this.#heldIncomplete || this.#held.waits,
      standing: this.#standing,
    };
    return this.#incomplete ? { ...checkpoint, plan: '' } : checkpoint;
  }

  async run(): Promise<void> {
    const { nats, log, report, plan } = this.#options;
    const started = performance.now();
    const begun = await beginState({ ...this.#options, signal: this.#signal });
    this.#state = begun.state;
    this.#histories = begun.histories;
    if (begun.saved !== undefined) this.#saver.note(begun.saved, this.#placesText());
    const resumed = begun.remade ? undefined : await this.#resumable();
    for (const [source, history] of this.#histories)
      this.#feeds.set(source, new SourceFeed(nats, history, this.#signal, () => this.#waker.wake()));
    if (resumed === undefined) {
      this.#state.clockUs = nowUs();
      await this.#rebuild(this.#ends());
    }
    // From where the stream stands: what has gone since is seen to go afterwards.
    let follows = resumed !== undefined && (await this.#resume(resumed));
    if (!follows || this.#options.anew) await this.#noteEnds();
    // What a saved state held may have expired since.
    this.#expireInSilence();
    if (follows && !this.#standsAs(resumed!)) {
      // Who fell silent since the state was saved is so still; else records hold values of one who is not in charge any more.
      await this.#noteEnds();
      this.#expireInSilence();
      follows = this.#standsAs(resumed!);
    }
    const anew = !follows || this.#options.anew;
    this.#standing = this.#state.resolver.standing;
    this.#expiredUs = this.#state.clockUs;
    if (this.#signal.aborted) return;
    this.#held.restore(this.#state.resolver.held.entries());
    const facts = { flow: plan.name, ms: Math.round(performance.now() - started), bytes: this.#state.stateBytes };
    const frames = begun.saved === undefined && !begun.remade ? 'all' : 'those behind the saved state';
    log.info({ ...facts, anew, frames }, 'state rebuilt');
    this.#state.noteWhole();
    if (anew) {
      const vanished = await this.#vanished(follows);
      // Not all of them may be known by then.
      if (this.#signal.aborted) return;
      await this.#writeAnew(vanished);
      // So that what was worked out for it is so once.
      if (begun.remade) this.#saver.hurry();
    } else if (resumed!.heldBehind) await this.#writeHeldAnew();
    report.state('applying');
    await this.#live();
    // What is held and has not been passed on by now the next run passes on: the checkpoint says so.
    await this.#output.drain();
    await this.#save(true);
  }

  /**
   * Saves the state, where something has come since it was saved last and no source is in the middle of anything.
   * `atOnce` the flow waits until that is done; else it goes on.
   */
  async #save(atOnce: boolean): Promise<void> {
    if (this.#state.sources.some((source) => source.open || !source.idle || source.engine.scanning)) return;
    await this.#saver.ended();
    await this.#expire();
    await this.#output.drain();
    const checkpoint = this.#checkpoint();
    const places = this.#placesText();
    if (checkpoint.plan === '' || this.#saver.has(places)) return;
    const taken = {
      checkpoint: formatCheckpoint(checkpoint),
      recordsSeq: this.#options.publisher.lastSeq,
      layout: layoutOf(this.#state),
    };
    if (atOnce) await this.#saver.save(this.#state, taken, places);
    else this.#saver.begin(this.#state, taken, places);
  }

  #placesText(): string {
    return this.#state.sources.map(({ place }) => place.seq).join();
  }

  async ended(): Promise<void> {
    for (const feed of this.#feeds.values()) await feed.ended();
    await this.#saver.ended();
  }

  /** The checkpoint of the stream, where the frames of the sources lead to it and the plan is still the same. */
  async #resumable(): Promise<Checkpoint | undefined> {
    const { nats, tail, plan, publisher } = this.#options;
    if (tail.checkpoint === undefined) return undefined;
    const checkpoint = parseCheckpoint(tail.checkpoint, `${publisher.streamName} sequence ${tail.seq}`);
    if (checkpoint.plan !== plan.fingerprint) return undefined;
    if (plan.tiers.delayed.some((tier) => !checkpoint.tiers.has(tier.id))) return undefined;
    for (const [source, history] of this.#histories) {
      const place = checkpoint.sources.get(source.name);
      // What tables held before a reset is not known after it, and so neither what has gone since.
      if (place === undefined || !history.whole) return undefined;
      // The state that was restored may be the very one.
      const { seq } = source.place;
      if (seq > 0 && place.seq === seq && orderPositions(place.position, source.place.position) === 0) continue;
      if (!(await leadsTo(nats, history, place))) return undefined;
    }
    return checkpoint;
  }

  /**
   * Comes to where the checkpoint stands, by way of the places at which the tiers were released. False where other owners were
   * silent then, so that other values were passed on.
   */
  async #resume({ tiers, sources, clockUs }: Checkpoint): Promise<boolean> {
    let follows = true;
    const { released } = this.#state;
    const stops = this.#options.plan.tiers.delayed
      .map((tier) => ({ tier, release: tiers.get(tier.id)! }))
      // The others are in the state that was restored.
      .filter(({ tier, release }) => !isSameRelease(released.get(tier.id), release));
    for (const { tier, release } of stops.sort((a, b) => compareReleases(a.release, b.release))) {
      this.#state.clockUs = release.clockUs;
      await this.#rebuild(release.sources);
      if (this.#signal.aborted) return false;
      follows &&= this.#standsAs(release);
      this.#state.release(tier, true);
      this.#state.noteReleased(tier);
    }
    this.#state.clockUs = clockUs;
    await this.#rebuild(sources);
    return follows;
  }

  #ends(): Places {
    return new Map([...this.#histories].map(([source, history]) => [source.name, history.end]));
  }

  /** Reads up to `goals` without giving anything. */
  async #rebuild(goals: Places): Promise<void> {
    for (const source of this.#state.sources) {
      const goal = goals.get(source.name)!;
      const { whole } = this.#histories.get(source)!;
      const done = (): boolean => source.reached(goal) && (whole || source.engine.complete);
      while (!done() && !this.#signal.aborted) {
        if (source.idle && !this.#begin(source)) {
          await this.#waker.pause(TICK_MS);
          continue;
        }
        if (source.idle ? !source.open : !done() && source.step()) this.#settleInSilence(source);
      }
      this.#options.log.info({ source: source.name, position: describePosition(source.place.position) }, 'source read');
    }
  }

  /** Whether the same owners are silent as in the records that the stream holds. */
  #standsAs({ standing }: Pick<Checkpoint, 'standing'>): boolean {
    return standing === undefined || standing === this.#state.resolver.standing;
  }

  #expireInSilence(): void {
    for (const source of this.#state.expire()) this.#settleInSilence(source);
  }

  #settleInSilence(source: SourceState): void {
    for (const change of this.#state.settle(source).changes) this.#state.delivery.take(change, true);
  }

  /** Begins the next frame of a source. False where none is at hand. */
  #begin(source: SourceState): boolean {
    const frame = this.#feeds.get(source)!.take();
    if (frame === undefined) return false;
    source.begin(frame);
    return true;
  }

  /** Keys of records that have been passed on and are not there any more. `resumed`: whoever went was seen to go. */
  async #vanished(resumed: boolean): Promise<RecordValues[]> {
    const { store, nats, publisher } = this.#options;
    const before = { store, nats, stream: publisher.streamName, signal: this.#signal };
    return await vanishedRecords(this.#state, resumed ? undefined : before);
  }

  /** `vanished`, all records and all that is held, between marks that have a target forget what is not among them. */
  async #writeAnew(vanished: readonly RecordValues[]): Promise<void> {
    const { runId, publisher, report, plan } = this.#options;
    const { resolver } = this.#state;
    const timeUs = this.#reachedUs();
    this.#state.delivery.clear();
    for (const tier of plan.tiers.delayed) this.#noteReleased(tier);
    this.#incomplete = true;
    const firstSeq = publisher.lastSeq + 1;
    this.#output.markReset();
    this.#output.transaction(timeUs, (writer) => this.#rows.marks(writer, runId, 'begin'));
    await this.#pieces(vanished, timeUs, (writer, values) => this.#rows.remove(writer, values));
    for (const { key, values, lineage } of resolver.current()) {
      const groups = this.#state.groups(key);
      this.#output.transaction(timeUs, (writer) => this.#rows.put(writer, 'r', values, lineage, groups));
      report.records('mapped', 1);
      if (this.#output.full) await this.#output.room();
    }
    this.#breaches.tell(this.#state.audit());
    await this.#writeHeld(timeUs);
    await this.#output.drain();
    this.#incomplete = false;
    this.#output.transaction(timeUs, (writer) => this.#rows.marks(writer, runId, 'end'));
    await this.#output.drain();
    await this.#options.onAnew(firstSeq);
    this.#options.log.info({ flow: plan.name, records: resolver.records }, 'all records were written anew');
  }

  async #writeHeld(timeUs: number): Promise<void> {
    for (const { id, held } of this.#state.resolver.held.entries()) {
      if (!isShown(held)) continue;
      this.#output.transaction(timeUs, (writer) => this.#rows.hold(writer, id, held));
      if (this.#output.full) await this.#output.room();
    }
  }

  /** All that is held, between marks: which of it had been passed on when the run before ended is not known. */
  async #writeHeldAnew(): Promise<void> {
    const { runId } = this.#options;
    const timeUs = this.#reachedUs();
    this.#heldIncomplete = true;
    this.#output.transaction(timeUs, (writer) => this.#rows.heldMark(writer, runId, 'begin'));
    await this.#writeHeld(timeUs);
    await this.#output.drain();
    this.#heldIncomplete = false;
    this.#output.transaction(timeUs, (writer) => this.#rows.heldMark(writer, runId, 'end'));
    await this.#output.drain();
  }

  /** Passes on a piece of what is held, or no longer, behind the records. */
  async #tellHeld(): Promise<void> {
    if (this.#output.full) await this.#output.room();
    this.#output.transaction(this.#reachedUs(), (writer) => this.#held.writePiece(writer));
  }

  /** The checkpoint is stored, where it has moved, though there are no records. */
  tellPlace(): void {
    this.#asked = true;
    this.#waker.wake();
  }

  async #live(): Promise<void> {
    const { log, progressed } = this.#options;
    while (!this.#signal.aborted) {
      this.#state.clockUs = Math.max(this.#state.clockUs, nowUs());
      let moved = false;
      for (const source of this.#state.sources) {
        if (source.idle && !this.#begin(source)) continue;
        moved = true;
        if (source.idle && !source.open) await this.#emit(this.#state.settle(source), source);
        // A frame of one source at a time, so that none of them waits for another.
        while (!source.idle) {
          if (source.step()) await this.#emit(this.#state.settle(source), source);
          if (this.#output.full) await this.#output.room();
        }
      }
      if (performance.now() - this.#tickMs >= TICK_MS) {
        this.#tickMs = performance.now();
        await this.#expire();
        await this.#release();
        await this.#passAgain();
        if (await this.#options.wantsAnew()) {
          log.info({ flow: this.#options.plan.name }, 'all records are asked for anew');
          return;
        }
        await this.#measure();
        if (this.#saver.due(this.#options.saveMs ?? SAVE_MS)) await this.#save(false);
      }
      if (this.#held.waits && this.#held.dueInMs === 0) await this.#tellHeld();
      this.#output.send(!moved && (this.#asked || this.#output.quietMs > QUIET_MS));
      if (!moved) this.#asked = false;
      if (moved) progressed();
      else await this.#waker.pause(this.#held.waits ? this.#held.dueInMs : TICK_MS);
    }
  }

  /**
   * Adds what was done to the frame that fills. Invariant 3: a transaction of a source stays one, unless it changes more
   * than a frame is to hold: then it is passed on in pieces, and until the last of them counts as not taken. What is held goes
   * with it while that is little, and else behind it.
   */
  async #emit(outcome: Outcome, source: SourceState): Promise<void> {
    const { report } = this.#options;
    const { breaches } = outcome;
    const filtered = source.engine.takeFiltered();
    if (filtered > 0) report.records('filtered', filtered);
    this.#breaches.tell(breaches);
    const { standing } = this.#state.resolver;
    if (standing !== this.#standing) this.#standing = BETWEEN;
    if (outcome.changes.length > 0 || outcome.held.length > 0) await this.#passOn(outcome, source);
    this.#standing = standing;
  }

  async #passOn({ changes, held, timeUs }: Outcome, source: SourceState): Promise<void> {
    const { report } = this.#options;
    if (changes.length > 0) report.records('mapped', changes.length);
    if (this.#sales !== undefined) {
      const nowMs = performance.now();
      for (const { before, after } of changes) this.#sales.take(before, after, nowMs);
    }
    this.#partly = source;
    await this.#pieces([...changes, ...this.#held.take(held)], timeUs, (writer, change) => {
      if ('id' in change) this.#held.write(writer, change);
      else this.#change(writer, change);
    });
    this.#partly = undefined;
  }

  /** Adds rows as one transaction; more of them than a frame is to hold as several, with room made between them. */
  async #pieces<T>(items: readonly T[], timeUs: number, write: (writer: FrameWriter, item: T) => void): Promise<void> {
    for (let next = 0; next < items.length;) {
      if (this.#output.full) await this.#output.room();
      this.#output.transaction(timeUs, (writer) => {
        const limit = writer.bytes + TRANSACTION_BYTES;
        while (next < items.length && writer.bytes < limit) write(writer, items[next++]!);
      });
    }
  }

  #change(writer: FrameWriter, change: ResolvedChange): void {
    const passed = this.#state.delivery.take(change);
    if (passed !== undefined) this.#pass(writer, passed);
  }

  #pass(writer: FrameWriter, { key, before, after, lineage, isOfOneChange }: Passing): void {
    if (after === undefined) this.#rows.remove(writer, before!);
    else {
      const op = before === undefined ? 'i' : 'u';
      const groups = this.#state.groups(key, isOfOneChange);
      this.#rows.put(writer, op, after, lineage ?? this.#state.resolver.lineage(key)!, groups);
    }
  }

  /** Lets rows expire up to now. */
  async #expire(): Promise<void> {
    this.#state.clockUs = Math.max(this.#state.clockUs, nowUs());
    const settled = this.#state.expire();
    for (const source of settled) await this.#emit(this.#state.settle(source), source);
    if (settled.length === this.#state.sources.length) this.#expiredUs = this.#state.clockUs;
  }

  /** Passes on what waits for tiers whose time has come. */
  async #release(): Promise<void> {
    const { plan, report } = this.#options;
    const { released, delivery } = this.#state;
    for (const tier of plan.tiers.delayed) {
      if (!this.#due.isDue(tier, released.get(tier.id)!, nowUs())) continue;
      const passed = this.#state.release(tier);
      await this.#pieces(passed, this.#reachedUs(), (writer, each) => this.#pass(writer, each));
      this.#noteReleased(tier);
    }
    report.delayed({ waiting: delivery.waiting, savedWrites: delivery.savedWrites, savedBytes: delivery.savedBytes });
    delivery.savedWrites = 0;
    delivery.savedBytes = 0;
  }

  #noteReleased(tier: Tier): void {
    this.#state.noteReleased(tier);
    this.#due.noteReleased(tier, nowUs());
  }

  /** Passes on once more what is asked for. */
  async #passAgain(): Promise<void> {
    const request = await this.#options.wantedAgain();
    if (request === undefined) return;
    const records = passedAgain(this.#state, request);
    await this.#pieces(records, this.#reachedUs(), (writer, { values, lineage }) => {
      if (lineage === undefined) this.#rows.remove(writer, values);
      else this.#rows.put(writer, 'r', values, lineage.newest, lineage.groups);
    });
    await this.#output.drain();
    this.#options.log.info(
      { flow: this.#options.plan.name, records: records.length },
      'records were passed on once more',
    );
    await this.#options.onAgain(request);
  }

  #reachedUs(): number {
    return Math.max(0, ...this.#state.sources.map((source) => source.reachedUs));
  }

  /** How many frames of a source's stream are still to be taken; notes where there are none. Nothing may be taken meanwhile. */
  async #pendingFrames(source: SourceState, stream: string): Promise<number> {
    const { last } = await keptSequences(this.#options.nats, stream);
    if (source.place.seq >= last) this.#state.resolver.atEnd(source.name);
    return Math.max(0, last - source.place.seq);
  }

  async #noteEnds(): Promise<void> {
    for (const [source, { stream }] of this.#histories) await this.#pendingFrames(source, stream);
  }

  /** Once a second: what is kept, and how far the sources are ahead. */
  async #measure(): Promise<void> {
    const { report } = this.#options;
    report.stateBytes(this.#state.stateBytes);
    let pending = 0;
    let oldestUs = Infinity;
    for (const [source, { stream }] of this.#histories) {
      const frames = await this.#pendingFrames(source, stream);
      report.pendingFrames(source.name, frames);
      report.reached(source.name, source.place.seq);
      pending += frames;
      if (frames > 0) oldestUs = Math.min(oldestUs, source.reachedUs);
    }
    const staleSeconds = pending === 0 || oldestUs === 0 ? 0 : Math.max(0, (nowUs() - oldestUs) / 1e6);
    if (this.#sales !== undefined) report.oversell(this.#sales.exposure(staleSeconds, performance.now()));
    if (pending === 0) {
      report.lagSeconds(0);
      report.state('idle');
    } else {
      report.lagSeconds(oldestUs === 0 ? undefined : staleSeconds);
      report.state('applying');
    }
  }
}

/** Whole seconds, as rows expire: everything up to them has expired, or nothing of it. */
function nowUs(): number {
  return Math.floor(Date.now() / 1000) * 1_000_000;
}
