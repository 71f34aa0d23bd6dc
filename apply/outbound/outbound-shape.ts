/** An outbound mapping against the tables of a system as they really are; they are never made or altered. */
import { nearest } from '../../core/nearest.ts';
import {
  isFind,
  type OutboundColumn,
  type OutboundInput,
  type OutboundPlan,
  type OutboundWrite,
} from '../../core/outbound.ts';
import { columnKind } from '../../core/value-kind.ts';
import { localTime } from './local-time.ts';

export interface SystemColumn {
  /** As the database writes it. */
  readonly type: string;
  /** What its type is made of, where that is one of the system's own (a domain). */
  readonly base?: string;
  readonly notNull: boolean;
  /** The database fills it where it is not given. */
  readonly defaulted: boolean;
  /** It cannot be written. */
  readonly generated: boolean;
  /** Texts are equal there only where they are the same. */
  readonly exact?: boolean;
  /** The collation, where texts have one that may take some for equal. */
  readonly collation?: string | undefined;
  /** Upper and lower case are one there, by the type and not by a collation: how it is asked whether two are equal. */
  readonly folding?: string;
  /** What this user may not do with it (SELECT, INSERT, UPDATE), where it may with other columns. */
  readonly denied?: readonly string[];
  /** The sequence that fills it where it is not given, and that this user may not take from. */
  readonly deniedSequence?: string;
}

export interface SystemTable {
  readonly schema: string;
  readonly name: string;
  /** Whether the name without the schema is this table, too. */
  readonly foundByName?: boolean;
  readonly columns: ReadonlyMap<string, SystemColumn>;
  /** Sets of columns that have a unique index. */
  readonly unique: readonly (readonly string[])[];
  /** What this user may not do with the table, or any column of it (SELECT, INSERT, UPDATE, DELETE). */
  readonly denied: readonly string[];
  /** The database does not name columns of which this user may do nothing, and there may be some. */
  readonly hides?: boolean;
}

/** Tables by the names that a mapping gives them; undefined where there is none. */
export type SystemTables = ReadonlyMap<string, SystemTable | undefined>;

export interface OutboundProblem {
  readonly line: number;
  readonly message: string;
}

/**
 * The names of a table that a mapping may give it: first the one with its schema, by which two are known to be the same. Of
 * one that is not there only what it is called.
 */
export function namesOfTable(tables: SystemTables, written: string): readonly string[] {
  const table = tables.get(written);
  if (table === undefined) return [written];
  const full = `${table.schema}.${table.name}`;
  return table.foundByName === true ? [full, table.name] : [full];
}

/** Names of all tables that a plan writes or looks into. */
export function tablesOf(plan: OutboundPlan): string[] {
  const names = writesOf(plan).flatMap((write) => [
    write.table,
    ...write.columns.flatMap(({ value }) => (isFind(value) ? [value.table] : [])),
  ]);
  return [...new Set(names)];
}

function writesOf({ blocks }: OutboundPlan): OutboundWrite[] {
  return blocks.flatMap(({ write, gone }) => (gone === 'ignore' ? [write] : [write, gone.write]));
}

/** Everything wrong with a plan for a system that has these tables. */
export function outboundProblems(plan: OutboundPlan, tables: SystemTables): OutboundProblem[] {
  const problems = plan.blocks.flatMap(({ write, gone }) => [
    ...writeProblems(write, tables, plan, false),
    ...(gone === 'ignore' ? [] : writeProblems(gone.write, tables, plan, gone.remove)),
  ]);
  const seen = new Set<string>();
  return problems.filter(({ line, message }) => {
    const id = `${line} ${message}`;
    if (seen.has(id)) return false;
    seen.add(id);
    return true;
  });
}

function writeProblems(
  write: OutboundWrite,
  tables: SystemTables,
  plan: OutboundPlan,
  removes: boolean,
): OutboundProblem[] {
  const problems: OutboundProblem[] = [];
  const report = (line: number, message: string): void => void problems.push({ line, message });
  const table = tables.get(write.table);
  if (table === undefined) return [{ line: write.line, message: noTable(write.table) }];
  const kindProblem = (where: SystemTable, column: string, { kind }: OutboundInput): string | undefined => {
    const { type, base = type } = where.columns.get(column)!;
    const fault = mismatch(kind, base, plan.zone);
    return fault === undefined ? undefined : `${where.name}.${column} is ${type}: ${fault}`;
  };
  for (const { name, value, line } of write.columns) {
    const column = table.columns.get(name);
    if (column === undefined) {
      report(line, unknownColumn(table, name));
      continue;
    }
    if (column.generated) report(line, `${table.name}.${name} is made by the database and cannot be written`);
    if (!isFind(value)) {
      const fault = kindProblem(table, name, value);
      if (fault !== undefined) report(line, fault);
      continue;
    }
    const searched = tables.get(value.table);
    if (searched === undefined) {
      report(line, noTable(value.table));
      continue;
    }
    for (const wanted of [value.column, ...value.where.map((each) => each.column)])
      if (!searched.columns.has(wanted)) report(line, unknownColumn(searched, wanted));
    for (const each of value.where) {
      const fault = searched.columns.has(each.column) ? kindProblem(searched, each.column, each) : undefined;
      if (fault !== undefined) report(line, fault);
    }
    if (
      !isUnique(
        searched,
        value.where.map((each) => each.column),
      )
    )
      report(line, `${searched.name} has no unique index on ${value.where.map((each) => each.column).join(', ')}`);
    const read = [value.column, ...value.where.map((each) => each.column)];
    problems.push(
      ...rightProblems(
        'SELECT',
        searched,
        line,
        read.map((wanted) => ({ name: wanted, line })),
      ),
    );
  }
  const key = write.columns.filter(({ role }) => role === 'key').map(({ name }) => name);
  if (!isUnique(table, key)) report(write.line, `${table.name} has no unique index on its key (${key.join(', ')})`);
  if (write.missing === 'insert') {
    const given = new Set(write.columns.map(({ name }) => name));
    for (const [name, { notNull, defaulted, generated, type, deniedSequence }] of table.columns) {
      if (given.has(name)) continue;
      if (deniedSequence !== undefined)
        report(
          write.line,
          `this user may not USE ${deniedSequence}, from which ${table.name}.${name} is filled: rows cannot be made`,
        );
      if (notNull && !defaulted && !generated)
        report(
          write.line,
          `${table.name}.${name} (${type}) is NOT NULL without a default, and is not given: rows cannot be made`,
        );
    }
  }
  for (const { verb, columns } of rightsOfWrite(write, removes))
    problems.push(...rightProblems(verb, table, write.line, columns));
  return problems;
}

/** A right that it takes to do something, and for which columns; for the whole table where there are none. */
export interface Right {
  readonly verb: 'SELECT' | 'INSERT' | 'UPDATE' | 'DELETE';
  readonly columns: readonly Pick<OutboundColumn, 'name' | 'line'>[];
}

/** What a user must be allowed to do with the table of a write. `removes`: rows are deleted, and nothing else. */
export function rightsOfWrite(write: OutboundWrite, removes: boolean): Right[] {
  const sets = columnsOf(write, 'set');
  const rights: Right[] = [{ verb: 'SELECT', columns: [...columnsOf(write, 'key'), ...sets] }];
  if (removes) return [...rights, { verb: 'DELETE', columns: [] }];
  if (write.missing === 'insert') rights.push({ verb: 'INSERT', columns: write.columns });
  if (sets.length > 0) rights.push({ verb: 'UPDATE', columns: sets });
  return rights;
}

function rightProblems(
  verb: Right['verb'],
  table: SystemTable,
  line: number,
  columns: Right['columns'],
): OutboundProblem[] {
  if (table.denied.includes(verb)) return [{ line, message: `this user may not ${verb} in ${table.name}` }];
  return columns
    .filter(({ name }) => table.columns.get(name)?.denied?.includes(verb) === true)
    .map((column) => ({ line: column.line, message: `this user may not ${verb} column ${table.name}.${column.name}` }));
}

/** Databases say the same of a table that is not there and of one that a user must not know of. */
function noTable(name: string): string {
  return `there is no table ${name} that this user may use`;
}

function isUnique({ unique }: SystemTable, columns: readonly string[]): boolean {
  return unique.some((index) => index.every((column) => columns.includes(column)));
}

function unknownColumn(table: SystemTable, name: string): string {
  const near = nearest(name, [...table.columns.keys()]);
  const hint = near === undefined ? '' : ` (did you mean "${near}"?)`;
  return `table ${table.name} has no column ${name}${table.hides === true ? ', or none that this user may use' : ''}${hint}`;
}

/** What is wrong with a value of this kind in a column of this type. */
function mismatch(kind: OutboundInput['kind'], type: string, zone: string | undefined): string | undefined {
  const column = columnKind(type);
  if (column === 'binary') return 'no field of a record fits';
  if (column === 'local' && zone === undefined)
    return 'it keeps times without a zone; name the zone of the system with "zone"';
  if (kind === 'unknown') return undefined;
  switch (column) {
    case 'decimal':
      return kind === 'decimal' || kind === 'boolean'
        ? undefined
        : 'a number is needed (cast texts with { decimal: … })';
    case 'boolean':
      return kind === 'boolean' ? undefined : 'true or false is needed (use { if: … })';
    case 'timestamp':
    case 'local':
      return kind === 'timestamp' ? undefined : 'a time is needed (cast it with { timestamp: … })';
    case 'date':
      return kind === 'date' ? undefined : 'a day is needed';
    case 'json':
      return kind === 'json' ? undefined : 'a structure is needed (use { object: … })';
    default:
      return undefined;
  }
}

/** A canonical text as a column of this type reads it. */
export function encodeValue(
  text: string | null,
  kind: OutboundInput['kind'],
  type: string,
  zone: string | undefined,
): string | null {
  if (text === null) return null;
  const column = columnKind(type);
  const isTruth = kind === 'boolean' || (kind === 'unknown' && (text === 'true' || text === 'false'));
  if (isTruth && (column === 'decimal' || type.startsWith('bit'))) return text === 'true' ? '1' : '0';
  if (kind !== 'timestamp' && !(kind === 'unknown' && UTC_TIME.test(text))) return text;
  if (column === 'local') return localTime(text, zone ?? 'UTC');
  return column === 'timestamp' ? localTime(text, 'UTC') : text;
}

const UTC_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/;

/** The columns of a write, of one role. */
export function columnsOf(write: OutboundWrite, role: OutboundColumn['role']): OutboundColumn[] {
  return write.columns.filter((column) => column.role === role);
}

/** In an order that does not go by that of the file. */
export function inNameOrder<T extends { readonly name: string }>(items: readonly T[]): T[] {
  return items.toSorted((a, b) => (a.name < b.name ? -1 : 1));
}
