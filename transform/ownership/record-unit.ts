/** One unit for all quantities of a record: what an owner says in another one is converted, or does not count. */
import type { Entity } from '../canonical/entity.ts';
import { convertUnit } from '../canonical/unit-conversion.ts';

const UNIT = 'uom';

export interface RecordUnit {
  /** Position of the unit. */
  readonly at: number;
  /** The group that it belongs to. */
  readonly group: string;
  /** By name of another group: positions of its quantities. */
  readonly quantities: ReadonlyMap<string, readonly number[]>;
}

/** The unit of an entity that has quantities in several groups; undefined where there is none. */
export function recordUnitOf(entity: Entity): RecordUnit | undefined {
  const at = entity.index.get(UNIT);
  const group = at === undefined ? '' : entity.fields[at]!.group;
  if (at === undefined || group === '' || entity.name !== 'inventory_position') return undefined;
  const quantities = new Map<string, readonly number[]>();
  for (const [name, indexes] of entity.groupIndexes)
    if (name !== group)
      quantities.set(
        name,
        indexes.filter((index) => entity.fields[index]!.type.kind === 'decimal'),
      );
  return { at, group, quantities };
}

/** Converts quantities in place. False, and nothing is changed, where the units are not of one kind. */
export function convertQuantities(
  values: (string | null)[],
  indexes: readonly number[],
  from: string,
  to: string,
): boolean {
  if (convertUnit('0', from, to) === undefined) return false;
  for (const index of indexes) {
    const value = values[index];
    if (typeof value === 'string') values[index] = convertUnit(value, from, to) ?? value;
  }
  return true;
}
