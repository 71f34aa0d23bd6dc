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
  /** A transaction of one row each, or of a mark, and where it ends. */
  readonly rows?: readonly (readonly [TableSchema, bigint, string?])[];
}

function writeOnes(writer: FrameWriter, table: TableSchema): void {
  writer.beginTuple();
  for (const index of table.columns.keys()) {
    if (index > 0) writer.comma();
    writer.writeText(Buffer.from('1'), 0, 1);
  }
  writer.endTuple();
}

function receive(seq: number, { from, to, reset = false, rows = [] }: Sent): [ReceivedFrame, IndexedFrame] {
  const writer = new FrameWriter(1000);
  for (const [n, [table, lsn, mark]] of rows.entries()) {
    writer.beginRow(mark === undefined ? 'i' : 's', table);
    if (mark === undefined) writeOnes(writer, table);
    else writer.writeJson(Buffer.from(JSON.stringify(['x', mark])));
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
  const known = new FollowedTables({ schema_changes: 'follow', ...(tables === undefined ? {} : { tables }) });
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
    expect([...parts].map(({ batch: { seq, next, rows }, steps }) => [seq, next, rows, steps.length])).toEqual([
      [1, pgPosition(120n), 2, 0],
      [4, pgPosition(60n), 2, 1],
    ]);
  });

  it('has each part decided by what became of its tables in the one before', () => {
    const known = followed();
    const batch = batchOf([
      {
        from: 100n,
        to: 160n,
        rows: [
          [FIRST, 110n],
          [FIRST, 120n, 'gone'],
          [FIRST, 130n],
          [SECOND, 140n],
          [FIRST, 150n],
          [FIRST, 160n, 'begin'],
        ],
      },
    ]);
    const parts = splitBatch(batch, known);
    const next = (): unknown => {
      const part = parts.next().value;
      return part && [part.batch.rows, part.steps.map(({ table, restart }) => [table.version, restart])];
    };
    const becomes = (record: Partial<TableRecord>): void => known.set({ ...known.of(FIRST)!, ...record });
    expect(next()).toEqual([2, []]);
    becomes({ state: 'gone' });
    expect(next()).toEqual([1, [['v1', false]]]);
    becomes({ state: 'follows' });
    expect(next()).toEqual([1, [['v2', false]]]);
    becomes({ state: 'stopped' });
    // It is as before, and still stopped until it is read.
    expect(next()).toEqual([1, []]);
    expect(next()).toEqual([1, [['v1', true]]]);
    expect(next()).toBeUndefined();
  });

  it('takes no other table for gone than the one that its record is of', () => {
    const other = { ...SECOND, id: 8, version: 'v3' };
    const gone = (record: Partial<TableRecord>): (string | undefined)[] => {
      const batch = batchOf([{ from: 100n, to: 110n, rows: [[SECOND, 110n, 'gone']] }]);
      return [...splitBatch(batch, followed(record))].flatMap(({ steps }) => steps.map((step) => step.gone));
    };
    expect(gone({ definition: other })).toEqual([]);
    expect(gone({ definition: FIRST })).toEqual(['x']);
    // Of one that is stopped the version that it was stopped for is not known.
    expect(gone({ definition: other, state: 'stopped', reason: 'another table has its name' })).toEqual(['x']);
  });

  it('is cut between two transactions where that is enough', () => {
    const other = { ...FIRST, name: 'u', id: 8 };
    const known = followed();
    known.set({ ...known.of(FIRST)!, name: 'u', definition: other });
    // The second one writes the other table first.
    const writer = new FrameWriter(1000);
    for (const table of [FIRST, other, SECOND]) {
      writer.beginRow('i', table);
      writeOnes(writer, table);
      writer.endRow();
    }
    writer.addLsnTransaction(1, 100n, 110n, 0, 1, 'whole', 0);
    writer.addLsnTransaction(2, 110n, 120n, 0, 2, 'whole', 0);
    const batch = batchOf([{ from: 100n, to: 120n }]);
    const frame = IndexedFrame.open(Buffer.from(writer.finish()), 'here');
    const run = { ...batch.runs[0]!, frame, to: 3, endEntry: 2 };
    const parts = [...splitBatch({ ...batch, runs: [run], rows: 3 }, known)];
    expect(parts.map(({ batch: { rows, next }, steps }) => [rows, next, steps.length])).toEqual([
      [1, pgPosition(110n), 0],
      [2, pgPosition(120n), 1],
    ]);
  });

  it('is cut where a table is gone and comes back, though all that it names is current', () => {
    const batch = batchOf([
      {
        from: 100n,
        to: 130n,
        rows: [
          [FIRST, 110n],
          [FIRST, 120n, 'gone'],
          [FIRST, 130n],
        ],
      },
    ]);
    expect([...splitBatch(batch, followed())].map(({ batch: { rows } }) => rows)).toEqual([2, 1]);
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
  ])('is passed over where its table %s', (_, known) => {
    expect(rowsWith(known)).toEqual([]);
  });

  it.each([
    ['is followed', followed()],
    ['was gone, and is not said to have come back', followed({ state: 'gone', reason: 'dropped' })],
  ])('is never passed over in silence where its table %s', (_, known) => {
    expect(() => rowsWith(known)).toThrow(
      expect.objectContaining({
        code: 'internal',
        message: expect.stringMatching(/a row of public\.t .* has no plan/),
      }),
    );
  });
});
