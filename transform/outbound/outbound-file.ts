/** Outbound mappings: YAML from the fields of canonical entities to the tables and columns of a system that is there. */
import { z } from 'zod';
import { nearest } from '../../core/nearest.ts';
import {
  OutboundFault,
  type OutboundBlock,
  type OutboundColumn,
  type OutboundInput,
  type OutboundKind,
  type OutboundOrigin,
  type OutboundPlan,
  type OutboundWrite,
} from '../../core/outbound.ts';
import { ENTITIES, ENTITY_NAMES } from '../canonical/catalog.ts';
import type { Entity } from '../canonical/entity.ts';
import { isTimeZone } from '../canonical/timestamp.ts';
import { isFault } from '../mapping/cell.ts';
import { kindOf } from '../mapping/check.ts';
import {
  compileCondition,
  compileExpression,
  type CompileScope,
  type Evaluator,
  type JoinedRows,
  type Test,
} from '../mapping/evaluate.ts';
import { ExpressionReader, type Condition, type Expression, type FilePath } from '../mapping/expression.ts';
import { childrenOf } from '../mapping/mapping-file.ts';
import { mappingError, parseYamlFile, readMapping } from '../mapping/yaml-file.ts';

const columns = z.record(z.string(), z.unknown());
const block = z.strictObject({
  /** The table, with or without its schema. */
  to: z.string().min(1),
  where: z.unknown().optional(),
  /** Columns that tell rows apart; they must have a unique index. */
  key: columns.refine((key) => Object.keys(key).length > 0, 'must name at least one column'),
  set: columns.default({}),
  new: columns.default({}),
  missing: z.enum(['insert', 'wait', 'ignore']).default('insert'),
  gone: z.union([z.enum(['ignore', 'delete']), z.strictObject({ set: columns })]).default('ignore'),
});
const find = z.strictObject({ find: z.string().regex(/^.+\..+$/, 'must be table.column'), where: columns });
const fileSchema = z.strictObject({
  version: z.literal(1, 'must be 1'),
  name: z.string().regex(/^[a-z][a-z0-9_]*$/, 'must be lower case letters, digits and _'),
  description: z.string().optional(),
  /** The zone in which the system keeps times without one. */
  zone: z.string().refine(isTimeZone, 'is not a time zone that is known').optional(),
  outbound: z.record(z.string(), z.union([block, z.array(block).min(1)], 'must be a block, or a list of blocks')),
});
type RawBlock = z.infer<typeof block>;

/** Loads what a mapping does with one entity. Throws `mapping_invalid` with one line for every problem of the file. */
export function loadOutboundPlan(path: string, entity: string): OutboundPlan {
  return parseOutboundPlan(readMapping(path), path, entity);
}

/** `loadOutboundPlan` for a text that is already there; `place` names it in errors. */
export function parseOutboundPlan(text: string, place: string, entityName: string): OutboundPlan {
  const { data, lineOf } = parseYamlFile(fileSchema, text, place);
  const reader = new ExpressionReader(data.zone);
  const blocks: { entity: Entity; read: OutboundBlock }[] = [];
  for (const [name, given] of Object.entries(data.outbound)) {
    const path = ['outbound', name];
    const entity = ENTITIES.get(name);
    if (entity === undefined) {
      reader.problems.push({ path, message: `there is no entity "${name}"${hint(name, ENTITY_NAMES)}` });
      continue;
    }
    const list = Array.isArray(given) ? given : [given];
    for (const [index, raw] of list.entries()) {
      const at = Array.isArray(given) ? [...path, index] : path;
      blocks.push({ entity, read: new BlockReader(reader, entity, lineOf, at).read(raw) });
    }
  }
  if (reader.problems.length > 0) throw mappingError({ place, lineOf }, reader.problems);
  const own = blocks.filter(({ entity }) => entity.name === entityName);
  const entity = own[0]?.entity;
  if (entity === undefined)
    throw mappingError({ place, lineOf }, [{ path: ['outbound'], message: `has nothing for ${entityName}` }]);
  return {
    entity: entity.name,
    fields: entity.fields.map((field) => field.name),
    key: entity.keyIndexes,
    blocks: own.map(({ read }) => read),
    place,
    ...(data.zone === undefined ? {} : { zone: data.zone }),
  };
}

/** What is read of a block, before it is compiled: cells, and the columns that take them. */
interface Draft {
  readonly cells: { readonly evaluate: Evaluator; readonly column: string }[];
  readonly columns: OutboundColumn[];
  /** Cells that must not be absent. */
  readonly needed: Set<number>;
}

class BlockReader {
  readonly #reader: ExpressionReader;
  readonly #entity: Entity;
  readonly #lineOf: (path: FilePath) => number;
  readonly #path: FilePath;
  readonly #scope: CompileScope;

  constructor(reader: ExpressionReader, entity: Entity, lineOf: (path: FilePath) => number, path: FilePath) {
    this.#reader = reader;
    this.#entity = entity;
    this.#lineOf = lineOf;
    this.#path = path;
    this.#scope = {
      locate: ({ columns: [field] }) => ({ input: 0, slot: entity.index.get(field!) ?? 0 }),
      functions: new Map(),
    };
  }

  read(raw: RawBlock): OutboundBlock {
    const path = this.#path;
    const { gone } = raw;
    if (raw.missing !== 'insert' && Object.keys(raw.new).length > 0)
      this.#report([...path, 'new'], `is of no use: with "missing: ${raw.missing}" no row is made`);
    if (raw.missing === 'insert' ? false : Object.keys(raw.set).length === 0)
      this.#report([...path, 'set'], 'must name at least one column');
    const draft = this.#draft(raw.key, gone !== 'ignore');
    this.#columns(draft, 'set', raw.set, [...path, 'set']);
    this.#columns(draft, 'new', raw.new, [...path, 'new']);
    const where = raw.where === undefined ? undefined : this.#reader.condition(raw.where, [...path, 'where']);
    if (where !== undefined) this.#fields(where, false);
    const write = this.#write(draft, raw.to, raw.missing, this.#test(where));
    const ofKey = this.#test(where === undefined ? undefined : this.#ofKey(where));
    // What cannot be told of the key could not be told of the record either, which never came in.
    const letIn = (rows: JoinedRows): boolean => ofKey === undefined || ofKey(rows) === true;
    const mayTake: OutboundBlock['mayTake'] = (record) => letIn([{ key: '', values: record }]);
    const pinned = new Map(where === undefined ? [] : pinnedBy(where));
    const block = { write, mayTake, pinned, keyLine: this.#lineOf([...path, 'key']) };
    if (gone === 'ignore') return { ...block, gone };
    const ending = this.#draft(raw.key, true);
    if (gone !== 'delete') this.#columns(ending, 'set', gone.set, [...path, 'gone', 'set'], true);
    const end = { remove: gone === 'delete', write: this.#write(ending, raw.to, 'ignore', letIn) };
    return { ...block, gone: end };
  }

  #draft(key: RawBlock['key'], keyOnly: boolean): Draft {
    const draft: Draft = { cells: [], columns: [], needed: new Set() };
    this.#columns(draft, 'key', key, [...this.#path, 'key'], keyOnly);
    return draft;
  }

  #columns(draft: Draft, role: OutboundColumn['role'], given: RawBlock['set'], at: FilePath, keyOnly = false): void {
    for (const [name, value] of Object.entries(given)) {
      const path = [...at, name];
      if (draft.columns.some((column) => column.name === name)) this.#report(path, 'is given twice');
      draft.columns.push({
        name,
        role,
        value: this.#value(draft, role, name, value, path, keyOnly),
        line: this.#lineOf(path),
      });
    }
  }

  #value(
    draft: Draft,
    role: OutboundColumn['role'],
    name: string,
    value: unknown,
    path: FilePath,
    keyOnly: boolean,
  ): OutboundColumn['value'] {
    if (value === null || typeof value !== 'object' || !('find' in value))
      return this.#cell(draft, name, value, path, keyOnly, role === 'key');
    const parsed = find.safeParse(value);
    if (!parsed.success) {
      for (const issue of parsed.error.issues)
        this.#report([...path, ...(issue.path as (string | number)[])], issue.message);
      return { cell: 0, kind: 'unknown' };
    }
    const dot = parsed.data.find.lastIndexOf('.');
    return {
      table: parsed.data.find.slice(0, dot),
      column: parsed.data.find.slice(dot + 1),
      where: Object.entries(parsed.data.where).map(([column, equals]) => ({
        column,
        ...this.#cell(draft, name, equals, [...path, 'where', column], keyOnly, role === 'key'),
      })),
    };
  }

  #cell(draft: Draft, column: string, value: unknown, path: FilePath, keyOnly: boolean, ofKey: boolean): OutboundInput {
    const expression = this.#reader.expression(value, path);
    this.#fields(expression, keyOnly);
    const cell = draft.cells.length;
    draft.cells.push({ evaluate: compileExpression(expression, this.#scope), column });
    const kind = this.#kind(expression);
    if (!ofKey) return { cell, kind };
    draft.needed.add(cell);
    const origin = this.#originOf(expression);
    return { cell, kind, ...(origin === undefined ? {} : { origin }) };
  }

  #originOf(expression: Expression): OutboundOrigin | undefined {
    if (expression.op === 'const') return { constant: expression.value };
    if (expression.op === 'column') return { field: expression.ref.columns[0]!, asNumber: false };
    if (expression.op !== 'decimal') return undefined;
    const of = this.#originOf(expression.of);
    // A number is the same as a number; of a text it leaves out how it was written.
    return of === undefined || 'constant' in of
      ? undefined
      : { ...of, asNumber: of.asNumber || this.#kind(expression.of) !== 'decimal' };
  }

  #kind(expression: Expression): OutboundKind {
    const kind = kindOf(expression, ({ columns: [field] }) => {
      const index = this.#entity.index.get(field!);
      const found = index === undefined ? undefined : this.#entity.fields[index]!.type.kind;
      return found === undefined ? 'unknown' : found === 'integer' ? 'decimal' : found;
    });
    return kind === 'local' || kind === 'binary' ? 'unknown' : kind;
  }

  /** Fields that an expression names must be there; of a record that has gone only the key is known. */
  #fields(value: Expression | Condition, keyOnly: boolean): void {
    if (value.op === 'call') this.#report(value.path, 'cannot be used here');
    if (value.op === 'aggregate') this.#report(value.path, `${value.aggregate} cannot be used here`);
    if (value.op === 'column') {
      const { input, columns: names } = value.ref;
      const { fields, name: entity } = this.#entity;
      const field = fields.find((candidate) => input === '' && candidate.name === names[0]);
      if (field === undefined || names.length > 1) {
        const name = input === '' ? names[0]! : `${input}.${names[0]!}`;
        this.#report(
          value.path,
          `${entity} has no field "${name}"${hint(
            name,
            fields.map((each) => each.name),
          )}`,
        );
      } else if (keyOnly && !field.key)
        this.#report(value.path, `${field.name} is not known of a record that has gone: only fields of its key are`);
    }
    for (const child of childrenOf(value)) this.#fields(child, keyOnly);
  }

  #test(where: Condition | undefined): Test | undefined {
    return where === undefined ? undefined : compileCondition(where, this.#scope);
  }

  /** What a condition asks of the record's key alone; undefined where by its key any record might pass. */
  #ofKey(where: Condition): Condition | undefined {
    if (where.op === 'all' || where.op === 'any') {
      const items = where.items.map((item) => this.#ofKey(item)).filter((item) => item !== undefined);
      const asks = where.op === 'all' ? items.length > 0 : items.length === where.items.length;
      return asks ? { ...where, items } : undefined;
    }
    return this.#isOfKey(where) ? where : undefined;
  }

  #isOfKey(value: Expression | Condition): boolean {
    if (value.op === 'column' && !this.#entity.key.includes(value.ref.columns[0]!)) return false;
    return childrenOf(value).every((child) => this.#isOfKey(child));
  }

  #write(draft: Draft, table: string, missing: OutboundWrite['missing'], test: Test | undefined): OutboundWrite {
    const { cells, needed } = draft;
    return {
      table,
      line: this.#lineOf([...this.#path, 'to']),
      columns: draft.columns,
      missing,
      cells: (record) => {
        const rows = [{ key: '', values: record }];
        const wanted = test === undefined ? true : test(rows);
        if (typeof wanted !== 'boolean')
          return new OutboundFault(`where ${wanted.rule} (it is ${wanted.valueClass})`, false);
        if (!wanted) return undefined;
        const texts: (string | null)[] = [];
        for (const [index, { evaluate, column }] of cells.entries()) {
          const cell = evaluate(rows);
          const inKey = needed.has(index);
          if (isFault(cell))
            return new OutboundFault(`${table}.${column} ${cell.rule} (it is ${cell.valueClass})`, inKey);
          if (cell === null && inKey) return new OutboundFault(`${table}.${column} must not be absent`, inKey);
          texts.push(cell);
        }
        return texts;
      },
    };
  }

  #report(path: FilePath, message: string): void {
    this.#reader.problems.push({ path, message });
  }
}

/** Fields of which a condition lets one value pass, and that value. */
function pinnedBy(condition: Condition): [string, string | null][] {
  if (condition.op === 'all') return condition.items.flatMap(pinnedBy);
  if (condition.op === 'in') {
    const [only, ...others] = condition.values;
    return only === undefined || others.length > 0 ? [] : pin(condition.of, only);
  }
  if (condition.op !== 'eq') return [];
  const { a, b } = condition;
  if (b.op === 'const') return pin(a, b.value);
  return a.op === 'const' ? pin(b, a.value) : [];
}

function pin(of: Expression, value: string | null): [string, string | null][] {
  return of.op === 'column' ? [[of.ref.columns[0]!, value]] : [];
}

function hint(word: string, known: readonly string[]): string {
  const near = nearest(word, known);
  return near === undefined ? '' : ` (did you mean "${near}"?)`;
}
