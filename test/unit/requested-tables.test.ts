import { expect, it } from 'vitest';
import { mustWait, readAnew, withRequest } from '../../capture/requested-tables.ts';
import {
  answers,
  beginContent,
  isUnasked,
  type SnapshotRequest,
  type TableProgress,
} from '../../capture/snapshot-request.ts';

const name = (of: string): { schema: string; name: string } => ({ schema: 's', name: of });
const table = (of: string, more: Partial<TableProgress> = {}): TableProgress => ({
  ...name(of),
  state: 'pending',
  cursor: null,
  rows: 0,
  ...more,
});
const request = (id: string, more: Partial<SnapshotRequest> = {}): SnapshotRequest => ({ v: 1, id, ...more });
const begun: Partial<TableProgress> = { state: 'running', reading: 'one', cursor: ['5'] };

it('a table of which nothing was read yet answers a later request as well, and sooner where it is named', () => {
  const waiting = (): TableProgress => table('a', { request: 'first' });
  const first = waiting();
  const [a, b] = withRequest([first], request('second'), [name('a'), name('b')]);
  expect(a).toBe(first);
  expect(a).toEqual(table('a', { request: 'second', also: ['first'] }));
  expect(b).toEqual(table('b', { request: 'second' }));
  const other = waiting();
  const named = withRequest([other, table('b')], request('second', { tables: ['s.a'] }), [name('a')]);
  expect(named).toEqual([table('b'), table('a', { request: 'second', also: ['first'] })]);
  expect(named[1]).not.toBe(other);
});

it('a table that is being read is begun again, for those who asked before and for the new one', () => {
  const old = table('a', { ...begun, request: 'first' });
  const tables = [old, table('a', { keys: [['1']], request: 'keys' }), table('b', { ...begun })];
  const made = withRequest(tables, request('second'), [name('a')]);
  expect(made).toEqual([tables[2], table('a', { request: 'second', also: ['first', 'keys'] })]);
  expect(['first', 'keys', 'second', 'other'].map((id) => answers(made[1]!, id))).toEqual([true, true, true, false]);
});

it('a table is read anew for those who had it read, whether that had come to its end or not', () => {
  for (const state of ['running', 'done'] as const)
    expect(readAnew([table('a', { ...begun, state, request: 'first' })], [name('a')])).toEqual([
      table('a', { request: 'first', needed: true, ...(state === 'running' ? { asked: true } : {}) }),
    ]);
  // Who asks for a table that was read before does not ask for others.
  expect(
    withRequest([table('a', { ...begun, state: 'done', request: 'first' })], request('second'), [name('a')]),
  ).toEqual([table('a', { request: 'second' })]);
});

it('what a table must be read for stays when somebody asks for it', () => {
  expect(withRequest([table('a', { ...begun, needed: true })], request('first'), [name('a')])[0]!.needed).toBe(true);
  const part = table('a', { needed: true, part: { schema: 's', name: 'p' } });
  expect(withRequest([part], request('first'), [name('a')])).toEqual([
    table('a', { request: 'first', needed: true, asked: true }),
  ]);
});

it('it is told of a reading whether anybody asked for it, and is still to get it', () => {
  const unasked = (tables: readonly TableProgress[]): boolean[] => tables.map((one) => isUnasked(one));
  const first = withRequest([], request('first'), [name('a')]);
  expect(unasked(first)).toEqual([false]);
  const both = readAnew(first, [name('a')]);
  expect(unasked(both)).toEqual([false]);
  expect(unasked(readAnew(both, [name('a')]))).toEqual([false]);
  const done = both.map((one): TableProgress => ({ ...one, state: 'done' }));
  const again = readAnew(done, [name('a')]);
  expect(unasked(again)).toEqual([true]);
  expect(unasked(withRequest(again, request('keys', { keys: [['1']] }), [name('a')]))).toEqual([true, false]);
  expect(unasked(withRequest(again, request('second'), [name('a')]))).toEqual([false]);
});

it('keys and ranges stand beside what is known of a table; ranges stay for a while when they are read', () => {
  const span = { columns: [], from: null, to: ['5'] };
  let tables: TableProgress[] = [table('a', { ...begun, state: 'done' }), table('a', { keys: [['1']], state: 'done' })];
  tables = withRequest(tables, request('keys', { keys: [['2']] }), [name('a')]);
  expect(tables.map(({ keys }) => keys)).toEqual([undefined, [['2']]]);
  for (let i = 0; i < 20; i++) {
    for (const one of tables) one.state = 'done';
    tables = withRequest(tables, request(`range${i}`, { span, tables: ['s.a'] }), [name('a')]);
  }
  expect(tables.map(({ request: id }) => id)).toEqual([
    undefined,
    ...[11, 12, 13, 14, 15, 16, 17, 18, 19].map((n) => `range${n}`),
  ]);
});

it('a range waits for other readings of its table, and keys for a message that is full of them', () => {
  const span = { columns: [], from: null, to: ['5'] };
  const range = request('range', { span, tables: ['s.a'] });
  expect(mustWait([table('a')], range)).toBe(true);
  expect(mustWait([table('a', { state: 'done' }), table('b')], range)).toBe(false);
  const keys = [['x'.repeat(150_000)]];
  expect(mustWait([table('b', { keys })], request('keys', { keys, tables: ['s.a'] }))).toBe(true);
  expect(mustWait([table('b', { keys, state: 'done' })], request('keys', { keys, tables: ['s.a'] }))).toBe(false);
});

it('tables whose columns were guessed say so in the mark of their reading, until they are read', () => {
  const guessed = readAnew([], [name('a')], 'unsure');
  expect(guessed.map((table) => beginContent('s', table))).toEqual([['s', 'begin', 'unasked', 'unsure']]);
  // Read once more before that, they are no less unsure.
  expect(readAnew(guessed, [name('a')]).map((table) => beginContent('s', table))).toEqual([
    ['s', 'begin', 'unasked', 'unsure'],
  ]);
  const done = guessed.map((table) => ({ ...table, state: 'done' as const }));
  expect(readAnew(done, [name('a')]).map((table) => beginContent('s', table))).toEqual([['s', 'begin', 'unasked']]);
});
