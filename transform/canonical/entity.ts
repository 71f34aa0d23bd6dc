/** What an entity is: a versioned zod schema with a key, groups of fields that move together, and rules across fields. */
import { z } from 'zod';
import { fieldTypeOf, type FieldType } from './field-type.ts';

/** R real-time, N near-real-time, B scheduled batch: the default, which a flow may override. */
export type Tier = 'R' | 'N' | 'B';

/** A field of an entity, resolved from its zod schema. */
export interface Field {
  readonly name: string;
  readonly type: FieldType;
  readonly nullable: boolean;
  readonly key: boolean;
  /** Computed here from other fields; no mapping may supply it. */
  readonly derived: boolean;
  /** The group it moves with: its name, or that of a declared group. Empty for key fields. */
  readonly group: string;
}

/** Values of a record, positional by the entity's fields; null stands for absent. */
export type RecordValues = readonly (string | null)[];

/** A rule over fields of one group. `fields` are named in the violation. */
export interface RecordRule {
  readonly rule: string;
  readonly fields: readonly string[];
  readonly holds: (value: (field: string) => string | null) => boolean;
}

/** A rule, resolved: with the group that breaks it. */
export interface GroupRule extends RecordRule {
  readonly group: string;
  /** Positions of `fields`. */
  readonly indexes: readonly number[];
}

export interface EntityDefinition<Shape extends z.ZodRawShape = z.ZodRawShape> {
  readonly name: string;
  /** Rises with every change of the shape that a reader must know of. */
  readonly version: number;
  readonly description: string;
  readonly tier: Tier;
  readonly schema: z.ZodObject<Shape>;
  /** What a field means, where its name does not say it. */
  readonly meanings?: Readonly<Partial<Record<keyof Shape & string, string>>>;
  readonly key: readonly (keyof Shape & string)[];
  /** Groups by name. A field in none of them is a group of its own. */
  readonly groups?: Readonly<Record<string, readonly (keyof Shape & string)[]>>;
  readonly derived?: readonly (keyof Shape & string)[];
  readonly rules?: readonly RecordRule[];
}

export interface Entity<Shape extends z.ZodRawShape = z.ZodRawShape> extends EntityDefinition<Shape> {
  readonly fields: readonly Field[];
  /** Position of each field. */
  readonly index: ReadonlyMap<string, number>;
  /** Positions of the key fields, in key order. */
  readonly keyIndexes: readonly number[];
  /** Fields of each group, by position; key and derived fields are in none. */
  readonly groupIndexes: ReadonlyMap<string, readonly number[]>;
  readonly groupRules: readonly GroupRule[];
}

/** Resolves a definition. Throws a TypeError when it contradicts itself. */
export function defineEntity<Shape extends z.ZodRawShape>(definition: EntityDefinition<Shape>): Entity<Shape> {
  const { name, key, derived = [], groups = {} } = definition;
  const groupOf = new Map<string, string>();
  for (const [group, members] of Object.entries(groups))
    for (const member of members) {
      if (groupOf.has(member)) throw new TypeError(`${name}.${member} is in two groups`);
      groupOf.set(member, group);
    }
  const fields = Object.entries(definition.schema.shape).map(([field, schema]): Field => {
    const isKey = key.includes(field);
    const isDerived = derived.includes(field);
    return {
      name: field,
      ...fieldTypeOf(schema),
      key: isKey,
      derived: isDerived,
      group: isKey || isDerived ? '' : (groupOf.get(field) ?? field),
    };
  });
  const index = new Map(fields.map((field, position) => [field.name, position]));
  for (const field of [...key, ...derived, ...groupOf.keys(), ...Object.keys(definition.meanings ?? {})])
    if (!index.has(field)) throw new TypeError(`${name} has no field ${field}`);
  for (const field of fields) {
    if (field.key && field.nullable) throw new TypeError(`${name}.${field.name} is a key and may be null`);
    if (groupOf.has(field.name) && field.group === '')
      throw new TypeError(`${name}.${field.name} cannot be in a group`);
  }
  const groupIndexes = new Map<string, number[]>();
  for (const [position, field] of fields.entries())
    if (field.group !== '') groupIndexes.set(field.group, [...(groupIndexes.get(field.group) ?? []), position]);
  const groupRules = (definition.rules ?? []).map((rule): GroupRule => {
    const indexes = rule.fields.map((field) => index.get(field) ?? -1);
    const [group, ...others] = new Set(indexes.map((at) => fields[at]?.group ?? ''));
    if (group === undefined || group === '' || others.length > 0)
      throw new TypeError(`${name}: the rule "${rule.rule}" is not about the fields of one group`);
    return { ...rule, group, indexes };
  });
  const keyIndexes = key.map((field) => index.get(field)!);
  return { ...definition, fields, index, keyIndexes, groupIndexes, groupRules };
}

/** A record as an object, decoded: what the entity's zod schema describes. */
export function recordObject(entity: Entity, values: RecordValues): Record<string, unknown> {
  return Object.fromEntries(
    entity.fields.map((field, index) => {
      const value = values[index]!;
      return [field.name, value === null ? null : field.type.decode(value)];
    }),
  );
}

/** A record's key for people and logs: its parts, separated by a slash. Keys name things; they are never masked. */
export function describeKey(entity: Entity, values: RecordValues): string {
  return entity.keyIndexes.map((index) => values[index] ?? '').join('/');
}

/** A record's key as text that no two different keys share. */
export function keyText(entity: Entity, values: RecordValues): string {
  const { keyIndexes } = entity;
  let text = values[keyIndexes[0]!]!;
  // Key parts hold no control characters, so a unit separator cannot be a part of one.
  for (let i = 1; i < keyIndexes.length; i++) text += `\u001f${values[keyIndexes[i]!]!}`;
  return text;
}

/** JSON Schema of a record as an object. */
export function entityJsonSchema(entity: Entity): unknown {
  const schema = z.toJSONSchema(entity.schema, { unrepresentable: 'any' });
  const meanings: Readonly<Record<string, string | undefined>> = entity.meanings ?? {};
  for (const [field, property] of Object.entries(schema.properties ?? {}))
    if (typeof property === 'object' && meanings[field] !== undefined) property.description = meanings[field];
  return {
    ...schema,
    title: entity.name,
    description: entity.description,
    'x-version': entity.version,
    'x-key': entity.key,
  };
}
