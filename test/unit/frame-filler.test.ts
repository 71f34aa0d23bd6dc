import { describe, expect, test } from 'vitest';
import { FrameFiller } from '../../capture/frame-filler.ts';
import type { TableSchema } from '../../core/frame.ts';
import { ORIGIN } from '../../core/position.ts';

const FRAME_BYTES = 16 * 1024;
const ROW = ['1'.repeat(90)];

function table(name: string): TableSchema {
  const columns = [{ name: 'n'.repeat(60), type: 'text', portable: 'text', notNull: true }];
  return { schema: 'public', name, version: '1', identity: 'default', key: [], columns };
}

/** Bytes of the rows of a frame that is full, of rows spread over so many tables. */
function filled(tables: number): { rows: number; definitions: number } {
  const filler = new FrameFiller(FRAME_BYTES, ORIGIN);
  const all = Array.from({ length: tables }, (_, index) => table(`t${index}`));
  for (let row = 0; !filler.full; row++) {
    filler.writer.beginRow('i', all[row % tables]);
    filler.writer.writeImage(ROW);
    filler.writer.endRow();
  }
  return { rows: filler.writer.size, definitions: filler.writer.tablesBytes };
}

describe('a frame', () => {
  test('is full at its usual size, where its definitions are small beside the rows', () => {
    const { rows } = filled(10);
    expect(rows).toBeGreaterThanOrEqual(FRAME_BYTES);
    expect(rows).toBeLessThan(FRAME_BYTES + 200);
  });

  test('holds more of its rows than of definitions, where there are many tables', () => {
    const { rows, definitions } = filled(80);
    expect(definitions).toBeGreaterThan(FRAME_BYTES / 2);
    expect(rows).toBeGreaterThanOrEqual(2 * definitions);
    expect(rows).toBeLessThan(2 * definitions + 200);
  });

  test('is of four times the usual size at most', () => {
    const { rows, definitions } = filled(1000);
    expect(definitions).toBeGreaterThan(2 * FRAME_BYTES);
    expect(rows).toBeLessThan(4 * FRAME_BYTES + 200);
  });
});
