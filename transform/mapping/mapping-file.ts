/** Mapping files: YAML from source tables and columns to the fields of canonical entities. */
import { z } from 'zod';
import { nearest } from '../../core/nearest.ts';
import { ENTITIES, ENTITY_NAMES } from '../canonical/catalog.ts';
import type { Entity } from '../canonical/entity.ts';
import { isTimeZone } from '../canonical/timestamp.ts';
import { ExpressionReader, type Condition, type Expression, type FilePath, type MappingProblem } from './expression.ts';
import { mappingError, parseYamlFile, readMapping } from './yaml-file.ts';

const name = z.string().regex(/^[a-z][a-z0-9_]*$/, 'must be lower case letters, digits and _');
/** A table, with or without its schema; or several, of which a source has one. */
const tables = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)], 'must be a table, or a list of tables');
const join = z.strictObject({
  table: tables,
  on: z.record(z.string(), z.unknown()),
  optional: z.boolean().default(false),
});
const block = z.strictObject({
  from: tables,
  join: z.record(name, join).default({}),
  where: z.unknown().optional(),
  /** Rows that were taken back: they make no record, and as evidence they count, since another row takes them back. */
  cancelled: z.unknown().optional(),
  /** Rows of one key are added up instead of being refused. */
  group: z.boolean().default(false),
  /** What rows of one key must have in common to be added up. */
  same: z.array(z.unknown()).min(1, 'must name at least one column').optional(),
  /** A time after which a row no longer counts, though nothing in it changes. */
  expires: z.unknown().optional(),
  fields: z.record(z.string(), z.unknown()),
});
const fileSchema = z.strictObject({
  version: z.literal(1, 'must be 1'),
  name,
  description: z.string().optional(),
  /** The zone of timestamps that the source stores without one. */
  zone: z.string().refine(isTimeZone, 'is not a time zone that is known').optional(),
  /** What a zero date of MySQL (0000-00-00) means: an error, or no value. */
  zero_dates: z.enum(['refuse', 'null']).default('refuse'),
  /** Constants that a flow may set otherwise, by name. */
  settings: z.record(name, z.string()).default({}),
  /** Module whose exported functions `call` may use. */
  functions: z.string().optional(),
  entities: z.record(z.string(), z.union([block, z.array(block).min(1)], 'must be a block, or a list of blocks')),
});

export interface Join {
  readonly name: string;
  readonly tables: readonly string[];
  /** Columns of the joined table, and what each must equal. */
  readonly on: readonly { readonly column: string; readonly equals: Expression }[];
  readonly optional: boolean;
  readonly path: FilePath;
}

/** One way in which a source fills (some) fields of an entity. */
export interface Block {
  readonly entity: Entity;
  readonly tables: readonly string[];
  readonly joins: readonly Join[];
  readonly where?: Condition;
  /** Rows that were taken back. */
  readonly cancelled?: Condition;
  readonly group: boolean;
  /** All rows of a record must give the same for each of these, or the record is held. */
  readonly same: readonly Expression[];
  readonly expires?: Expression;
  readonly fields: readonly { readonly name: string; readonly value: Expression }[];
  readonly path: FilePath;
}

export interface Mapping {
  readonly name: string;
  readonly zone?: string;
  readonly zeroDates: 'refuse' | 'null';
  readonly functions?: string;
  readonly blocks: readonly Block[];
  /** The file, for messages. */
  readonly place: string;
  /** Line of a place in the file, from 1. */
  readonly lineOf: (path: FilePath) => number;
}

export interface MappingOptions {
  /** The zone of times without one, in place of what the file says: it belongs to an installation, not to a pack. */
  readonly zone?: string | undefined;
  /** In place of what the file says under `settings`. */
  readonly settings?: Readonly<Record<string, string>> | undefined;
}

/** Reads a mapping file. Throws `mapping_invalid` with one line for every problem. */
export function loadMapping(path: string, options: MappingOptions = {}): Mapping {
  return parseMapping(readMapping(path), path, options);
}

/** `loadMapping` for a text that is already there; `place` names it in errors. */
export function parseMapping(text: string, place: string, options: MappingOptions = {}): Mapping {
  const { data, lineOf } = parseYamlFile(fileSchema, text, place);
  const zone = options.zone ?? data.zone;
  const reader = new ExpressionReader(zone, new Map(Object.entries({ ...data.settings, ...options.settings })));
  for (const setting of Object.keys(options.settings ?? {}))
    if (!(setting in data.settings)) {
      const near = nearest(setting, Object.keys(data.settings));
      const meant = near === undefined ? '' : ` (did you mean "${near}"?)`;
      reader.problems.push({ path: ['settings'], message: `the flow sets "${setting}", which is no setting${meant}` });
    }
  const blocks = Object.entries(data.entities).flatMap(([entityName, given]) => {
    const path = ['entities', entityName];
    const entity = ENTITIES.get(entityName);
    if (entity === undefined) {
      const near = nearest(entityName, ENTITY_NAMES);
      reader.problems.push({
        path,
        message: `there is no entity "${entityName}"${near === undefined ? '' : ` (did you mean "${near}"?)`}`,
      });
      return [];
    }
    const list = Array.isArray(given) ? given : [given];
    return list.map((raw, index) => readBlock(reader, entity, raw, Array.isArray(given) ? [...path, index] : path));
  });
  const { functions } = data;
  const mapping: Mapping = {
    name: data.name,
    zeroDates: data.zero_dates,
    blocks,
    place,
    lineOf,
    ...(zone === undefined ? {} : { zone }),
    ...(functions === undefined ? {} : { functions }),
  };
  if (reader.problems.length > 0) throw mappingError(mapping, reader.problems);
  return mapping;
}

function readBlock(reader: ExpressionReader, entity: Entity, raw: z.infer<typeof block>, path: FilePath): Block {
  const before = reader.problems.length;
  const joins = Object.entries(raw.join).map(([joinName, spec]): Join => {
    const at = [...path, 'join', joinName];
    return {
      name: joinName,
      tables: listOf(spec.table),
      on: Object.entries(spec.on).map(([column, value]) => ({
        column,
        equals: reader.expression(value, [...at, 'on', column]),
      })),
      optional: spec.optional,
      path: at,
    };
  });
  const fields = Object.entries(raw.fields).map(([field, value]) => ({
    name: field,
    value: reader.expression(value, [...path, 'fields', field]),
  }));
  const result: Block = {
    entity,
    tables: listOf(raw.from),
    joins,
    ...(raw.where === undefined ? {} : { where: reader.condition(raw.where, [...path, 'where']) }),
    ...(raw.cancelled === undefined ? {} : { cancelled: reader.condition(raw.cancelled, [...path, 'cancelled']) }),
    group: raw.group,
    same: (raw.same ?? []).map((value, index) => reader.expression(value, [...path, 'same', index])),
    ...(raw.expires === undefined ? {} : { expires: reader.expression(raw.expires, [...path, 'expires']) }),
    fields,
    path,
  };
  if (reader.problems.length === before) reader.problems.push(...blockProblems(result));
  return result;
}

/** What is wrong with a block whatever the source's tables are. */
function blockProblems(given: Block): MappingProblem[] {
  const { entity, path } = given;
  const problems: MappingProblem[] = [];
  const report = (at: FilePath, message: string): void => void problems.push({ path: at, message });
  const known = entity.fields.filter((field) => !field.derived).map((field) => field.name);
  const supplied = new Set(given.fields.map((field) => field.name));
  for (const { name: field, value } of given.fields) {
    const at = [...path, 'fields', field];
    const definition = entity.fields.find((candidate) => candidate.name === field);
    if (definition === undefined) {
      const near = nearest(field, known);
      report(at, `${entity.name} has no field "${field}"${near === undefined ? '' : ` (did you mean "${near}"?)`}`);
    } else if (definition.derived) report(at, `${field} is computed, and cannot be supplied`);
    if (value.op === 'aggregate' && !given.group) report(at, `${value.aggregate} needs "group: true"`);
    if (value.op === 'aggregate' && definition?.key === true) report(at, 'a field of the key cannot be an aggregate');
  }
  if (given.same.length > 0 && !given.group) report([...path, 'same'], 'same needs "group: true"');
  for (const key of entity.key)
    if (!supplied.has(key)) report([...path, 'fields'], `does not supply ${key}, a field of the key`);
  const earlier = new Set(['']);
  for (const item of given.joins) {
    const origins = new Set<string>();
    if (item.on.length === 0) report([...item.path, 'on'], 'must name at least one column');
    for (const { column, equals } of item.on) {
      const at = [...item.path, 'on', column];
      if (equals.op === 'column') {
        origins.add(equals.ref.input);
        if (!earlier.has(equals.ref.input)) report(at, `"${equals.ref.input}" is not joined before this`);
      } else if (equals.op !== 'const' || equals.value === null) report(at, 'must be a column or a constant');
    }
    if (origins.size > 1) report([...item.path, 'on'], 'must take its columns from one table');
    if (origins.size === 0 && item.on.length > 0) report([...item.path, 'on'], 'must take at least one column');
    earlier.add(item.name);
  }
  const visit = (value: Expression | Condition, top: boolean): void => {
    if (value.op === 'column' && !earlier.has(value.ref.input))
      report(value.path, `there is no join "${value.ref.input}"`);
    if (value.op === 'aggregate' && !top) report(value.path, `${value.aggregate} must stand alone`);
    for (const child of childrenOf(value)) visit(child, false);
  };
  for (const field of given.fields) visit(field.value, true);
  for (const value of given.same) visit(value, false);
  if (given.where !== undefined) visit(given.where, false);
  if (given.cancelled !== undefined) visit(given.cancelled, false);
  if (given.expires !== undefined) visit(given.expires, false);
  return problems;
}

/** The expressions and conditions directly below one. */
export function childrenOf(value: Expression | Condition): (Expression | Condition)[] {
  if ('items' in value) return [...value.items];
  if ('a' in value) return [value.a, value.b];
  if (value.op === 'object') return value.members.map(([, item]) => item);
  if (value.op === 'call') return [...value.with];
  if (value.op === 'if') return [value.condition, value.consequent, value.otherwise];
  const children: (Expression | Condition)[] = [];
  if ('of' in value) children.push(value.of);
  if ('otherwise' in value && value.otherwise !== undefined) children.push(value.otherwise);
  if ('from' in value) children.push(value.from, value.to);
  if ('where' in value && value.where !== undefined) children.push(value.where);
  return children;
}

function listOf(value: string | string[]): string[] {
  return typeof value === 'string' ? [value] : value;
}
