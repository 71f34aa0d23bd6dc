/** Batches in which tables change, and rows that nobody has a plan for. */
import { describe, expect, it } from 'vitest';
import { BatchQueue, type Batch } from '../../apply/batch.ts';
import { compact } from '../../apply/compact.ts';
import { FollowedTables, type TableRecord } from '../../apply/followed-tables.ts';
import { HeldKeys } from '../../apply/held-keys.ts';
import { splitBatch } from '../../apply/split-batch.ts';
import type { ReceivedFrame } from '../../core/cdc-stream.ts';
import type { FlowConfig } from '../../core/config.ts';
import type { TableSchema } from '../../core/frame.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import { IndexedFrame } from '../../core/indexed-frame.ts';
import { pgPosition } from '../../core/position.ts';

function tableOf(version: string, columns: number): TableSchema {
  return {
    schema: 'public',
    name: 't',
    id: 7,
    version,
    identity: 'default',
    key: ['c0'],
    columns: Array.from({ length: columns }, (_, n) => ({
      id: n + 1,
      name: `c${n}`,
      type: 'integer',
      portable: 'integer',
      notNull: false,
    })),
  };
}

const FIRST = tableOf('v1', 1);
const SECOND = tableOf('v2', 2);

interface Sent {
  readonly from: bigint;
  readonly to: bigint;
  readonly reset?: boolean;
  /** A transaction of one row each, and where it ends. */
  readonly rows?: readonly (readonly [TableSchema, bigint])[];
}

function receive(seq: number, { from, to, reset = false, rows = [] }: Sent): [ReceivedFrame, IndexedFrame] {
  const writer = new FrameWriter(1000);
  for (const [n, [table, lsn]] of rows.entries()) {
    writer.beginRow('i', table);
    writer.beginTuple();
    for (const index of table.columns.keys()) {
      if (index > 0) writer.comma();
      writer.writeText(Buffer.from('1'), 0, 1);
    }
    writer.endTuple();
    writer.endRow();
    writer.addLsnTransaction(n + 1, lsn, lsn, 0, 1, 'whole', 0);
  }
  const payload = Buffer.from(writer.finish());
  const [start, end] = [pgPosition(from), pgPosition(to)];
  const headers = { source: 's', origin: 'o', epoch: 1, rows: rows.length, timeUs: 0 };
  return [{ ...headers, seq, start, end, reset, payload, place: `${seq}` }, IndexedFrame.open(payload, `${seq}`)];
}

function batchOf(frames: readonly Sent[]): Batch {
  const queue = new BatchQueue(pgPosition(frames[0]!.from), 1);
  for (const [n, frame] of frames.entries()) queue.add(...receive(n + 1, frame));
  return queue.take(Infinity)!;
}

function followed(record: Partial<TableRecord> = {}, tables?: string[]): FollowedTables {
  const known = new FollowedTables(tables === undefined ? {} : { tables });
  known.load([
    {
      schema: 'public',
      name: 't',
      definition: FIRST,
      kept: [],
      pending: [],
      state: 'follows',
      reason: undefined,
      ...record,
    },
  ]);
  return known;
}

describe('a batch in which a table changes', () => {
  it('is cut there, and each part bears the last frame that it has taken whole', () => {
    const batch = batchOf([
      { from: 100n, to: 110n, rows: [[FIRST, 110n]] },
      {
        from: 110n,
        to: 130n,
        rows: [
          [FIRST, 120n],
          [SECOND, 130n],
        ],
      },
      // The source came back from a backup: all is read again, and its log begins further back.
      { from: 130n, to: 50n, reset: true },
      { from: 50n, to: 60n, rows: [[SECOND, 60n]] },
    ]);
    const parts = splitBatch(batch, followed());
    expect(parts.map(({ batch: { seq, next, rows }, steps }) => [seq, next, rows, steps.length])).toEqual([
      [1, pgPosition(120n), 2, 0],
      [4, pgPosition(60n), 2, 1],
    ]);
  });
});

describe('a row without a plan', () => {
  const batch = batchOf([{ from: 100n, to: 110n, rows: [[FIRST, 110n]] }]);
  const settings = { deletes: 'apply', truncate: 'apply' } as FlowConfig;
  const rowsWith = (known: FollowedTables): unknown[] =>
    compact(
      batch.runs,
      () => [undefined],
      settings,
      new HeldKeys(),
      (table) => known.leavesOut(table),
    ).segments;

  it.each([
    ['is not of the flow', followed({}, ['public.other'])],
    ['is stopped', followed({ state: 'stopped', reason: 'why' })],
    ['is gone', followed({ state: 'gone', reason: 'dropped' })],
  ])('is passed over where its table %s', (_, known) => {
    expect(rowsWith(known)).toEqual([]);
  });

  it('is never passed over in silence where its table is followed', () => {
    expect(() => rowsWith(followed())).toThrow(
      expect.objectContaining({
        code: 'internal',
        message: expect.stringMatching(/a row of public\.t .* has no plan/),
      }),
    );
  });
});
