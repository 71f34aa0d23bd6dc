/**
 * What the sources of a flow of stock tell beside it, of places, reservations and movements, brought together with the
 * positions as they pass: so that all invariants of stock can be checked, and not only what a position shows by itself.
 * Nothing of it becomes a record.
 */
import type { EvidenceEntity } from '../core/canonical-config.ts';
import { ENTITIES } from './canonical/catalog.ts';
import type { RecordValues } from './canonical/entity.ts';
import { InvariantMonitor, type Breach, type RecordChange } from './canonical/inventory-invariants.ts';
import type { CompiledBlock } from './mapping/block-plan.ts';
import type { ContributedValues, ContributionChange } from './mapping/contribution-change.ts';
import type { CurrentRecord, ResolvedChange } from './ownership/resolved.ts';

/** What a block of a source says of one key. */
interface Saying {
  readonly source: number;
  readonly block: number;
  readonly values: ContributedValues;
}

/** A saying as it is saved with a state. */
export interface SavedSaying extends Saying {
  readonly entity: string;
  readonly key: string;
}

/** What must be known of one before it counts. */
const NEEDED: Readonly<Record<EvidenceEntity, readonly string[]>> = {
  location: ['code'],
  reservation: ['sku', 'qty', 'kind'],
  inventory_movement: ['sku', 'location', 'reason'],
};

/** Measured in a heap: a saying with its maps; the values are those of the mapping. A position has an array of figures of its own. */
const SAYING_BYTES = 250;
const POSITION_BYTES = 330;

export class StockEvidence {
  readonly #monitor: InvariantMonitor;
  /** By entity and key. The source that stands first in the flow counts, field by field. */
  readonly #said = new Map<string, Map<string, readonly Saying[]>>();
  #sayings = 0;

  constructor(entities: readonly EvidenceEntity[]) {
    this.#monitor = new InvariantMonitor(entities);
    for (const entity of entities) this.#said.set(entity, new Map());
  }

  /** Estimated bytes held. */
  get bytes(): number {
    return this.#sayings * SAYING_BYTES + this.#monitor.positions * POSITION_BYTES;
  }

  /**
   * Takes what one transaction did to positions, and what its source (`source` is its number) tells beside them; gives the
   * invariants that are broken after it. `together` is false while the tables are not read whole: then only what a
   * position shows by itself is checked.
   */
  observe(
    positions: readonly ResolvedChange[],
    source: number,
    told: readonly ContributionChange[],
    events: (block: CompiledBlock) => boolean,
    together: boolean,
  ): Breach[] {
    const changes: RecordChange[] = positions.map(({ entity, before, after }) => ({
      entity: entity.name,
      before,
      after,
    }));
    for (const change of told) changes.push(this.#take(source, change, events(change.block)));
    return this.#monitor.observe(changes, { together });
  }

  /** The invariants that are broken now, as far as what is there shows them; `together` as above. */
  audit(positions: Iterable<CurrentRecord>, together: boolean): Breach[] {
    return this.#monitor.audit(positions, together);
  }

  /** Those among them that no position shows by itself. */
  auditTogether(): Breach[] {
    return this.#monitor.audit([], true);
  }

  *sayings(): Generator<SavedSaying> {
    for (const [entity, keys] of this.#said)
      for (const [key, list] of keys) for (const saying of list) yield { ...saying, entity, key };
  }

  /** Changes of stock that no movement has explained yet. */
  unexplained(): Iterable<readonly [key: string, quantity: string]> {
    return this.#monitor.unexplained();
  }

  restoreSaying({ entity, key, source, block, values }: SavedSaying): void {
    this.#put(entity, key, source, block, values);
  }

  restoreUnexplained(key: string, quantity: string): void {
    this.#monitor.restoreUnexplained(key, quantity);
  }

  /** All sayings are there again, and these positions. */
  restored(positions: Iterable<CurrentRecord>): void {
    const changes: RecordChange[] = [];
    for (const { values } of positions)
      changes.push({ entity: 'inventory_position', before: undefined, after: values.slice() });
    for (const [entity, keys] of this.#said)
      for (const list of keys.values()) changes.push({ entity, before: undefined, after: recordOf(entity, list) });
    this.#monitor.observe(changes, { together: false });
  }

  #take(source: number, { block, index, key, values }: ContributionChange, event: boolean): RecordChange {
    const entity = block.block.entity.name;
    if (event)
      return {
        entity,
        before: undefined,
        after: values === undefined ? undefined : recordOf(entity, [{ source, block: index, values }]),
      };
    const before = recordOf(entity, this.#said.get(entity)!.get(key) ?? []);
    const list = this.#put(entity, key, source, index, values);
    return { entity, before, after: recordOf(entity, list) };
  }

  #put(
    entity: string,
    key: string,
    source: number,
    block: number,
    values: ContributedValues | undefined,
  ): readonly Saying[] {
    const keys = this.#said.get(entity)!;
    const there = keys.get(key) ?? [];
    const list = there.filter((each) => each.source !== source || each.block !== block);
    if (values !== undefined) list.push({ source, block, values });
    list.sort((a, b) => a.source - b.source || a.block - b.block);
    this.#sayings += list.length - there.length;
    if (list.length === 0) keys.delete(key);
    else keys.set(key, list);
    return list;
  }
}

/** What is known of a key, by all who say something of it; undefined while what counts is missing, or makes no sense. */
function recordOf(entity: string, said: readonly Saying[]): RecordValues | undefined {
  if (said.length === 0) return undefined;
  const { fields, index, rules = [] } = ENTITIES.get(entity)!;
  const values = fields.map((_, field) => said.find((each) => each.values[field] !== undefined)?.values[field] ?? null);
  const value = (name: string): string | null => values[index.get(name)!]!;
  const isKnown = NEEDED[entity as EvidenceEntity].every((name) => value(name) !== null);
  return isKnown && rules.every((rule) => rule.holds(value)) ? values : undefined;
}
