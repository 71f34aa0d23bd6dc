/** Validation of records, compiled once for each entity. */
import { describeKey, type Entity, type RecordValues } from './entity.ts';
import { valueClass } from './field-type.ts';

/** A rule that a record breaks. Holds no value but the key. */
export interface Violation {
  readonly entity: string;
  readonly key: string;
  readonly field: string;
  /** What kind of value it was: `null`, `digits of 13 characters`. */
  readonly valueClass: string;
  readonly rule: string;
}

/** With `sound`, values of the record that broke no rule before, only what differs from them is looked at. */
export type Validator = (values: RecordValues, sound?: RecordValues) => readonly Violation[];

/** The rule that a value breaks which must be there and is not. */
export const ABSENT = 'must not be absent';

const NONE: readonly Violation[] = [];

/**
 * A function that gives the rules a record breaks: of each field, then, when the fields are sound, those across
 * fields. Absent values of key fields and of fields that are not nullable are violations.
 */
export function compileValidator(entity: Entity): Validator {
  const faults = entity.fields.map((field) => field.type.fault);
  const nullable = entity.fields.map((field) => field.nullable);
  const violation = (values: RecordValues, field: string, value: string | null, rule: string): Violation => ({
    entity: entity.name,
    key: describeKey(entity, values),
    field,
    valueClass: valueClass(value),
    rule,
  });
  return (values, sound) => {
    let found: Violation[] | undefined;
    for (let i = 0; i < faults.length; i++) {
      const value = values[i]!;
      if (sound !== undefined && value === sound[i]) continue;
      if (value === null) {
        if (!nullable[i]) (found ??= []).push(violation(values, entity.fields[i]!.name, null, ABSENT));
        continue;
      }
      const rule = faults[i]!(value);
      if (rule !== undefined) (found ??= []).push(violation(values, entity.fields[i]!.name, value, rule));
    }
    if (found !== undefined) return found;
    for (const { rule, fields, indexes, holds } of entity.groupRules)
      if (!holds((field) => values[entity.index.get(field)!]!)) {
        const shown = indexes.map((index) => valueClass(values[index])).join(', ');
        (found ??= []).push({ ...violation(values, fields.join(', '), null, rule), valueClass: shown });
      }
    return found ?? NONE;
  };
}

/** A violation as one line for people. */
export function describeViolation({ entity, key, field, valueClass, rule }: Violation): string {
  return `${entity} ${key}: ${field} ${rule} (it is ${valueClass})`;
}
