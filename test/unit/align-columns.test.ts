import { describe, expect, it } from 'vitest';
import { alignColumns, type Alignment, type Around } from '../../capture/postgres/align-columns.ts';
import { tableOfRow, type CapturedTable, type ColumnType } from '../../capture/postgres/catalog.ts';
import type { RelationMessage } from '../../capture/postgres/pgoutput.ts';

const OIDS = { smallint: 21, integer: 23, bigint: 20, date: 1082, timestamp: 1114 };
type Columns = Readonly<Record<string, keyof typeof OIDS>>;

const typeOf = (type: string): ColumnType => ({ type, portable: type, base: type });

/** Columns as `id name`, with their types. */
function version(columns: Columns, width: number): CapturedTable {
  return tableOfRow({
    oid: '1',
    schema: 'public',
    name: 'items',
    identity: 'd',
    key: null,
    partitioned: false,
    parts: null,
    file: '100',
    width,
    columns: Object.entries(columns).map(([text, type]) => ({
      id: Number(text.split(' ')[0]),
      name: text.split(' ')[1]!,
      ...typeOf(type),
      typeOid: String(OIDS[type]),
      modifier: -1,
      notNull: false,
      default: null,
      existing: null,
      stamp: '700',
    })),
  });
}

function align(
  message: Columns,
  known: CapturedTable | undefined,
  catalog: CapturedTable | undefined,
  more: Partial<Around> = {},
): Alignment {
  const columns = Object.entries(message).map(([name, type]) => ({
    name,
    key: false,
    typeOid: OIDS[type],
    typmod: -1,
  }));
  const relation: RelationMessage = { oid: 1, schema: 'public', name: 'items', identity: 'd', columns };
  const width = catalog?.width ?? 0;
  const around = { known, isAhead: false, catalog, width, hasCome: true, ...more };
  return alignColumns(relation, around, Object.values(message).map(typeOf));
}

describe('the columns of a relation message', () => {
  const before = version({ '1 id': 'integer', '2 a': 'timestamp' }, 2);
  const sure = (...ids: number[]): Alignment => ({ ids, sure: true });
  const unsure = (...ids: number[]): Alignment => ({ ids, sure: false });

  it('are sure where one thing was changed: a column added, dropped, renamed, or of another type', () => {
    const known = version({ '1 id': 'integer', '2 a': 'date', '4 b': 'date' }, 5);
    const added = version({ '1 id': 'integer', '2 a': 'date', '4 b': 'date', '6 c': 'date' }, 6);
    expect(align({ id: 'integer', a: 'date', b: 'date', c: 'date' }, known, added)).toEqual(sure(1, 2, 4, 6));
    const dropped = version({ '1 id': 'integer', '4 b': 'date' }, 5);
    expect(align({ id: 'integer', b: 'date' }, known, dropped)).toEqual(sure(1, 4));
    const renamed = version({ '1 id': 'integer', '2 c': 'date', '4 b': 'date' }, 5);
    expect(align({ id: 'integer', c: 'date', b: 'date' }, known, renamed)).toEqual(sure(1, 2, 4));
    const wider = version({ '1 id': 'bigint', '2 a': 'date', '4 b': 'timestamp' }, 5);
    expect(align({ id: 'bigint', a: 'date', b: 'timestamp' }, known, wider)).toEqual(sure(1, 2, 4));
  });

  it('are those of the version before, or of the catalog, where columns were renamed and added', () => {
    const after = version({ '1 id': 'integer', '2 b': 'timestamp', '3 c': 'date' }, 3);
    expect(align({ id: 'integer', a: 'timestamp' }, before, after)).toEqual(sure(1, 2));
    expect(align({ id: 'integer', b: 'timestamp' }, before, after)).toEqual(sure(1, 2));
    expect(align({ id: 'integer', b: 'timestamp', c: 'date' }, before, after)).toEqual(sure(1, 2, 3));
  });

  it('is none of the catalog that has its name and a type that it cannot have come to', () => {
    const after = version({ '1 id': 'integer', '3 b': 'date' }, 3);
    expect(align({ id: 'integer', b: 'timestamp' }, before, after)).toEqual(unsure(1, 2));
    expect(align({ id: 'integer', b: 'date' }, before, after)).toEqual(unsure(1, 3));
  });

  it('is none of the version before that has its name and a type that it cannot have come from', () => {
    const after = version({ '1 id': 'integer', '3 b': 'smallint' }, 3);
    expect(align({ id: 'integer', a: 'smallint' }, before, after)).toEqual(unsure(1, 3));
  });

  it('may be one that came and went between the two', () => {
    const after = version({ '1 id': 'integer', '2 a': 'timestamp', '4 x': 'date' }, 4);
    expect(align({ id: 'integer', a: 'timestamp', x: 'integer' }, before, after)).toEqual(unsure(1, 2, 3));
  });

  it('are the same where nothing but a type became another, wider or narrower', () => {
    const wide = version({ '1 id': 'integer', '2 n': 'bigint' }, 2);
    const narrow = version({ '1 id': 'integer', '2 n': 'smallint', '3 c': 'date' }, 3);
    expect(align({ id: 'integer', n: 'integer' }, wide, narrow)).toEqual(sure(1, 2));
    expect(align({ id: 'integer', n: 'integer' }, undefined, wide)).toEqual(sure(1, 2));
    const renamed = version({ '1 id': 'integer', '2 m': 'smallint' }, 2);
    expect(align({ id: 'integer', k: 'integer' }, wide, renamed)).toEqual(sure(1, 2));
  });

  it('with exchanged names are told by their order', () => {
    const known = version({ '1 id': 'integer', '2 a': 'integer', '3 b': 'integer' }, 3);
    const after = version({ '1 id': 'integer', '2 b': 'integer', '3 a': 'integer', '4 c': 'date' }, 4);
    expect(align({ id: 'integer', between: 'integer', a: 'integer' }, known, after)).toEqual(sure(1, 2, 3));
  });

  it('may have been generated before, though both versions had room for it', () => {
    const after = version({ '1 id': 'integer', '2 a': 'timestamp', '3 twice': 'integer' }, 3);
    const known = { ...before, width: 3 };
    expect(align({ id: 'integer', a: 'timestamp', twice: 'integer' }, known, after)).toEqual(sure(1, 2, 3));
    const later = { ...after, width: 4 };
    expect(align({ id: 'integer', a: 'timestamp', twice: 'integer' }, known, later).sure).toBe(false);
  });

  it('are never sure of a catalog that may be as before, or that has the table no more', () => {
    const known = version({ '1 id': 'integer', '2 b': 'integer' }, 2);
    const message: Columns = { id: 'integer', c: 'integer' };
    expect(align(message, known, known, { hasCome: false }).sure).toBe(false);
    expect(align(message, known, undefined).sure).toBe(false);
    expect(align({ id: 'integer', b: 'integer' }, known, known, { hasCome: false })).toEqual(sure(1, 2));
  });

  it('are not held against a version that lies further on in the log', () => {
    const known = version({ '1 id': 'integer', '3 b': 'integer' }, 3);
    expect(align({ id: 'integer', a: 'integer' }, known, known, { isAhead: true }).sure).toBe(false);
    const wider = version({ '1 id': 'integer', '2 a': 'integer', '3 b': 'integer' }, 3);
    expect(align({ id: 'integer', a: 'integer' }, wider, wider, { isAhead: true })).toEqual(sure(1, 2));
  });
});

/** A table as it goes from statement to statement: its columns by name, in their order. */
interface Step {
  readonly text: string;
  readonly columns: readonly (readonly [name: string, id: number])[];
  readonly width: number;
}

const NAMES = ['a', 'b', 'c'];

/** All that one statement can make of a table. Of the key column nobody takes anything. */
function following({ columns, width }: Step): Step[] {
  const free = NAMES.filter((name) => columns.every(([known]) => known !== name));
  const own = columns.slice(1);
  return [
    ...free.map((name) => ({
      text: `add ${name}`,
      columns: [...columns, [name, width + 1] as const],
      width: width + 1,
    })),
    ...own.map((gone) => ({ text: `drop ${gone[0]}`, columns: columns.filter((each) => each !== gone), width })),
    ...own.flatMap((old) =>
      free.map((name) => ({
        text: `rename ${old[0]} to ${name}`,
        columns: columns.map((each) => (each === old ? ([name, old[1]] as const) : each)),
        width,
      })),
    ),
  ];
}

it('are never sure and wrong, whatever up to three statements made of a table between two looks', () => {
  const idsOf = ({ columns }: Step): string => columns.map(([, id]) => id).join();
  const asTable = ({ columns, width }: Step): CapturedTable =>
    version(Object.fromEntries(columns.map(([name, id]) => [`${id} ${name}`, 'integer'])), width);
  const wrong: string[] = [];
  const unsureOfOne: string[] = [];
  let asked = 0;
  const check = (known: CapturedTable, path: readonly Step[]): void => {
    const catalog = asTable(path.at(-1)!);
    for (const step of path) {
      const message = Object.fromEntries(step.columns.map(([name]) => [name, 'integer' as const]));
      const { ids, sure } = align(message, known, catalog);
      asked += 1;
      const told = path.map(({ text }) => (text === step.text ? `${text} (the message)` : text)).join('; ');
      if (sure && ids.join() !== idsOf(step)) wrong.push(`${told}: ${ids.join()} for ${idsOf(step)}`);
      if (!sure && path.length === 1) unsureOfOne.push(told);
    }
  };
  const walk = (known: CapturedTable, from: Step, path: readonly Step[]): void => {
    for (const step of following(from)) {
      check(known, [...path, step]);
      if (path.length < 2) walk(known, step, [...path, step]);
    }
  };
  for (const count of [0, 1, 2]) {
    const columns = ['id', 'a', 'b'].slice(0, count + 1).map((name, index) => [name, index + 1] as const);
    const start = { text: '', columns, width: columns.length };
    walk(asTable(start), start, []);
  }
  expect(asked).toBeGreaterThan(500);
  expect(wrong).toEqual([]);
  expect(unsureOfOne).toEqual([]);
});
