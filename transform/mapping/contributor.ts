/** What the rows of a record contribute together: values, rules, and the groups that are held. */
import type { Field, GroupRule } from '../canonical/entity.ts';
import type { Lineage } from '../canonical/envelope.ts';
import { valueClass } from '../canonical/field-type.ts';
import { ABSENT } from '../canonical/validate.ts';
import type { CompiledBlock } from './block-plan.ts';
import { Fault, isFault } from './cell.ts';
import { combine } from './combine.ts';
import { NOTHING_HELD, WHOLE_RECORD, type ContributedValues, type ContributionChange } from './contribution-change.ts';
import type { Cause } from './engine.ts';
import type { RecordState } from './record-state.ts';

/** What became of a record: all of it is given, some of it is held, nothing changed, or no row makes it any more. */
export type Outcome = 'given' | 'held' | 'same' | 'gone';

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
    const { block, fields } = this.#block;
    const { entity } = block;
    const { key, given: old } = record;
    const { only } = record.rows;
    const members = only === undefined ? record.rows.sorted() : undefined;
    if (members?.length === 0) {
      if (old !== undefined || record.held.size > 0)
        into.push({ ...this.base(key, cause, lineageOf), values: undefined, held: NOTHING_HELD });
      return 'gone';
    }
    let held = NOTHING_HELD;
    const hold = (group: string, field: string, fault: Fault): void => {
      if (held === NOTHING_HELD) held = new Map();
      const violation = { entity: entity.name, key: record.keyValues.join('/'), field };
      held.set(group, [...(held.get(group) ?? []), { ...violation, valueClass: fault.valueClass, rule: fault.rule }]);
    };
    if (members !== undefined && members.length > 1 && !block.group)
      hold(
        WHOLE_RECORD,
        entity.key.join(', '),
        new Fault('must be unique, and several rows have it', `${members.length} rows`),
      );
    // Made once something differs: what a transaction leaves as it was makes nothing new.
    let values = old === undefined ? this.#valuesOf(record, undefined) : undefined;
    for (let position = 0; position < fields.length; position++) {
      const field = fields[position]!;
      const index = field.field;
      const cell =
        only !== undefined && field.aggregate === undefined
          ? (only.cells[position] ?? null)
          : combine(field, members ?? [only!], position);
      if (old !== undefined && cell === old[position]) continue;
      const definition = entity.fields[index]!;
      const fault = isFault(cell) ? cell : faultOf(definition, cell);
      if (fault === undefined) (values ??= this.#valuesOf(record, old))[index] = cell as string | null;
      else hold(definition.group, definition.name, fault);
    }
    if (values === undefined && held.size === 0 && record.held.size === 0) return 'same';
    values ??= this.#valuesOf(record, old);
    for (const { group, rule, fields: named, indexes, holds } of this.#rules) {
      if (held.has(group) || holds((name) => values[entity.index.get(name)!] ?? null)) continue;
      const shown = indexes.map((index) => valueClass(values[index])).join(', ');
      hold(group, named.join(', '), new Fault(rule, shown));
    }
    // A group is held as a whole: what means something only together moves together.
    for (const group of held.keys())
      for (const position of this.#positions.get(group) ?? []) values[fields[position]!.field] = old?.[position];
    if (held.has(WHOLE_RECORD) && old === undefined) {
      record.held = held;
      into.push({ ...this.base(key, cause, lineageOf), ...contentOf(cause), values: undefined, held });
      return 'held';
    }
    const changed = this.#give(record, values);
    if (!changed && held.size === 0 && record.held.size === 0) return 'same';
    record.held = held;
    if (held.size > 0) into.push({ ...this.base(key, cause, lineageOf), ...contentOf(cause), values, held });
    else {
      const lineage = lineageOf(cause);
      into.push({ block: this.#block, index: this.#index, key, place: record, lineage, values, held });
    }
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

  /** What every change of this block begins with. */
  base(key: string, cause: Cause, lineageOf: (cause: Cause) => Lineage) {
    return { block: this.#block, index: this.#index, key, lineage: lineageOf(cause) };
  }
}

/** The row of a change as JSON by column. */
export function contentOf({ row, reader }: Cause): { content?: string } {
  const image = row?.[2] ?? row?.[4];
  if (image === undefined || image === null) return {};
  const { columns } = reader.table;
  let content = '';
  for (let index = 0; index < columns.length; index++) {
    const value = image[index];
    if (value === 0 || value === undefined) continue;
    content += `${content === '' ? '{' : ','}${JSON.stringify(columns[index]!.name)}:${JSON.stringify(value)}`;
  }
  return { content: content === '' ? '{}' : `${content}}` };
}

function faultOf({ type, nullable }: Field, value: string | null): Fault | undefined {
  const rule = value === null ? (nullable ? undefined : ABSENT) : type.fault(value);
  return rule === undefined ? undefined : new Fault(rule, valueClass(value));
}
