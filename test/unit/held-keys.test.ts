import { expect, it } from 'vitest';
import { HeldKeys, type HeldChange } from '../../apply/held-keys.ts';
import type { RowChange } from '../../core/frame.ts';

it('what was held and released since the mark is taken back, and what was held before it is not', () => {
  const held = new HeldKeys();
  held.add('t', '1');
  held.mark();
  held.add('t', '1');
  held.add('t', '2');
  held.add('u', '1');
  held.releaseTable('t');
  held.add('t', '3');
  held.releaseTable('none');
  held.restore();
  const known = ['t', 'u'].flatMap((table) =>
    ['1', '2', '3'].filter((key) => held.has(table, key)).map((key) => table + key),
  );
  expect(known).toEqual(['t1']);
  held.mark();
  held.releaseTable('t');
  held.mark();
  held.add('u', '1');
  held.restore();
  expect(held.empty).toBe(true);
});

it('so are rows of tables without a key, which wait for the end of their transaction', () => {
  const change = (value: string, position: string, id = 't'): HeldChange => {
    const plan = { id, key: [], table: { version: '1' } } as unknown as HeldChange['plan'];
    return { plan, row: ['i', 0, [value]] as unknown as RowChange, position };
  };
  const held = new HeldKeys();
  held.hold(change('a', 'one'));
  held.mark();
  held.hold(change('a', 'one'));
  held.hold(change('b', 'one'));
  expect(held.holds(change('b', 'one'))).toBe(true);
  held.releaseTable('t');
  held.hold(change('c', 'two', 'u'));
  expect(['a', 'b', 'c'].map((value) => held.holds(change(value, 'one')))).toEqual([false, false, false]);
  expect(held.holds(change('c', 'two', 'u'))).toBe(true);
  held.restore();
  expect(['a', 'b'].map((value) => held.holds(change(value, 'one')))).toEqual([true, false]);
  expect([held.holds(change('a', 'two')), held.concerns('u')]).toEqual([false, false]);
  held.mark();
  held.releaseTable('t');
  expect(held.empty).toBe(true);
  held.restore();
  expect(held.concerns('t')).toBe(true);
});
