/** The state of a flow: what its sources contributed, the records that follow from it, and how far it has come. */
import { oversold, STOCK } from './canonical/inventory.ts';
import { InvariantMonitor, type Breach } from './canonical/inventory-invariants.ts';
import type { Checkpoint, Places, Release } from './checkpoint.ts';
import { Delivery, type Passing } from './delivery.ts';
import type { Tier } from './delivery-tiers.ts';
import { compileSource, type FlowPlan } from './flow-plan.ts';
import { MappingEngine } from './mapping/engine.ts';
import { Resolver, type HeldChange, type ResolvedChange } from './ownership/resolver.ts';
import { groupsJson } from './record-rows.ts';
import { SourceState } from './source-state.ts';

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
  readonly #monitor: InvariantMonitor | undefined;
  /** Several contributions may make one record, so that it takes more than its own lineage to explain it. */
  readonly #shared: boolean;

  constructor(plan: FlowPlan) {
    const { settings, entity, ownership } = plan;
    this.plan = plan;
    this.sources = plan.sources.map((source) => {
      const compiled = compileSource(plan, source);
      return new SourceState(
        source.name,
        new MappingEngine({ source: source.name, plan: compiled, stateBytes: settings.state_bytes }),
      );
    });
    this.delivery = new Delivery(entity, plan.tiers);
    this.#shared =
      plan.sources.length > 1 || plan.sources[0]!.mapping.blocks.filter((block) => block.entity === entity).length > 1;
    this.resolver = new Resolver(ownership, { advisory: this.#shared });
    this.#monitor = entity.name === 'inventory_position' ? new InvariantMonitor() : undefined;
  }

  /** Bytes that are kept of the sources' rows. */
  get stateBytes(): number {
    return this.sources.reduce((sum, source) => sum + source.engine.stateBytes, 0);
  }

  /** Works out what a source did since the last call. Only while it has no transaction open. */
  settle(source: SourceState): Outcome {
    const contributed = source.engine.flush(this.clockUs);
    const changes = this.resolver.apply(source.name, contributed, source.reachedUs, this.clockUs);
    const observed = changes.map(({ entity, before, after }) => ({ entity: entity.name, before, after }));
    return {
      changes,
      held: this.resolver.takeHeldChanges(),
      breaches: this.#monitor === undefined || changes.length === 0 ? [] : this.#monitor.observe(observed),
      timeUs: source.reachedUs,
    };
  }

  /** Lets rows expire up to the clock; gives the sources whose records may have changed by that. */
  expire(): SourceState[] {
    const settled = this.sources.filter((source) => !source.open);
    for (const source of settled) source.engine.advance(this.clockUs);
    return settled;
  }

  /** The JSON of a record's lineage by group, where several contributions may make it; else null. */
  groups(key: string): string | null {
    return this.#shared ? groupsJson(this.resolver.explain(key, this.clockUs) ?? []) : null;
  }

  /** Passes on what waits for a tier, and notes that it did. */
  release(tier: Tier): Passing[] {
    this.noteReleased(tier);
    return this.delivery.release(tier, (key) => this.resolver.record(key));
  }

  noteReleased(tier: Tier): void {
    this.released.set(tier.id, { clockUs: this.clockUs, sources: this.#places() });
  }

  checkpoint(): Checkpoint {
    const { clockUs, released } = this;
    return { plan: this.plan.fingerprint, clockUs, sources: this.#places(), tiers: released };
  }

  #places(): Places {
    return new Map(this.sources.map((source) => [source.name, source.place]));
  }
}

/** Units that a change of a position promises beyond what is there, and those that it did before. */
export function oversoldBy({ entity, before, after }: ResolvedChange): { before: string; after: string } | undefined {
  if (entity.name !== 'inventory_position') return undefined;
  return {
    before: oversold(before?.[STOCK.available] ?? null),
    after: oversold(after?.[STOCK.available] ?? null),
  };
}
