import { fstatSync, ftruncateSync, readdirSync, readSync, writeSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { LoggedTable } from '../../capture/mysql/catalog.ts';
import { HeldRows } from '../../capture/mysql/held-rows.ts';
import { tableOf } from '../support/frame-feed.ts';

const ROWS = 5000;
const table: LoggedTable = {
  schema: tableOf('t', ['id int', 'v text']),
  keyIndexes: [0],
  transactional: true,
} as never;

/** Rows that are more than memory holds of them, and the file that has the rest. */
function kept(): { held: HeldRows; file: number; size: number } {
  const before = new Set(namelessFiles());
  const held = new HeldRows();
  for (let id = 1; id <= ROWS; id++) held.add({ change: ['i', 0, [String(id), 'x'.repeat(400)]], table, ordinal: id });
  const file = namelessFiles().find((fd) => !before.has(fd))!;
  return { held, file, size: fstatSync(file).size };
}

function namelessFiles(): number[] {
  return readdirSync('/dev/fd').flatMap((name) => {
    try {
      const stat = fstatSync(Number(name));
      return stat.isFile() && stat.nlink === 0 ? [Number(name)] : [];
    } catch {
      // Closed meanwhile: the descriptor that read the folder.
      return [];
    }
  });
}

describe('rows that are held', () => {
  it('come back in their order', () => {
    const { held } = kept();
    expect([...held.read()].flat().map(({ ordinal }) => ordinal)).toEqual(
      Array.from({ length: ROWS }, (_, i) => i + 1),
    );
    held.dispose();
  });

  it.each([
    ['cut off', (fd: number, size: number): void => ftruncateSync(fd, size - 9)],
    [
      'another one in one bit',
      (fd: number, size: number): void => {
        const byte = Buffer.alloc(1);
        readSync(fd, byte, 0, 1, size - 300);
        writeSync(fd, Buffer.from([byte[0]! ^ 1]), 0, 1, size - 300);
      },
    ],
  ])('are refused where their file is %s', (_, damage) => {
    const { held, file, size } = kept();
    damage(file, size);
    expect(() => [...held.read()]).toThrow(expect.objectContaining({ code: 'spool_failed' }) as Error);
    held.dispose();
  });
});
