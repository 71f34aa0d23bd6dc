/**
 * Which records of an outbound mapping meet in one row. Blocks that go to the same rows and share a column make one part of
 * them, of which one record can have a row; blocks that fill other columns of it do not get in each other's way.
 */
import {
  isFind,
  type OutboundBlock,
  type OutboundInput,
  type OutboundOrigin,
  type OutboundPlan,
} from '../../core/outbound.ts';
import { directBlur, foundBlur } from './exact-columns.ts';
import { namesOfTable, type OutboundProblem, type SystemTables } from './outbound-shape.ts';

/** What is to be known of the rows of a block. */
export interface Meeting {
  /** Whether all blocks that go to the row share columns, be it by way of others: who has what one writes has the row. */
  readonly wholeRow: boolean;
  /** Fields of the record's key that the key of the row lacks: records that agree in the others meet in columns of it. */
  readonly keyLacks: readonly string[];
  /** The same of the row as a whole, of which other records may fill other columns. */
  readonly rowLacks: readonly string[];
  /** Fields that the key of the row has, but not so exactly that it differs wherever they do; and why. */
  readonly keyBlurs: readonly Blur[];
  readonly rowBlurs: readonly Blur[];
}

export interface Blur {
  readonly field: string;
  readonly why: string;
}

/** What stands at a place of the row's key. */
interface Place {
  readonly origin: OutboundOrigin;
  /** Why values that differ may be one there; undefined where they are not. */
  readonly blur: string | undefined;
}

/** A block, and what it has of the record's key, by places of the row's. */
interface Part {
  readonly block: OutboundBlock;
  /** With its schema, however the mapping calls it. */
  readonly table: string;
  readonly places: ReadonlyMap<string, Place>;
}

/** What is to be known of the rows of each block of a plan, in a system that has these tables. */
export function meetingsOf(plan: OutboundPlan, tables: SystemTables): ReadonlyMap<OutboundBlock, Meeting> {
  const all = blocksOf(plan, tables);
  const key = keyOf(plan);
  const parts = partsOf(all);
  return new Map(
    all.map((one) => {
      const part = parts.get(one)!;
      const row = all.filter((other) => isSameRow(one, other));
      const [keyLacks, rowLacks] = [lacking(one, part, key), lacking(one, row, key)];
      const meeting: Meeting = {
        wholeRow: part.length === row.length,
        keyLacks,
        rowLacks,
        keyBlurs: blurred(one, part, key, keyLacks),
        rowBlurs: blurred(one, row, key, rowLacks),
      };
      return [one.block, meeting];
    }),
  );
}

/** Where a record that goes would empty columns that a block fills for others: it cannot know whether these are still there. */
export function endingProblems(plan: OutboundPlan, tables: SystemTables): OutboundProblem[] {
  const all = blocksOf(plan, tables);
  const key = keyOf(plan);
  const parts = partsOf(all);
  return all.flatMap((one) => {
    const { gone, write } = one.block;
    if (gone === 'ignore' || gone.remove) return [];
    const others = all.filter((other) => {
      if (!isSameRow(one, other) || parts.get(one)!.includes(other)) return false;
      const lacks = lacking(one, [other], key);
      return lacks.length + blurred(one, [other], key, lacks).length > 0;
    });
    const filled = new Set(others.flatMap((other) => namesOf(other, 'set')));
    return gone.write.columns
      .filter(({ role, name }) => role === 'set' && filled.has(name))
      .map(({ name, line }) => ({
        line,
        message: `${write.table}.${name} is filled by another block, of records that may still be there: let that block empty it`,
      }));
  });
}

function blocksOf(plan: OutboundPlan, tables: SystemTables): Part[] {
  return plan.blocks.map((block) => {
    const [table] = namesOfTable(tables, block.write.table);
    return { block, table: table!, places: placesOf(block, tables) };
  });
}

function keyOf({ key, fields }: OutboundPlan): string[] {
  return key.map((index) => fields[index]!);
}

/** By blocks: those that share columns of the same rows with it, be it by way of others. */
function partsOf(all: readonly Part[]): Map<Part, Part[]> {
  const parts = new Map<Part, Part[]>();
  for (const one of all) {
    const joined = [...new Set(parts.values())].filter((part) => part.some((other) => isSamePart(one, other)));
    const part = [...joined.flat(), one];
    for (const each of part) parts.set(each, part);
  }
  return parts;
}

function placesOf({ write }: OutboundBlock, tables: SystemTables): Map<string, Place> {
  const table = tables.get(write.table);
  const places = new Map<string, Place>();
  const add = (name: string, { origin }: OutboundInput, blur: string | undefined): void => {
    if (origin !== undefined) places.set(name, { origin, blur });
  };
  for (const { name, role, value } of write.columns) {
    if (role !== 'key') continue;
    if (!isFind(value)) {
      add(name, value, directBlur(table, name, value));
      continue;
    }
    const found = tables.get(value.table);
    const blur = foundBlur(found, value.column, table, name);
    for (const each of value.where)
      add(
        `${name}: ${namesOfTable(tables, value.table)[0]}.${value.column} by ${each.column}`,
        each,
        blur ?? directBlur(found, each.column, each),
      );
  }
  return places;
}

/** Fields in which a record of a block may differ from one that goes to the same row by it or another block. */
function lacking(one: Part, others: readonly Part[], key: readonly string[]): string[] {
  return key.filter((field) => others.some((other) => !isPinned(one, other, field) && at(one, other, field) === ''));
}

/** Of the other fields those that the database may take for the same where they differ. */
function blurred(one: Part, others: readonly Part[], key: readonly string[], lacks: readonly string[]): Blur[] {
  return key.flatMap((field) => {
    if (lacks.includes(field)) return [];
    const whys = others.map((other) => (isPinned(one, other, field) ? undefined : at(one, other, field)));
    const why = whys.find((each) => each !== undefined);
    return why === undefined ? [] : [{ field, why }];
  });
}

/** Whether two blocks let the same single value of a field pass. */
function isPinned({ block: a }: Part, { block: b }: Part, field: string): boolean {
  return a.pinned.has(field) && b.pinned.has(field) && a.pinned.get(field) === b.pinned.get(field);
}

/**
 * How exactly records of two blocks differ in their rows where they differ in a field, as both have it at the same place of
 * the key: undefined for exactly, '' for not at all, else why they may not.
 */
function at(a: Part, b: Part, field: string): string | undefined {
  let why: string | undefined = '';
  for (const [place, { blur }] of a.places) {
    if (!has(a, place, field) || !has(b, place, field)) continue;
    const found = blur ?? b.places.get(place)!.blur;
    if (found === undefined) return undefined;
    if (why === '') why = found;
  }
  return why;
}

function has({ block: { pinned }, places }: Part, place: string, field: string): boolean {
  const origin = places.get(place)?.origin;
  if (origin === undefined) return false;
  return 'field' in origin ? origin.field === field : pinned.has(field) && pinned.get(field) === origin.constant;
}

function isSamePart(a: Part, b: Part): boolean {
  if (!isSameRow(a, b)) return false;
  const [columns, others] = [namesOf(a, 'set'), namesOf(b, 'set')];
  return columns.length === 0 ? others.length === 0 : columns.some((name) => others.includes(name));
}

function isSameRow(a: Part, b: Part): boolean {
  const [keys, others] = [namesOf(a, 'key').toSorted(), namesOf(b, 'key').toSorted()];
  return a.table === b.table && keys.join('\n') === others.join('\n');
}

function namesOf({ block: { write } }: Part, role: 'key' | 'set'): string[] {
  return write.columns.filter((column) => column.role === role).map(({ name }) => name);
}
