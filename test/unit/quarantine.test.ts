import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { asFollowed, keyedEntry, pagesOf, replayRounds, type QuarantinedChange } from '../../apply/quarantine-entry.ts';
import type { TableSchema } from '../../core/frame.ts';

const table = (version: string, key: string, ...columns: (readonly [id: number, name: string])[]): TableSchema => ({
  schema: 's',
  name: 't',
  id: 5,
  version,
  identity: 'default',
  key: [key],
  columns: columns.map(([id, name]) => ({ id, name, type: 'text', portable: 'text', notNull: false })),
});
const before = table('1', 'id', [1, 'id'], [2, 'name'], [3, 'gone'], [4, 'last']);
const after = table('2', 'no', [4, 'last'], [1, 'no'], [2, 'title'], [5, 'gone']);
const target = { schema: 'to', name: 't' };

describe('a change in quarantine whose table has changed since', () => {
  it('has the columns that are left, under their names', () => {
    const change: QuarantinedChange = {
      change: ['u', 0, ['1', 'a', 'x', 0], 'f', ['2', 'b', 'y', 'z']],
      table: before,
      target,
    };
    const now = asFollowed(change, after)!;
    expect(now.change).toEqual(['u', 0, ['1', 'a', 0], 'f', ['2', 'b', 'z']]);
    expect(now.table.columns.map(({ name }) => name)).toEqual(['no', 'title', 'last']);
    expect(now.table.key).toEqual(['no']);
    expect(now.target).toBe(target);
  });

  it('may be a deletion', () => {
    const change: QuarantinedChange = { change: ['d', 0, null, 'k', ['1', null, null, null]], table: before, target };
    expect(asFollowed(change, after)?.change).toEqual(['d', 0, null, 'k', ['1', null, null]]);
  });

  it('is nothing where it does not tell the key that the table has', () => {
    const insert: QuarantinedChange = { change: ['i', 0, ['1', 'a', 'x', 'y']], table: before, target };
    const deletion: QuarantinedChange = { change: ['d', 0, null, 'k', ['1', null, null, null]], table: before, target };
    const other = table('2', 'name', [1, 'id'], [2, 'name']);
    expect(asFollowed(insert, other)?.table.key).toEqual(['name']);
    expect(asFollowed(deletion, other)).toBeUndefined();
    const without = table('2', 'name', [2, 'name']);
    expect(asFollowed(insert, without)?.table.key).toEqual(['name']);
    expect(asFollowed(deletion, without)).toBeUndefined();
    // Another column has its name.
    expect(asFollowed(deletion, table('2', 'id', [2, 'id']))).toBeUndefined();
    expect(asFollowed(insert, table('2', 'uid', [2, 'name'], [6, 'uid']))).toBeUndefined();
  });

  it('stays as it is where the flow follows that version, or none', () => {
    const change: QuarantinedChange = { change: ['i', 0, ['1', 'a', 'x', 'y']], table: before, target };
    expect(asFollowed(change, before)).toBe(change);
    expect(asFollowed(change, undefined)).toBe(change);
  });
});

it('changes are read in pages of limited size, one that is larger by itself', async () => {
  const mb = 1 << 20;
  const sizes = [1, 2, 2, 9, 1, 3, 1].map((size, id) => [String(id), size * mb] as const);
  const pages = async (of: typeof sizes): Promise<string[][]> => {
    const found: string[][] = [];
    for await (const page of pagesOf(Readable.from(of))) found.push(page);
    return found;
  };
  expect(await pages(sizes)).toEqual([['0', '1'], ['2'], ['3'], ['4', '5'], ['6']]);
  expect(await pages([])).toEqual([]);
});

it('a delete in a table without a key waits behind the insert of its row, and neighbours do not', async () => {
  const log: TableSchema = { ...table('1', '', [1, 'a'], [2, 'p']), key: [] };
  const entry = (id: string, change: QuarantinedChange['change']) => keyedEntry(id, { change, table: log, target });
  const entries = [
    entry('1', ['i', 0, ['x', '1']]),
    entry('2', ['d', 0, null, 'f', ['x', '1']]),
    entry('3', ['d', 0, null, 'f', ['y', '1']]),
  ];
  const refusing = { reason: 'constraint', sqlState: '23503', message: 'no parent' };
  const { applied, failed } = await replayRounds(entries, async (id) => (id === '1' ? refusing : undefined));
  expect(applied).toEqual(['3']);
  expect(failed.map(({ id }) => id)).toEqual(['1']);
  expect((await replayRounds(entries, async () => undefined)).applied).toEqual(['1', '2', '3']);
});
