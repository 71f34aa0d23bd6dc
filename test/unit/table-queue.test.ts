import { describe, expect, it } from 'vitest';
import { TableQueue, type TableSize } from '../../capture/postgres/table-queue.ts';
import type { TableProgress } from '../../capture/snapshot-request.ts';

const KB = 1024;

function entry(name: string, more: Partial<TableProgress> = {}): TableProgress {
  return { schema: 'public', name, state: 'pending', cursor: null, rows: 0, ...more };
}

function queueOf(sizes: Record<string, TableSize>, more: Record<string, Partial<TableProgress>> = {}): TableQueue {
  const queue = new TableQueue();
  const tables = Object.keys(sizes).map((name) => entry(name, more[name]));
  queue.add(tables, new Map(tables.map((table) => [table, sizes[table.name]!])));
  return queue;
}

const names = (tables: readonly (TableProgress | undefined)[]): (string | undefined)[] =>
  tables.map((table) => table?.name);

describe('tables that wait to be read', () => {
  it('come in the order of their sizes, known or guessed, and what is added later takes its place among them', () => {
    const queue = queueOf({
      large: { rows: 1, bytes: 900 * KB },
      guessed: { rows: 1000 },
      small: { rows: 9, bytes: 8 },
    });
    expect(queue.take()?.name).toBe('small');
    queue.add([entry('rows', { keys: [['1']] }), entry('huge')], new Map([[entry('none'), { rows: 1 }]]));
    const huge = entry('largest');
    queue.add([huge], new Map([[huge, { rows: 1, bytes: 5000 * KB }]]));
    expect(names([queue.take(), queue.take(), queue.take()])).toEqual(['rows', 'huge', 'guessed']);
    queue.addAgain(huge);
    expect(names([queue.take(), queue.take(), queue.take(), queue.take()])).toEqual([
      'large',
      'largest',
      'largest',
      undefined,
    ]);
  });

  it('are taken before what is being read only where they are smaller', () => {
    const queue = queueOf({ a: { rows: 1, bytes: 10 }, b: { rows: 1, bytes: 20 } });
    expect(names([queue.take(20), queue.take(20), queue.take()])).toEqual(['a', undefined, 'b']);
  });

  it('are taken together where they are small, analysed and read whole', () => {
    const sizes = {
      a: { rows: 1, bytes: 10 },
      unknown: { rows: 0 },
      part: { rows: 1, bytes: 10 },
      begun: { rows: 1, bytes: 10 },
      b: { rows: 1, bytes: 40 },
      c: { rows: 1, bytes: 50 },
      large: { rows: 1, bytes: 51 },
    };
    const queue = queueOf(sizes, { part: { part: { schema: 's', name: 'p' } }, begun: { state: 'running' } });
    expect(names(queue.takeSmall(2, 100))).toEqual(['a', 'b']);
    expect(names(queue.takeSmall(2, 100))).toEqual(['c']);
    expect(names(queue.takeSmall(2, 100))).toEqual([]);
    expect(names([queue.take(), queue.take(), queue.take(), queue.take()])).toEqual([
      'unknown',
      'part',
      'begun',
      'large',
    ]);
  });
});
