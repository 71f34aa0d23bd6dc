/** The state of a flow: what its sources contributed, the records that follow from it, and how far it has come. */
import { ReplicationError } from '../core/errors.ts';
import { invariantsShownBy, positionBreaches, type Breach, type Invariant } from './canonical/inventory-invariants.ts';
import type { Checkpoint, Release, SourcePlace } from './checkpoint.ts';
import { Delivery, type Passing } from './delivery.ts';
import type { Tier } from './delivery-tiers.ts';
import { compileSource, isShared, type FlowPlan } from './flow-plan.ts';
import type { CompiledBlock } from './mapping/block-plan.ts';
import type { ContributionChange } from './mapping/contribution-change.ts';
import { MappingEngine } from './mapping/engine.ts';
import type { HeldChange, ResolvedChange } from './ownership/resolved.ts';
import { Resolver } from './ownership/resolver.ts';
import { groupsJson } from './record-rows.ts';
import { SourceState } from './source-state.ts';
import { StockEvidence } from './stock-evidence.ts';

/** What a transaction of a source, or the passing of time, did to records. */
export interface Outcome {
  readonly changes: readonly ResolvedChange[];
  readonly held: readonly HeldChange[];
  readonly breaches: readonly Breach[];
  /** Commit time in microseconds since 1970. */
  readonly timeUs: number;
}

export class FlowState {
  readonly plan: FlowPlan;
  readonly sources: readonly SourceState[];
  readonly resolver: Resolver;
  readonly delivery: Delivery;
  /** By delayed tier: what had been taken when it was released last. */
  readonly released = new Map<string, Release>();
  /** The time by which rows have expired. It never goes back. */
  clockUs = 0;
  /** What positions of stock are held against, beside themselves; undefined where there is nothing. */
  readonly evidence: StockEvidence | undefined;
  readonly #isStock: boolean;
  /** Every table has been read whole: records that do not fit together are not just incomplete. */
  #whole = false;
  /** Several contributions may make one record, so that it takes more than its own lineage to explain it. */
  readonly #shared: boolean;

  /** `installation` is this one's id. */
  constructor(plan: FlowPlan, installation: string) {
    const { settings, entity, ownership } = plan;
    this.plan = plan;
    this.sources = plan.sources.map((source) => {
      const compiled = compileSource(plan, source);
      return new SourceState(
        source.name,
        new MappingEngine({ source: source.name, plan: compiled, stateBytes: settings.state_bytes }),
        installation,
      );
    });
    this.delivery = new Delivery(entity, plan.tiers);
    this.#shared = isShared(plan);
    this.resolver = new Resolver(ownership, { advisory: this.#shared });
    this.#isStock = entity.name === 'inventory_position';
    this.evidence = settings.evidence.length === 0 ? undefined : new StockEvidence(settings.evidence);
  }

  /** Estimated bytes of the sources' rows and of the records that they make. */
  get stateBytes(): number {
    let bytes = this.resolver.bytes + (this.evidence?.bytes ?? 0);
    for (const source of this.sources) bytes += source.engine.stateBytes;
    return bytes;
  }

  /** Works out what a source did since the last call. Only while it has no transaction open. */
  settle(source: SourceState): Outcome {
    const flushed = source.engine.flush(this.clockUs);
    const { entity } = this.plan;
    const contributed =
      this.evidence === undefined ? flushed : flushed.filter(({ block }) => block.block.entity === entity);
    const changes = this.resolver.apply(source.name, contributed, source.reachedUs, this.clockUs, source.echo);
    // What expires later is nobody's echo.
    source.echo = false;
    // Invariant 6: memory is bounded, and what does not fit is refused.
    const { state_bytes: limit } = this.plan.settings;
    if (this.stateBytes > limit)
      throw new ReplicationError(
        'transform_state_full',
        `flow ${this.plan.name} keeps more than ${limit} bytes: ${this.resolver.records} records, and the rows that they are made of`,
      );
    const breaches = this.#isStock ? this.#breaches(source, changes, flushed) : [];
    return { changes, held: this.resolver.held.takeChanges(), breaches, timeUs: source.reachedUs };
  }

  #breaches(source: SourceState, changes: readonly ResolvedChange[], flushed: readonly ContributionChange[]): Breach[] {
    const { evidence } = this;
    if (evidence === undefined) {
      const shown: Breach[] = [];
      for (const { after } of changes) if (after !== undefined) shown.push(...positionBreaches(after));
      return shown;
    }
    const told = flushed.filter(({ block }) => block.block.entity !== this.plan.entity);
    const { events } = source.engine.plan;
    const isEvent = (block: CompiledBlock): boolean => events.has(block.inputs[0]!.table);
    const breaches = evidence.observe(changes, this.sources.indexOf(source), told, isEvent, this.#whole);
    if (!this.#whole && this.noteWhole()) breaches.push(...evidence.auditTogether());
    return breaches;
  }

  /** The invariants that are checked as records pass. */
  get invariants(): readonly Invariant[] {
    return this.#isStock ? invariantsShownBy(this.plan.settings.evidence) : [];
  }

  /** The invariants that are broken now. */
  audit(): Breach[] {
    if (!this.#isStock) return [];
    const current = this.resolver.current();
    return this.evidence?.audit(current, this.#whole) ?? [...current].flatMap(({ values }) => positionBreaches(values));
  }

  /** Notes whether every table has been read whole. True when it is so. */
  noteWhole(): boolean {
    this.#whole ||= this.sources.every(({ engine }) => engine.complete);
    return this.#whole;
  }

  /** Lets rows expire up to the clock; gives the sources whose records may have changed by that. */
  expire(): SourceState[] {
    const settled = this.sources.filter((source) => !source.open);
    for (const source of settled) source.engine.advance(this.clockUs);
    return settled;
  }

  /**
   * The JSON of a record's lineage by group, where several contributions may make it; where only one does, of the groups that
   * another change made than its newest; null where there are none. `isOfOneChange` is what `resolver` says of that.
   */
  groups(key: string, isOfOneChange = this.resolver.isOfOneChange(key)): string | null {
    const { resolver, clockUs } = this;
    if (this.#shared) return groupsJson(resolver.explain(key, clockUs) ?? []);
    if (isOfOneChange) return null;
    const newest = resolver.lineage(key);
    return groupsJson((resolver.explain(key, clockUs) ?? []).filter(({ winner }) => winner !== newest));
  }

  /** What waits for a tier is to be passed on; `noteReleased` says that it has been. `replayed`: before a restart. */
  release(tier: Tier, replayed = false): Passing[] {
    return this.delivery.release(tier, (key) => this.resolver.record(key)?.slice(), replayed);
  }

  noteReleased(tier: Tier): void {
    const { standing } = this.resolver;
    this.released.set(tier.id, { clockUs: this.clockUs, sources: this.#places(), standing });
  }

  /** What has been passed on; of the last transaction of `partly` only a part, so that it counts as not taken. */
  checkpoint(partly?: SourceState): Omit<Checkpoint, 'heldBehind'> {
    const { clockUs, released } = this;
    const places = this.#places();
    if (partly !== undefined) places.set(partly.name, partly.previous);
    return { plan: this.plan.fingerprint, clockUs, sources: places, tiers: released };
  }

  #places(): Map<string, SourcePlace> {
    return new Map(this.sources.map((source) => [source.name, source.place]));
  }
}
