/** What the rows of a record contribute together: values, rules, and the groups that are held. */
import type { Field, GroupRule } from '../canonical/entity.ts';
import type { Lineage } from '../canonical/envelope.ts';
import { valueClass } from '../canonical/field-type.ts';
import { ABSENT, type Violation } from '../canonical/validate.ts';
import type { CompiledBlock } from './block-plan.ts';
import { Fault, isFault } from './cell.ts';
import { combine, inCommon } from './combine.ts';
import {
  NOTHING_HELD,
  WHOLE_RECORD,
  type ContributedValues,
  type ContributionChange,
  type RecordPlace,
} from './contribution-change.ts';
import type { Cause } from './engine.ts';
import type { RecordState } from './record-state.ts';

/** What became of a record: all of it is given, some of it is held, nothing changed, or no row makes it any more. */
export type Outcome = 'given' | 'held' | 'same' | 'gone';

type Held = Map<string, Violation[]>;

export class Contributor {
  readonly #block: CompiledBlock;
  readonly #index: number;
  /** Values of a contribution before anything is known of it: copied, so that every array has one shape. */
  readonly #blank: ContributedValues;
  /** Rules across the fields of groups that the block supplies. */
  readonly #rules: readonly GroupRule[];
  /** Of what is given before anything is known of it: copied as well. */
  readonly #nothing: readonly undefined[];
  /** Positions among the block's fields, by the group that they belong to; all of them by `WHOLE_RECORD`. */
  readonly #positions = new Map<string, number[]>();

  /** `index`: number of the block in its mapping. */
  constructor(block: CompiledBlock, index: number) {
    this.#block = block;
    this.#index = index;
    const { entity } = block.block;
    this.#blank = entity.fields.map(() => undefined);
    const groups = new Set(block.fields.map(({ field }) => entity.fields[field]!.group));
    this.#rules = entity.groupRules.filter(({ group }) => groups.has(group));
    this.#nothing = block.fields.map(() => undefined);
    this.#positions.set(WHOLE_RECORD, [...block.fields.keys()]);
    for (const group of groups)
      this.#positions.set(
        group,
        [...block.fields.keys()].filter((position) => entity.fields[block.fields[position]!.field]!.group === group),
      );
  }

  /** Works out what the rows of a record contribute together, and adds to `into` what of it changed. */
  contribute(
    record: RecordState,
    cause: Cause,
    lineageOf: (cause: Cause) => Lineage,
    into: ContributionChange[],
  ): Outcome {
    const { block, fields, same } = this.#block;
    const { entity } = block;
    const { key, given: old } = record;
    const { only } = record.rows;
    const members = only === undefined ? record.rows.sorted() : undefined;
    if (members?.length === 0) {
      if (old !== undefined || record.held.size > 0)
        into.push(this.change(key, record, undefined, NOTHING_HELD, cause, lineageOf));
      return 'gone';
    }
    let held: Held = NOTHING_HELD;
    // Rows of a key that only one may have: nobody knows what the record is, and what they say of it need not agree.
    const isUnclear = members !== undefined && members.length > 1 && !block.group;
    if (isUnclear) {
      const fault = new Fault('must be unique, and several rows have it', `${members.length} rows`);
      held = this.#hold(held, record, WHOLE_RECORD, entity.key.join(', '), fault);
    }
    if (members !== undefined && members.length > 1)
      for (let number = 0; number < same.length; number++) {
        const common = inCommon(members, fields.length + number);
        if (isFault(common)) held = this.#hold(held, record, WHOLE_RECORD, same[number]!.name, common);
      }
    // Made once something differs: what a transaction leaves as it was makes nothing new.
    let values = old === undefined ? this.#valuesOf(record, undefined) : undefined;
    for (let position = 0; position < fields.length; position++) {
      const field = fields[position]!;
      const index = field.field;
      const cell =
        only !== undefined && field.aggregate === undefined
          ? (only.cells[position] ?? null)
          : isUnclear
            ? (members[0]!.cells[position] ?? null)
            : combine(field, members ?? [only!], position);
      if (old !== undefined && cell === old[position]) continue;
      const definition = entity.fields[index]!;
      const fault = isFault(cell) ? cell : faultOf(definition, cell);
      if (fault === undefined) (values ??= this.#valuesOf(record, old))[index] = cell as string | null;
      else held = this.#hold(held, record, definition.group, definition.name, fault);
    }
    if (values === undefined && held.size === 0 && record.held.size === 0) return 'same';
    values ??= this.#valuesOf(record, old);
    for (const { group, rule, fields: named, indexes, holds } of this.#rules) {
      if (held.has(group) || holds((name) => values[entity.index.get(name)!] ?? null)) continue;
      const shown = indexes.map((index) => valueClass(values[index])).join(', ');
      held = this.#hold(held, record, group, named.join(', '), new Fault(rule, shown));
    }
    // A group is held as a whole: what means something only together moves together.
    for (const group of held.keys())
      for (const position of this.#positions.get(group) ?? []) values[fields[position]!.field] = old?.[position];
    if (held.has(WHOLE_RECORD) && old === undefined) {
      record.held = held;
      into.push(this.change(key, record, undefined, held, cause, lineageOf));
      return 'held';
    }
    const changed = this.#give(record, values);
    if (!changed && held.size === 0 && record.held.size === 0) return 'same';
    record.held = held;
    into.push(this.change(key, record, values, held, cause, lineageOf));
    return held.size > 0 ? 'held' : 'given';
  }

  /** The values of a record by the entity's fields: its key, and what of it has been given. */
  #valuesOf({ keyValues }: RecordState, given: RecordState['given']): (string | null | undefined)[] {
    const values = this.#blank.slice();
    const { keyIndexes } = this.#block.block.entity;
    for (let i = 0; i < keyIndexes.length; i++) values[keyIndexes[i]!] = keyValues[i]!;
    if (given === undefined) return values;
    const { fields } = this.#block;
    for (let position = 0; position < fields.length; position++) values[fields[position]!.field] = given[position];
    return values;
  }

  /** Notes what is given of a record. True where it differs from what was given last. */
  #give(record: RecordState, values: ContributedValues): boolean {
    const { fields } = this.#block;
    let changed = record.given === undefined;
    const given = (record.given ??= this.#nothing.slice());
    for (let position = 0; position < fields.length; position++) {
      const value = values[fields[position]!.field];
      if (value === given[position]) continue;
      given[position] = value;
      changed = true;
    }
    return changed;
  }

  /** Adds a fault of a field to what is held of a record. */
  #hold(held: Held, { keyValues }: RecordState, group: string, field: string, { valueClass: kind, rule }: Fault): Held {
    const violation = {
      entity: this.#block.block.entity.name,
      key: keyValues.join('/'),
      field,
      valueClass: kind,
      rule,
    };
    const all = held === NOTHING_HELD ? new Map<string, Violation[]>() : held;
    const there = all.get(group);
    if (there === undefined) all.set(group, [violation]);
    else there.push(violation);
    return all;
  }

  /**
   * A change of what this block says of a record, or of a row that gives none. Where something is held, with the row of the
   * change that made it so. All have one shape: a burst of bad rows makes as many of them.
   */
  change(
    key: string,
    place: RecordPlace | undefined,
    values: ContributedValues | undefined,
    held: ReadonlyMap<string, readonly Violation[]>,
    cause: Cause,
    lineageOf: (cause: Cause) => Lineage,
  ): ContributionChange {
    const content = held.size > 0 ? contentOf(cause) : undefined;
    return { block: this.#block, index: this.#index, key, place, lineage: lineageOf(cause), values, held, content };
  }
}

/** The row of a change as JSON by column; undefined where it was not kept. */
function contentOf({ row, reader }: Cause): string | undefined {
  const image = row?.[2] ?? row?.[4];
  return image === undefined || image === null ? undefined : reader.json(image);
}

function faultOf({ type, nullable }: Field, value: string | null): Fault | undefined {
  const rule = value === null ? (nullable ? undefined : ABSENT) : type.fault(value);
  return rule === undefined ? undefined : new Fault(rule, valueClass(value));
}
