/**
 * Random statements about whole tables of a Postgres source, as those who run databases use them: tables that change places,
 * that are built anew beside the old one, that leave the schema and come back, and partitions that become tables of their own.
 */
import type { Random } from '../../sandbox/demo/random.ts';
import {
  ELSEWHERE,
  identitySql,
  LADDERS,
  VALUES,
  type Column,
  type Model,
  type Part,
  type Table,
} from './fuzzed-model.ts';

/** Keys that rows move to lie within the last partition. */
const MOVES = [100, 2000, 4000] as const;
/** Of one of the tables. Undefined where the table is none that it can be done to. */
type Layout = (model: Model, table: Table, random: Random) => string | undefined;

/** A statement about a table or its neighbours; undefined where the one that was chosen cannot be made. */
export function layoutStatement(model: Model, random: Random): string | undefined {
  return random.pick(LAYOUTS)(model, random.pick(model.tables), random);
}

/** The tables that are away come back. */
export function homecoming(model: Model): string[] {
  return model.away.splice(0).map((table) => {
    model.tables.push(table);
    return `alter table ${ELSEWHERE}.${table.name} set schema public`;
  });
}

export function renamed(table: Table, name: string): void {
  table.formerly = [...(table.formerly ?? []), table.name];
  table.name = name;
}

const LAYOUTS: readonly Layout[] = [
  exchangeNames,
  buildAnew,
  rotate,
  dropAndCreate,
  createAsSelect,
  leave,
  comeBack,
  detach,
  prepare,
  attach,
  exchangeColumns,
  replaceColumn,
  severalClauses,
  widenId,
  moveKeys,
  emptyAndFill,
  identity,
  traceless,
];

function nextName(model: Model, prefix: string): string {
  return `${prefix}${model.names++}`;
}

/** A primary key whose name the model knows: those that the server makes depend on what was there before. */
function nameKey(table: string, keyName: string): string {
  return (
    `do $$ begin execute (select format('alter table %s rename constraint %I to ${keyName}', conrelid::regclass, conname)` +
    ` from pg_constraint where conrelid = '${table}'::regclass and contype = 'p'); end $$`
  );
}

/** Another table with the same columns. */
function twin(model: Model, table: Table, name: string): { readonly table: Table; readonly sql: string } {
  const made: Table = { ...structuredClone(table), name, keyName: nextName(model, 'key_') };
  delete made.parts;
  delete made.full;
  return {
    table: made,
    sql: `create table ${name} (like ${table.name} including all); ${nameKey(name, made.keyName)}`,
  };
}

const stored = (table: Table): Column[] => table.columns.filter(({ generated }) => generated !== true);
const columnsOf = (table: Table): string => ['id', ...stored(table).map(({ name }) => name)].join(', ');
const isPlain = (table: Table): boolean =>
  table.parts === undefined && table.columns.every(({ passing }) => passing === undefined);
/** Where it is of no account to which table an identity belongs. */
const isSettled = (table: Table): boolean => table.columns.every(({ passing }) => passing === undefined);

/** Rows with values of their own, in a table that has none with these keys. */
function newRows(table: Table, into: string, from: number, to: number): string {
  const values = stored(table).map(({ ladder }) => VALUES[ladder]!);
  return `insert into ${into} (${columnsOf(table)}) select ${['n', ...values].join(', ')} from generate_series(${from}, ${to}) n`;
}

function exchangeNames(model: Model, table: Table, random: Random): string | undefined {
  const other = random.pick(model.tables);
  if (other === table) return undefined;
  const between = nextName(model, 't');
  const [a, b] = [table.name, other.name];
  renamed(table, b);
  renamed(other, a);
  return `alter table ${a} rename to ${between}; alter table ${b} rename to ${a}; alter table ${between} rename to ${b}`;
}

/** As tools do that change large tables: a new one is filled beside the old one, and takes its place. */
function buildAnew(model: Model, table: Table): string | undefined {
  if (!isPlain(table)) return undefined;
  const [beside, old] = [nextName(model, 't'), nextName(model, 't')];
  const made = twin(model, table, beside);
  const { name } = table;
  model.tables[model.tables.indexOf(table)] = Object.assign(made.table, { name });
  return (
    `${made.sql}; insert into ${beside} select * from ${name}; alter table ${name} rename to ${old}; ` +
    `alter table ${beside} rename to ${name}; drop table ${old}`
  );
}

/** As logs are rotated: the table goes on under another name, and an empty one takes its place. */
function rotate(model: Model, table: Table, random: Random): string | undefined {
  if (!isPlain(table) || model.tables.length > 4) return undefined;
  const { name } = table;
  renamed(table, nextName(model, 't'));
  const made = twin(model, table, name);
  model.tables.push(made.table);
  const rows = random.between(0, 1) === 0 ? '' : `; ${newRows(made.table, name, 1, 9)}`;
  return `alter table ${name} rename to ${table.name}; ${made.sql}${rows}`;
}

function dropAndCreate(model: Model, table: Table, random: Random): string {
  const { name } = table;
  const keyName = nextName(model, 'key_');
  // No narrower type, with which it would be stopped.
  const { idStep = 0 } = table;
  model.tables[model.tables.indexOf(table)] = { name, columns: [], keyName, idStep };
  const rows = `insert into ${name} select generate_series(1, ${random.between(0, 20)})`;
  return `drop table ${name}; create table ${name} (id ${LADDERS[0]![idStep + 1]}, constraint ${keyName} primary key (id)); ${rows}`;
}

function createAsSelect(model: Model, table: Table): string | undefined {
  if (model.tables.length > 4) return undefined;
  const name = nextName(model, 't');
  const keyName = nextName(model, 'key_');
  const key = ['id', ...(table.key === undefined ? [] : [table.key])].join(', ');
  const columns = stored(table).map((column) => ({
    ...column,
    notNull: column.name === table.key,
    passing: undefined,
  }));
  model.tables.push({ ...table, name, columns, keyName });
  delete model.tables.at(-1)!.parts;
  delete model.tables.at(-1)!.full;
  return `create table ${name} as select ${columnsOf(table)} from ${table.name}; alter table ${name} add constraint ${keyName} primary key (${key})`;
}

/** It is captured no longer, and changes there. */
function leave(model: Model, table: Table, random: Random): string | undefined {
  if (!isPlain(table) || model.tables.length < 2) return undefined;
  model.tables = model.tables.filter((each) => each !== table);
  model.away.push(table);
  model.left.push(table.name, ...(table.formerly ?? []));
  const there = `${ELSEWHERE}.${table.name}`;
  const change = random.pick([
    '',
    `; delete from ${there} where id between 5 and 15`,
    `; truncate ${there}`,
    `; ${newRows(table, there, 20_000, 20_005)} on conflict do nothing`,
  ]);
  return `alter table ${table.name} set schema ${ELSEWHERE}${change}`;
}

function comeBack(model: Model): string | undefined {
  const back = homecoming(model);
  return back.length === 0 ? undefined : back.join('; ');
}

/** A partition becomes a table of its own, and an empty one takes its place. */
function detach(model: Model, table: Table, random: Random): string | undefined {
  const { parts } = table;
  if (parts === undefined || !isSettled(table) || model.tables.length > 4) return undefined;
  const index = random.between(0, parts.length - 1);
  const { name, from, to } = parts[index]!;
  const place = nextName(model, 'p');
  parts[index] = { name: place, from, to };
  const keyName = nextName(model, 'key_');
  const alone: Table = { ...structuredClone(table), name, keyName };
  delete alone.parts;
  model.tables.push(alone);
  return (
    `alter table ${table.name} detach partition ${name}; ${nameKey(name, keyName)}; ` +
    `create table ${place} partition of ${table.name} for values from (${from}) to (${to}); ${identitySql(table, place)}`
  );
}

/** A table that could be a partition, with rows of its own for now. */
function prepare(model: Model, table: Table): string | undefined {
  if (table.parts === undefined || !isSettled(table) || model.tables.length > 4) return undefined;
  const made = twin(model, table, nextName(model, 'p'));
  model.tables.push(made.table);
  return `${made.sql}; ${newRows(table, made.table.name, 1, 250)}`;
}

/** A table with the columns of a partitioned one takes the place of one of its partitions. */
function attach(model: Model, table: Table, random: Random): string | undefined {
  const shape = ({ columns, idStep, key }: Table): string => JSON.stringify([columns, idStep, key]);
  const isFit = (each: Table): boolean => each.parts === undefined && shape(each) === shape(table);
  const alone = model.tables.find((each) => each !== table && isFit(each));
  const { parts } = table;
  if (parts === undefined || alone === undefined || !isSettled(table)) return undefined;
  const index = random.between(0, parts.length - 1);
  const { name: old, from, to }: Part = parts[index]!;
  parts[index] = { name: alone.name, from, to };
  model.tables = model.tables.filter((each) => each !== alone);
  return (
    `${identitySql(table, alone.name)}; alter table ${table.name} detach partition ${old}; drop table ${old}; delete from ${alone.name} where id < ${from} or id >= ${to}; ` +
    `alter table ${table.name} attach partition ${alone.name} for values from (${from}) to (${to})`
  );
}

function exchangeColumns(_: Model, table: Table, random: Random): string | undefined {
  if (table.columns.length < 2 || !isSettled(table)) return undefined;
  const a = random.pick(table.columns);
  const b = random.pick(table.columns);
  if (a === b) return undefined;
  table.columns = table.columns.map((each) => {
    if (each === a) return { ...a, name: b.name };
    return each === b ? { ...b, name: a.name } : each;
  });
  if (table.key === a.name) table.key = b.name;
  else if (table.key === b.name) table.key = a.name;
  const rename = (from: string, to: string): string => `alter table ${table.name} rename column ${from} to ${to}`;
  return [rename(a.name, 'between'), rename(b.name, a.name), rename('between', b.name)].join('; ');
}

/** Another column under the same name. */
function replaceColumn(_: Model, table: Table, random: Random): string | undefined {
  const column = table.columns.find(({ name }) => name !== table.key);
  if (column === undefined) return undefined;
  const ladder = random.between(0, LADDERS.length - 1);
  const { name } = column;
  table.columns = [...table.columns.filter((each) => each !== column), { name, ladder, step: 0, notNull: false }];
  const add = `add column ${name} ${LADDERS[ladder]![0]}`;
  const drop = `alter table ${table.name} drop column ${name}`;
  return random.between(0, 1) === 0 ? `${drop}, ${add}` : `${drop}; alter table ${table.name} ${add}`;
}

function severalClauses(model: Model, table: Table, random: Random): string | undefined {
  if (!isSettled(table)) return undefined;
  const clauses: string[] = [];
  const dropped = table.columns.find(({ name }) => name !== table.key);
  const widened = table.columns.find((column) => column !== dropped);
  if (dropped !== undefined) {
    table.columns = table.columns.filter((each) => each !== dropped);
    clauses.push(`drop column ${dropped.name}`);
  }
  if (widened !== undefined) {
    const ladder = LADDERS[widened.ladder]!;
    widened.step = Math.min(ladder.length - 1, widened.step + 1);
    clauses.push(`alter ${widened.name} type ${ladder[widened.step]}`);
  }
  for (let count = random.between(1, 2); count > 0; count--) {
    const name = nextName(model, 'c');
    const ladder = random.between(0, LADDERS.length - 1);
    table.columns.push({ name, ladder, step: 0, notNull: false });
    clauses.push(`add column ${name} ${LADDERS[ladder]![0]}`);
  }
  return `alter table ${table.name} ${clauses.join(', ')}`;
}

function widenId(_: Model, table: Table): string | undefined {
  // Partitions are told apart by it, and generated columns computed from it.
  if (!isPlain(table)) return undefined;
  table.idStep = Math.min(2, (table.idStep ?? 0) + 1);
  return `alter table ${table.name} alter id type ${LADDERS[0]![table.idStep + 1]}`;
}

/** Rows get other keys, and move to other partitions. */
function moveKeys(_: Model, { name }: Table, random: Random): string {
  const from = random.between(1, 200);
  const by = random.pick(MOVES);
  return `update ${name} t set id = id + ${by} where id between ${from} and ${from + 9} and not exists (select from ${name} u where u.id = t.id + ${by})`;
}

function emptyAndFill(model: Model, table: Table, random: Random): string {
  const other = random.pick(model.tables);
  const tables = [...new Set([table.name, other.name])].join(', ');
  return `${newRows(table, table.name, 3000, 3009)} on conflict do nothing; truncate ${tables}; ${newRows(table, table.name, 1, 9)}`;
}

function identity(_: Model, table: Table): string | undefined {
  // With which updates of a published table are refused.
  if (table.columns.some(({ generated }) => generated === true)) return undefined;
  table.full = table.full !== true;
  return [table.name, ...(table.parts ?? []).map(({ name }) => name)]
    .map((name) => identitySql(table, name))
    .join('; ');
}

/** Changes of which nothing is to be seen in a target. */
function traceless(_: Model, { name }: Table, random: Random): string {
  return random.pick([
    `create index on ${name} (id)`,
    `comment on table ${name} is 'n${random.between(0, 99)}'`,
    `analyze ${name}`,
    `alter table ${name} alter id set statistics ${random.between(10, 99)}`,
  ]);
}
