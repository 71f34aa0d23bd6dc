/**
 * Random statements about whole tables of a MySQL or MariaDB source, as those who run databases use them: tables that change
 * places, that are built anew beside the old one, that leave the database and come back, partitions, other keys, and one
 * statement for several changes.
 */
import type { Random } from '../../sandbox/demo/random.ts';
import {
  CONSTANTS,
  LADDERS,
  typeOf,
  valueOf,
  type Column,
  type Model,
  type Part,
  type Table,
} from './fuzzed-mysql-model.ts';

const MOST_TABLES = 5;

/** Of one of the tables. Undefined where the table is none that it can be done to. */
type Layout = (model: Model, table: Table, random: Random) => string | undefined;

/** Statements about a table or its neighbours; undefined where those that were chosen cannot be made. */
export function layoutStatement(model: Model, random: Random): string | undefined {
  return random.pick(LAYOUTS)(model, random.pick(model.tables), random);
}

/** A generated column becomes a plain one. */
export function settle(table: Table, column: Column): string {
  column.generated = false;
  return `alter table ${table.name} modify ${column.name} ${typeOf(column)}`;
}

/** A narrower type, which stops the table in targets until it is read again. */
export function narrow(table: Table): string | undefined {
  const column = table.columns.find(
    ({ step, generated, name }) => step > 0 && generated !== true && name !== table.key,
  );
  if (column === undefined) return undefined;
  column.step -= 1;
  table.stopped = true;
  return `alter table ${table.name} modify ${column.name} ${typeOf(column)}`;
}

const LAYOUTS: readonly Layout[] = [
  exchangeNames,
  rename,
  buildAnew,
  rotate,
  dropAndCreate,
  createAsSelect,
  leave,
  comeBack,
  partition,
  otherPart,
  otherPart,
  exchangePart,
  exchangeColumns,
  change,
  replaceColumn,
  severalClauses,
  otherKey,
  widenId,
  convert,
  emptyAndFill,
  replaceRows,
  generated,
  counting,
  withCopy,
  traceless,
];

function nextName(model: Model, prefix: string): string {
  return `${prefix}${model.names++}`;
}

const isFull = (model: Model): boolean => model.tables.length >= MOST_TABLES;
const isPlain = (table: Table): boolean => table.columns.every((column) => column.generated !== true);
/** Columns that may be changed without a thought of the key. */
const freeColumns = (table: Table): Column[] =>
  table.columns.filter(({ name, generated: computed }) => name !== table.key && computed !== true);

/** Rows with values of their own. */
function newRows(table: Table, verb: string, ids: readonly number[], random: Random): string {
  const columns = table.columns.filter((column) => column.generated !== true);
  const rows = ids.map((id) => `(${[id, ...columns.map((column) => valueOf(column, random))].join(', ')})`);
  return `${verb} into ${table.name} (${['id', ...columns.map(({ name }) => name)].join(', ')}) values ${rows.join(', ')}`;
}

function idsFrom(from: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => from + index);
}

function exchangeNames(model: Model, table: Table, random: Random): string | undefined {
  const other = random.pick(model.tables);
  if (other === table) return undefined;
  const [a, b] = [table.name, other.name];
  [table.name, other.name] = [b, a];
  // To the capture, which knows tables and columns by their names, types may have become narrower.
  table.stopped = true;
  other.stopped = true;
  const between = nextName(model, 't');
  model.left.push(between);
  return `rename table ${a} to ${between}, ${b} to ${a}, ${between} to ${b}`;
}

function rename(model: Model, table: Table, random: Random): string {
  const { name } = table;
  table.name = nextName(model, 't');
  model.left.push(name);
  return random.pick([`rename table ${name} to ${table.name}`, `alter table ${name} rename to ${table.name}`]);
}

/** As tools do that change large tables: a new one is filled beside the old one, and takes its place. */
function buildAnew(model: Model, table: Table, random: Random): string | undefined {
  if (!isPlain(table)) return undefined;
  const { name } = table;
  const [beside, old] = [nextName(model, 't'), nextName(model, 't')];
  model.left.push(beside);
  const later = random.between(0, 1) === 0 ? '' : `; drop table ${old}`;
  if (later === '') {
    if (isFull(model)) return undefined;
    model.tables.push({ ...structuredClone(table), name: old });
  }
  return `create table ${beside} like ${name}; insert into ${beside} select * from ${name}; rename table ${name} to ${old}, ${beside} to ${name}${later}`;
}

/** As logs are rotated: the table goes on under another name, and an empty one takes its place. */
function rotate(model: Model, table: Table, random: Random): string | undefined {
  if (isFull(model)) return undefined;
  const { name } = table;
  const beside = nextName(model, 't');
  const made = structuredClone(table);
  table.name = nextName(model, 't');
  model.tables.push(made);
  model.left.push(beside);
  const rows = random.between(0, 1) === 0 ? '' : `; ${newRows(made, 'insert', idsFrom(1, 9), random)}`;
  return `create table ${beside} like ${name}; rename table ${name} to ${table.name}, ${beside} to ${name}${rows}`;
}

function dropAndCreate(model: Model, table: Table, random: Random): string {
  const { name } = table;
  const made: Table = { name, columns: [], stopped: true };
  model.tables[model.tables.indexOf(table)] = made;
  const rows = newRows(made, 'insert', idsFrom(1, random.between(1, 20)), random);
  const replaces = model.flavour === 'mariadb' && random.between(0, 1) === 0;
  const create = replaces ? 'create or replace table' : `drop table ${name}; create table`;
  return `${create} ${name} (id int primary key); ${rows}`;
}

function createAsSelect(model: Model, table: Table): string | undefined {
  if (isFull(model)) return undefined;
  const name = nextName(model, 't');
  const columns = table.columns.map((column) => ({ ...column, generated: false }));
  model.tables.push({ ...table, name, columns, parts: undefined });
  return `create table ${name} (primary key (${keyOf(table)})) select * from ${table.name}`;
}

function keyOf({ key }: Table): string {
  return ['id', ...(key === undefined ? [] : [key])].join(', ');
}

/** It is captured no longer, and changes there. */
function leave(model: Model, table: Table, random: Random): string | undefined {
  if (model.tables.length < 2) return undefined;
  model.tables = model.tables.filter((each) => each !== table);
  model.away.push(table);
  model.left.push(table.name);
  const there = `${model.elsewhere}.${table.name}`;
  const change = random.pick(['', `; delete from ${there} where id between 5 and 15`, `; truncate ${there}`]);
  return `rename table ${table.name} to ${there}${change}`;
}

function comeBack(model: Model): string | undefined {
  const back = model.away.splice(0);
  if (back.length === 0) return undefined;
  model.tables.push(...back);
  return `rename table ${back.map(({ name }) => `${model.elsewhere}.${name} to ${name}`).join(', ')}`;
}

function partition(_: Model, table: Table, random: Random): string {
  if (table.parts !== undefined && random.between(0, 2) === 0) {
    table.parts = undefined;
    return `alter table ${table.name} remove partitioning`;
  }
  table.parts = [
    { name: 'p0', from: 0, to: 100 },
    { name: 'p1', from: 100, to: 200 },
    { name: 'p2', from: 200, to: undefined },
  ];
  return `alter table ${table.name} partition by range (id) (${table.parts.map(partSql).join(', ')})`;
}

function partSql({ name, to }: Part): string {
  return `partition ${name} values less than ${to === undefined ? 'maxvalue' : `(${to})`}`;
}

/** A partition is emptied, dropped, or divided. */
function otherPart(model: Model, table: Table, random: Random): string | undefined {
  const { parts } = table;
  if (parts === undefined) return undefined;
  const index = random.between(0, parts.length - 1);
  const { name, from, to } = parts[index]!;
  const kind = random.pick(['truncate', 'drop', 'divide'] as const);
  if (kind === 'truncate') return `alter table ${table.name} truncate partition ${name}`;
  if (kind === 'divide') {
    const middle = to === undefined ? from + 1000 : Math.floor((from + to) / 2);
    if (middle === from) return undefined;
    const halves: Part[] = [
      { name: nextName(model, 'p'), from, to: middle },
      { name: nextName(model, 'p'), from: middle, to },
    ];
    parts.splice(index, 1, ...halves);
    return `alter table ${table.name} reorganize partition ${name} into (${halves.map(partSql).join(', ')})`;
  }
  if (to === undefined) return undefined;
  parts.splice(index, 2, { ...parts[index + 1]!, from });
  return `alter table ${table.name} drop partition ${name}`;
}

/** A partition and a table exchange their rows. */
function exchangePart(model: Model, table: Table, random: Random): string | undefined {
  const { parts } = table;
  if (parts === undefined || isFull(model) || !isPlain(table)) return undefined;
  const { name, from } = random.pick(parts);
  const alone: Table = { ...structuredClone(table), name: nextName(model, 't'), parts: undefined };
  model.tables.push(alone);
  return (
    // Those to which columns were added at once are no match.
    `alter table ${table.name} force; create table ${alone.name} like ${table.name}; alter table ${alone.name} remove partitioning; ` +
    `${newRows(alone, 'insert', idsFrom(from, 3), random)}; alter table ${table.name} exchange partition ${name} with table ${alone.name}`
  );
}

function exchangeColumns(_: Model, table: Table, random: Random): string | undefined {
  const columns = freeColumns(table);
  if (columns.length < 2 || !isPlain(table)) return undefined;
  const [a, b] = [random.pick(columns), random.pick(columns)];
  if (a === b) return undefined;
  table.stopped = true;
  table.columns = table.columns.map((each) => {
    if (each === a) return { ...a, name: b.name };
    return each === b ? { ...b, name: a.name } : each;
  });
  return `alter table ${table.name} rename column ${a.name} to ${b.name}, rename column ${b.name} to ${a.name}`;
}

/** Another name and a wider type at once. */
function change(model: Model, table: Table, random: Random): string | undefined {
  const columns = freeColumns(table);
  if (columns.length === 0) return undefined;
  const column = random.pick(columns);
  const step = Math.min(LADDERS[column.ladder]!.length - 1, column.step + random.between(0, 1));
  const next = { ...column, name: nextName(model, 'c'), step };
  table.columns = table.columns.map((each) => (each === column ? next : each));
  return `alter table ${table.name} change ${column.name} ${next.name} ${typeOf(next)}`;
}

/** Another column under the same name. */
function replaceColumn(_: Model, table: Table, random: Random): string | undefined {
  const [column] = freeColumns(table);
  if (column === undefined) return undefined;
  const next: Column = { name: column.name, ladder: random.between(0, LADDERS.length - 1), step: 0, notNull: false };
  table.columns = [...table.columns.filter((each) => each !== column), next];
  table.stopped = true;
  const between = random.pick([', ', `; alter table ${table.name} `]);
  return `alter table ${table.name} drop column ${column.name}${between}add column ${next.name} ${typeOf(next)}`;
}

function severalClauses(model: Model, table: Table, random: Random): string {
  const clauses: string[] = [];
  const [dropped, widened] = freeColumns(table);
  if (widened !== undefined && dropped !== undefined) {
    table.columns = table.columns.filter((each) => each !== dropped);
    clauses.push(`drop column ${dropped.name}`);
    widened.step = Math.min(LADDERS[widened.ladder]!.length - 1, widened.step + 1);
    clauses.push(`modify ${widened.name} ${typeOf(widened)}`);
  }
  for (let count = random.between(1, 2); count > 0; count--) {
    const ladder = random.between(0, LADDERS.length - 1);
    const column: Column = { name: nextName(model, 'c'), ladder, step: 0, notNull: random.between(0, 2) === 0 };
    table.columns.push(column);
    const preset = column.notNull ? ` default ${CONSTANTS[ladder]}` : '';
    clauses.push(`add column ${column.name} ${typeOf(column)}${preset} ${random.pick(['first', 'after id', ''])}`);
  }
  return `alter table ${table.name} ${clauses.join(', ')}`;
}

function otherKey(_: Model, table: Table, random: Random): string | undefined {
  // Texts of any length are none for a key.
  const able = freeColumns(table).filter(({ notNull, ladder, step }) => notNull && !(ladder === 1 && step === 2));
  const had = table.key;
  if (had === undefined && able.length === 0) return undefined;
  table.key = had === undefined ? random.pick(able).name : undefined;
  const single =
    had === undefined
      ? ''
      : `delete a from ${table.name} a join ${table.name} b on a.id = b.id and a.${had} < b.${had}; `;
  return `${single}alter table ${table.name} drop primary key, add primary key (${keyOf(table)})`;
}

function widenId(_: Model, table: Table): string | undefined {
  if (table.wide === true || table.parts !== undefined || !isPlain(table)) return undefined;
  table.wide = true;
  return `alter table ${table.name} modify id bigint not null`;
}

function convert(_: Model, table: Table, random: Random): string | undefined {
  // A text whose characters may become longer becomes another type.
  if (table.columns.some(({ ladder, step }) => ladder === 1 && step === 2)) return undefined;
  return `alter table ${table.name} convert to character set ${random.pick(['latin1', 'utf8mb4'])}`;
}

function emptyAndFill(_: Model, table: Table, random: Random): string {
  return `${newRows(table, 'replace', idsFrom(3000, 9), random)}; truncate ${table.name}; ${newRows(table, 'insert', idsFrom(1, 9), random)}`;
}

function replaceRows(_: Model, table: Table, random: Random): string {
  return newRows(table, 'replace', idsFrom(random.between(1, 200), 12), random);
}

/** A generated column becomes a plain one, at once or later. */
function generated(model: Model, table: Table, random: Random): string {
  const column: Column = { name: nextName(model, 'c'), ladder: 0, step: 1, notNull: false, generated: true };
  table.columns.push(column);
  const add = `alter table ${table.name} add column ${column.name} int generated always as (id * 2) stored`;
  return random.between(0, 1) === 0 ? add : `${add}; ${settle(table, column)}`;
}

/** A column whose values count up, which no event tells. */
function counting(model: Model, table: Table): string | undefined {
  // An index that tells rows apart must have what partitions are told apart by.
  if (table.parts !== undefined) return undefined;
  const name = nextName(model, 'c');
  table.columns.push({ name, ladder: 0, step: 1, notNull: true });
  return `alter table ${table.name} add column ${name} int not null auto_increment unique; alter table ${table.name} drop index ${name}, modify ${name} int not null`;
}

function withCopy(model: Model, table: Table, random: Random): string {
  const column: Column = { name: nextName(model, 'c'), ladder: random.between(0, 3), step: 0, notNull: false };
  table.columns.push(column);
  return `alter table ${table.name} add column ${column.name} ${typeOf(column)}, algorithm = ${random.pick(['copy', 'inplace'])}`;
}

/** Changes of which nothing is to be seen in a target. */
function traceless(model: Model, { name }: Table, random: Random): string {
  const between = nextName(model, 'x');
  return random.pick([
    `create index ${nextName(model, 'i')} on ${name} (id)`,
    `alter table ${name} comment 'n${random.between(0, 99)}'`,
    `alter table ${name} engine = InnoDB`,
    `alter table ${name} force`,
    `optimize table ${name}`,
    `analyze table ${name}`,
    `create temporary table ${between} (id int primary key); insert into ${between} select id from ${name}; drop temporary table ${between}`,
    `create table ${between} like ${name}; drop table ${between}`,
  ]);
}
