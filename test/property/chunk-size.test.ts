/** A chunk is asked for as large as it may be: what is cut off was read for nothing. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { ChunkSize } from '../../capture/postgres/chunk-size.ts';
import { RowLimit } from '../../capture/row-limit.ts';
import { StreamLead } from '../../capture/stream-lead.ts';

const READERS = fc.integer({ min: 1, max: 8 });
const ROW_BYTES = fc.integer({ min: 1, max: 4 << 20 });

function sizeFor(readers: number, bytesPerSecond: number | undefined): ChunkSize {
  const lead = new StreamLead(0, () => 0);
  if (bytesPerSecond !== undefined) lead.heard({ v: 1, flow: 'mirror', seq: 0, bytesPerSecond });
  const size = new ChunkSize({ lead, maxChunkRows: 1_000_000, limit: new RowLimit(undefined) });
  size.readers = readers;
  return size;
}

it('no more rows are asked for than a chunk may have, however slow the flows and large the rows are', () => {
  fc.assert(
    fc.property(
      fc.option(fc.integer({ min: 0, max: 1e8 }), { nil: undefined }),
      READERS,
      ROW_BYTES,
      fc.integer({ min: 1, max: 100_000 }),
      fc.integer({ min: 0, max: 60_000 }),
      (speed, readers, rowBytes, rows, tookMs) => {
        const size = sizeFor(readers, speed);
        for (const asked of [size.first(rowBytes), size.next(rowBytes, rows, tookMs)]) {
          expect(asked).toBeGreaterThanOrEqual(1);
          expect(asked * rowBytes).toBeLessThanOrEqual(Math.max(size.bytes, rowBytes));
        }
      },
    ),
    { examples: [[100_000, 1, 10_000, 100, 10]] },
  );
});

it('a hundred rows that are not large are read however long it takes', () => {
  expect(sizeFor(1, 1e8).next(1000, 100, 60_000)).toBe(100);
  expect(sizeFor(1, 100_000).next(100, 100, 60_000)).toBe(100);
  expect(sizeFor(1, 1e8).next(100_000, 100, 60_000)).toBe(10);
});
