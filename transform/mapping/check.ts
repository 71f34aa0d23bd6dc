/** A mapping against the tables of a source: unknown columns, wrong types, missing inputs, times without a zone. */
import type { TableSchema } from '../../core/frame.ts';
import { nearest } from '../../core/nearest.ts';
import type { ValueKind } from '../canonical/field-type.ts';
import type { CompiledBlock, MappingPlan, TablePlan } from './block-plan.ts';
import { kindOfColumn, type ColumnKind } from '../../core/value-kind.ts';
import type { ColumnRef, Condition, Expression, MappingProblem } from './expression.ts';
import { childrenOf, type Mapping } from './mapping-file.ts';

/** What a value may be, before its field's own rules: `unknown` where only the value can tell. */
export type Kind = ColumnKind | 'unknown';

/** Everything wrong with a mapping for a source that has these tables. */
export function checkMapping(
  plan: MappingPlan,
  tables: readonly TableSchema[],
  functions: ReadonlyMap<string, unknown> = new Map(),
): MappingProblem[] {
  const problems: MappingProblem[] = [];
  const found = new Map<TablePlan, TableSchema>();
  for (const table of plan.tables) {
    const matching = tables.filter((candidate) => table.matches(candidate));
    const [first] = matching;
    if (first === undefined) {
      if (table.optional) continue;
      problems.push({
        path: table.path,
        message: `the source has no table ${table.names.join(' or ')}${hint(table.names[0]!, tables.map(nameOf))}`,
      });
    }
    if (matching.length > 1)
      problems.push({
        path: table.path,
        message: `${table.names.join(' or ')} fits several tables: ${matching.map((match) => `${match.schema}.${match.name}`).join(', ')}`,
      });
    else if (first !== undefined) found.set(table, first);
  }
  for (const [table, schema] of found) problems.push(...checkTable(plan.mapping, table, schema));
  for (const block of plan.blocks) problems.push(...checkBlock(block, found, functions));
  return problems;
}

/** What is wrong with one table for the columns that a mapping keeps of it. */
export function checkTable(mapping: Mapping, plan: TablePlan, table: TableSchema): MappingProblem[] {
  const problems: MappingProblem[] = [];
  const name = `${table.schema}.${table.name}`;
  if (table.key.length === 0)
    problems.push({ path: plan.path, message: `table ${name} has no key, so its rows cannot be followed` });
  const columns = new Map(table.columns.map((column) => [column.name, column]));
  for (const { columns: wanted, raw, optional, path } of plan.slots) {
    const present = wanted.find((column) => columns.has(column));
    if (present === undefined) {
      if (optional) continue;
      const message = `table ${name} has no column ${wanted.join(' or ')}${hint(wanted[0]!, [...columns.keys()])}`;
      problems.push({ path, message });
      continue;
    }
    const column = columns.get(present)!;
    const { type } = column;
    const kind = kindOfColumn(column);
    if (kind === 'binary') problems.push({ path, message: `${name}.${present} is ${type}, which no field can hold` });
    if (kind === 'local' && !raw && mapping.zone === undefined)
      problems.push({
        path,
        message: `${name}.${present} is ${type}, a time without a zone: name its zone with "zone" or { timestamp: … }`,
      });
  }
  return problems;
}

function checkBlock(
  { block, inputs }: CompiledBlock,
  found: ReadonlyMap<TablePlan, TableSchema>,
  functions: ReadonlyMap<string, unknown>,
): MappingProblem[] {
  const problems: MappingProblem[] = [];
  const kindOfRef = (ref: ColumnRef): Kind => {
    const input = inputs.find((candidate) => candidate.name === ref.input);
    const table = input === undefined ? undefined : found.get(input.table);
    const present = ref.columns.find((column) => table?.columns.some((candidate) => candidate.name === column));
    const column = table?.columns.find((candidate) => candidate.name === present);
    return column === undefined ? 'unknown' : kindOfColumn(column);
  };
  const visit = (value: Expression | Condition): void => {
    if (value.op === 'call' && !functions.has(value.name))
      problems.push({
        path: value.path,
        message: `there is no function "${value.name}"${hint(value.name, [...functions.keys()])}`,
      });
    if (value.op === 'add' || value.op === 'multiply' || value.op === 'subtract' || value.op === 'divide')
      for (const item of value.items) refuseUnlessDecimal(item);
    if (value.op === 'negate') refuseUnlessDecimal(value.of);
    if (value.op === 'convert') refuseUnlessDecimal(value.of);
    if (value.op === 'aggregate' && value.aggregate === 'sum') refuseUnlessDecimal(value.of);
    for (const child of childrenOf(value)) visit(child);
  };
  const refuseUnlessDecimal = (value: Expression): void => {
    const kind = kindOf(value, kindOfRef);
    if (kind !== 'decimal' && kind !== 'unknown')
      problems.push({ path: value.path, message: `is ${describe(kind)}, and a number is needed` });
  };
  for (const { name, value } of block.fields) {
    visit(value);
    const field = block.entity.fields[block.entity.index.get(name)!]!;
    const kind = kindOf(value, kindOfRef);
    const wrong = mismatch(kind, field.type.kind);
    if (wrong !== undefined)
      problems.push({
        path: value.path,
        message: `is ${describe(kind)}, and ${block.entity.name}.${name} needs ${wrong}`,
      });
    if (value.op === 'const' && value.value !== null) {
      const fault = field.type.fault(value.value);
      if (fault !== undefined) problems.push({ path: value.path, message: `the constant ${fault}` });
    }
    if (value.op === 'const' && value.value === null && !field.nullable && !field.key)
      problems.push({ path: value.path, message: `${block.entity.name}.${name} must not be absent` });
  }
  for (const value of block.same) visit(value);
  if (block.where !== undefined) visit(block.where);
  if (block.cancelled !== undefined) visit(block.cancelled);
  if (block.expires !== undefined) {
    visit(block.expires);
    const kind = kindOf(block.expires, kindOfRef);
    if (kind !== 'timestamp' && kind !== 'local' && kind !== 'unknown')
      problems.push({ path: block.expires.path, message: `is ${describe(kind)}, and a time is needed` });
  }
  return problems;
}

/** The kind of an expression's value, as far as the types of its columns say. */
export function kindOf(value: Expression, column: (ref: ColumnRef) => Kind): Kind {
  switch (value.op) {
    case 'column':
      return column(value.ref);
    case 'concat':
    case 'trim':
    case 'upper':
    case 'lower':
    case 'split':
    case 'gtin':
    case 'milestone':
      return 'text';
    case 'add':
    case 'multiply':
    case 'subtract':
    case 'divide':
    case 'negate':
    case 'decimal':
    case 'convert':
      return 'decimal';
    case 'timestamp':
    case 'x12_time':
      return 'timestamp';
    case 'list':
    case 'object':
      return 'json';
    case 'aggregate':
      if (value.aggregate === 'collect') return 'json';
      return value.aggregate === 'count' || value.aggregate === 'sum' ? 'decimal' : kindOf(value.of, column);
    case 'coalesce':
      return common(value.items.map((item) => kindOf(item, column)));
    case 'if':
      return common([kindOf(value.consequent, column), kindOf(value.otherwise, column)]);
    default:
      return 'unknown';
  }
}

function common(kinds: readonly Kind[]): Kind {
  const known = new Set(kinds.filter((kind) => kind !== 'unknown'));
  return known.size === 1 ? [...known][0]! : 'unknown';
}

/** What the field needs, when the value cannot be that. Numbers, days and booleans have a text. */
function mismatch(kind: Kind, needed: ValueKind): string | undefined {
  if (kind === 'unknown') return undefined;
  switch (needed) {
    case 'text':
      return kind === 'json' || kind === 'binary' ? 'a text' : undefined;
    case 'decimal':
    case 'integer':
      return kind === 'decimal' ? undefined : 'a number (cast texts with { decimal: … })';
    case 'boolean':
      return kind === 'boolean' ? undefined : 'true or false (use { if: … })';
    case 'timestamp':
      return kind === 'timestamp' || kind === 'local' ? undefined : 'a time (cast it with { timestamp: … })';
    case 'date':
      return kind === 'date' ? undefined : 'a day';
    default:
      return kind === 'json' || kind === 'text' ? undefined : 'a structure';
  }
}

function describe(kind: Kind): string {
  return kind === 'local' ? 'a time without a zone' : kind === 'json' ? 'a structure' : kind;
}

function nameOf(table: TableSchema): string {
  return table.name;
}

function hint(word: string, known: readonly string[]): string {
  const near = nearest(word, known);
  return near === undefined ? '' : ` (did you mean "${near}"?)`;
}
