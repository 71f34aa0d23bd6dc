/** Blocks compiled against the tables they read: which columns are kept of each table, and how rows find each other. */
import type { TableSchema } from '../../core/frame.ts';
import { inventoryMovement } from '../canonical/entities-inventory.ts';
import { compileCondition, compileExpression, type Evaluator, type MappingFunction, type Test } from './evaluate.ts';
import {
  givesStructure,
  type Aggregate,
  type ColumnRef,
  type Condition,
  type Expression,
  type FilePath,
} from './expression.ts';
import { childrenOf, type Block, type Mapping } from './mapping-file.ts';
import { RowIndex, TableStore } from './table-store.ts';

/** A column that is kept: the first of `columns` that the table has. */
export interface Slot {
  readonly columns: readonly string[];
  /** As the source wrote it, for a cast that the mapping makes. */
  readonly raw: boolean;
  /** Absent where the table has none of them. */
  readonly optional: boolean;
  /** Where the mapping first names it. */
  readonly path: FilePath;
}

/** A table that a mapping reads, under whichever of its names the source has. */
export class TablePlan {
  readonly names: readonly string[];
  readonly path: FilePath;
  readonly slots: Slot[] = [];
  /** Only optional joins read it, so a source may be without it. */
  optional = true;
  readonly store = new TableStore();
  readonly #matchers: readonly RegExp[];

  constructor(names: readonly string[], path: FilePath) {
    this.names = names;
    this.path = path;
    this.#matchers = names.map(tableMatcher);
  }

  matches(table: Pick<TableSchema, 'schema' | 'name'>): boolean {
    return this.#matchers.some((matcher) => matcher.test(`${table.schema}.${table.name}`));
  }

  slot(columns: readonly string[], raw: boolean, path: FilePath, optional = false): number {
    const wanted = columns.join('\0');
    const there = this.slots.findIndex(
      (slot) => slot.raw === raw && slot.optional === optional && slot.columns.join('\0') === wanted,
    );
    if (there >= 0) return there;
    this.slots.push({ columns, raw, optional, path });
    return this.slots.length - 1;
  }
}

/** An input of a block: the table it comes from, and how its row is found from that of its parent. */
export interface Input {
  readonly name: string;
  readonly table: TablePlan;
  /** Input that it hangs on; itself for the first. */
  readonly parent: number;
  readonly optional: boolean;
  /** Over this table, by the columns that are compared. */
  readonly forward: RowIndex;
  /** Over the parent's table, by the columns that they are compared with. */
  readonly reverse: RowIndex;
}

export interface CompiledField {
  /** Position in the entity. */
  readonly field: number;
  readonly evaluate: Evaluator;
  readonly aggregate?: Aggregate;
  /** Of a list that is collected: values are JSON of structures, and no texts; equal ones stand there once. */
  readonly collected?: { readonly structures: boolean; readonly distinct: boolean };
  /** Which rows an aggregate counts. */
  readonly counts?: Test;
}

export interface CompiledBlock {
  readonly block: Block;
  readonly inputs: readonly Input[];
  readonly where: Test | undefined;
  /** What `where` asks, part by part: each needs no more than so many inputs. */
  readonly whereParts: readonly { readonly inputs: number; readonly test: Test }[];
  readonly expires: Evaluator | undefined;
  /** In the order of the entity's key. */
  readonly keys: readonly Evaluator[];
  /** All but the key. */
  readonly fields: readonly CompiledField[];
  /** What all rows of a record must have in common. */
  readonly same: readonly { readonly name: string; readonly evaluate: Evaluator }[];
  /** Name, in the file, of the rule that makes a field: for explanations. */
  readonly rule: string;
}

export interface MappingPlan {
  readonly mapping: Mapping;
  readonly tables: readonly TablePlan[];
  readonly blocks: readonly CompiledBlock[];
  /** The entity whose records are made; undefined where all are. */
  readonly entity: string | undefined;
  /** Tables whose rows tell of something that happened: once it has been told, they need not be kept. */
  readonly events: ReadonlySet<TablePlan>;
}

/**
 * Compiles the blocks of a mapping that fill `entity` (all when left out), and those of the entities in `evidence`, which
 * are only looked at.
 */
export function compileMapping(
  mapping: Mapping,
  functions: ReadonlyMap<string, MappingFunction>,
  entity?: string,
  evidence: readonly string[] = [],
): MappingPlan {
  const tables: TablePlan[] = [];
  const tableOf = (names: readonly string[], path: FilePath): TablePlan => {
    let plan = tables.find((table) => table.names.join('\0') === names.join('\0'));
    if (plan === undefined) tables.push((plan = new TablePlan(names, path)));
    return plan;
  };
  const blocks = mapping.blocks
    .filter(({ entity: { name } }) => entity === undefined || name === entity || evidence.includes(name))
    .map((block) => {
      const isRecord = entity === undefined || block.entity.name === entity;
      return compileBlock(mapping, block, isRecord ? countedOf(block) : block.where, tableOf, functions);
    });
  return { mapping, tables, blocks, entity, events: eventTables(blocks, evidence) };
}

/** Tables that nothing but blocks of movements are read from: a ledger grows for ever, and may not be kept for that. */
function eventTables(blocks: readonly CompiledBlock[], evidence: readonly string[]): Set<TablePlan> {
  const tells = ({ block }: CompiledBlock): boolean =>
    block.entity.name === inventoryMovement.name && evidence.includes(block.entity.name) && !block.group;
  const tables = new Set(blocks.filter(tells).map(({ inputs }) => inputs[0]!.table));
  for (const block of blocks)
    for (const [index, { table }] of block.inputs.entries()) if (index > 0 || !tells(block)) tables.delete(table);
  return tables;
}

/** Which rows make records: those that meet `where` and were not taken back. */
function countedOf({ where, cancelled }: Block): Condition | undefined {
  if (cancelled === undefined) return where;
  const { path } = cancelled;
  const standing: Condition = { op: 'not', of: cancelled, path };
  return where === undefined ? standing : { op: 'all', items: [where, standing], path };
}

function compileBlock(
  mapping: Mapping,
  block: Block,
  where: Condition | undefined,
  tableOf: (names: readonly string[], path: FilePath) => TablePlan,
  functions: ReadonlyMap<string, MappingFunction>,
): CompiledBlock {
  const driving = tableOf(block.tables, [...block.path, 'from']);
  driving.optional = false;
  const names = ['', ...block.joins.map((join) => join.name)];
  const plans = [driving, ...block.joins.map((join) => tableOf(join.tables, [...join.path, 'table']))];
  const locate = (ref: ColumnRef, raw: boolean, path: FilePath = block.path): { input: number; slot: number } => {
    const input = names.indexOf(ref.input);
    return { input, slot: plans[input]!.slot(ref.columns, raw, path, ref.optional) };
  };
  const scopeAt = (path: FilePath) => ({
    locate: (ref: ColumnRef, raw: boolean) => locate(ref, raw, path),
    functions,
  });
  const inputs: Input[] = [
    {
      name: '',
      table: driving,
      parent: 0,
      optional: false,
      forward: new RowIndex([], []),
      reverse: new RowIndex([], []),
    },
  ];
  for (const [index, join] of block.joins.entries()) {
    const table = plans[index + 1]!;
    if (!join.optional) table.optional = false;
    const here: number[] = [];
    const there: number[] = [];
    const constants: [number, string][] = [];
    let parent = 0;
    for (const { column, equals } of join.on) {
      const path = [...join.path, 'on', column];
      const slot = table.slot([column], false, path);
      if (equals.op === 'column') {
        const located = locate(equals.ref, false, path);
        parent = located.input;
        here.push(slot);
        there.push(located.slot);
      } else if (equals.op === 'const') constants.push([slot, equals.value!]);
    }
    inputs.push({
      name: join.name,
      table,
      parent,
      optional: join.optional,
      forward: table.store.index(here, constants),
      reverse: plans[parent]!.store.index(there),
    });
  }
  const compile = (value: Expression): Evaluator => compileExpression(value, scopeAt(value.path));
  const valueOf = (name: string): Expression => block.fields.find((field) => field.name === name)!.value;
  const fields = block.fields
    .filter(({ name }) => !block.entity.key.includes(name))
    .map(({ name, value }): CompiledField => {
      const field = block.entity.index.get(name)!;
      if (value.op !== 'aggregate') return { field, evaluate: compile(value) };
      return {
        field,
        evaluate: compile(value.of),
        aggregate: value.aggregate,
        ...(value.aggregate === 'collect'
          ? { collected: { structures: givesStructure(value.of), distinct: value.distinct === true } }
          : {}),
        ...(value.where === undefined ? {} : { counts: compileCondition(value.where, scopeAt(value.where.path)) }),
      };
    });
  return {
    block,
    inputs,
    where: where === undefined ? undefined : compileCondition(where, scopeAt(where.path)),
    whereParts: partsOf(where).map((part) => ({
      inputs: 1 + Math.max(0, ...inputsIn(part).map((name) => names.indexOf(name))),
      test: compileCondition(part, scopeAt(part.path)),
    })),
    expires: block.expires === undefined ? undefined : compile(block.expires),
    keys: block.entity.key.map((name) => compile(valueOf(name))),
    fields,
    same: block.same.map((value) => ({ name: columnName(value), evaluate: compile(value) })),
    rule: `${mapping.name}:${block.path.join('.')}`,
  };
}

/** How a column is called in messages. */
function columnName(value: Expression): string {
  if (value.op !== 'column') return 'same';
  const { input, columns } = value.ref;
  return input === '' ? columns[0]! : `${input}.${columns[0]!}`;
}

/** Conditions that must all hold. */
function partsOf(condition: Condition | undefined): readonly Condition[] {
  if (condition === undefined) return [];
  return condition.op === 'all' ? condition.items.flatMap(partsOf) : [condition];
}

/** The inputs whose columns are named. */
function inputsIn(value: Expression | Condition): string[] {
  return value.op === 'column' ? [value.ref.input] : childrenOf(value).flatMap(inputsIn);
}

/** A table's name with or without schema, and `*` for any characters, as a test of `schema.name`. */
function tableMatcher(name: string): RegExp {
  const pattern = name.replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`).replaceAll('*', '.*');
  return new RegExp(name.includes('.') ? `^${pattern}$` : `^[^.]*\\.${pattern}$`);
}
