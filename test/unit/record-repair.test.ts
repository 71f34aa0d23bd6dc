/** What a comparison of records says after a repair: no more than it has looked at. */
import { expect, it } from 'vitest';
import { ORIGIN } from '../../core/position.ts';
import { Buckets, bucketOf } from '../../monitoring/drift/digest.ts';
import { isProven, openFindings, type FlowOutcome } from '../../monitoring/drift/outcome.ts';
import type { ExpectedRecords } from '../../monitoring/drift/records/expected-records.ts';
import { recordPlan } from '../../monitoring/drift/records/record-plan.ts';
import { verifyRecords, type RecordsToMend } from '../../monitoring/drift/records/verify-records.ts';
import type { RowImages } from '../../monitoring/drift/row-images.ts';
import type { DigestedRow, DriftTarget, SideTable } from '../../monitoring/drift/side.ts';
import { rowId } from '../../monitoring/drift/touched.ts';

const COLUMNS = [
  { name: 'tenant', type: 'text' },
  { name: 'sku', type: 'text' },
  { name: 'name', type: 'text' },
];
const TABLE: SideTable = {
  dialect: 'postgres',
  schema: 'canonical',
  name: 'product',
  columns: COLUMNS.map(({ name, type }) => ({ name, type, base: type, order: undefined })),
  key: ['tenant', 'sku'],
  estimatedRows: 0,
};
const digest = (sku: string): DigestedRow =>
  recordPlan({ columns: COLUMNS, key: [0, 1], target: TABLE }, new Set()).digest(['default', sku, 'same']);

/** How often the tables of the sources were to be read again. */
let rereads = 0;

/** The rows that were kept with the findings last. */
let settled: ReadonlyMap<string, RowImages> = new Map();

/** Compares products with a target that has `there`; `rewrite` mends it, and `changing` are under change from then on. */
async function repaired(
  skus: readonly string[],
  maxFindings: number,
  there: Set<string>,
  rewrite: (records: RecordsToMend | 'all') => void,
  { changing = [], deleteExtra = true }: { changing?: readonly string[]; deleteExtra?: boolean } = {},
): Promise<FlowOutcome> {
  let touched = new Set<string>();
  const record = (sku: string) => ({
    key: ['default', sku],
    values: skus.includes(sku) ? ['default', sku, 'same'] : undefined,
    open: [],
    maybe: false,
  });
  const expected: ExpectedRecords = {
    columns: COLUMNS,
    key: [0, 1],
    size: skus.length,
    owns: () => true,
    read: async () => {},
    place: async () => ORIGIN,
    look: async () => {},
    nudge: async () => {},
    follow: async () => touched,
    openInAll: () => [],
    all: () => skus.map((sku) => ({ ...record(sku), values: ['default', sku, 'same'] })),
    get: ([, sku]) => record(sku!),
    leftOut: async () => [],
  };
  const rows = (): DigestedRow[] => [...there].map(digest);
  const target: DriftTarget = {
    tables: async () => [TABLE],
    position: async () => ORIGIN,
    scan: async (_, __, mask) => {
      const sums = new Buckets(mask);
      for (const row of rows()) sums.addRow(row.digest);
      return sums;
    },
    rows: async (_, __, mask, buckets) => ({
      rows: rows().filter((row) => buckets.includes(bucketOf(row.digest, mask))),
    }),
    lookUp: async (_, keys) => ({
      rows: rows().filter(({ key }) => keys.some((wanted) => rowId(wanted) === rowId(key))),
    }),
    read: async (_, keys) =>
      [...there].flatMap((sku) => (keys.some((key) => key[1] === sku) ? [['default', sku, 'same']] : [])),
    find: async () => {},
    close: async () => {},
  };
  const mend = async (records: RecordsToMend | 'all'): Promise<void> => {
    rewrite(records);
    touched = new Set(changing.map((sku) => rowId(['default', sku])));
  };
  return await verifyRecords({
    flow: 'products',
    expected,
    target,
    store: {
      begin: async () => ({ id: '1', startedAt: new Date(0), tables: new Map() }),
      provenAt: async () => undefined,
      openRows: async () => new Map(),
      save: async () => {},
      settle: async (_, __, ___, { images }) => void (settled = images),
      finish: async () => {},
      close: async () => {},
    },
    place: { schema: 'canonical', name: 'product' },
    ignoreExtra: false,
    deleteExtra,
    hides: (_, __, column) => column === 'name',
    maxLoad: 1,
    graceMs: 1,
    deliveryMs: 0,
    maxFindings,
    repairer: { rewrite: mend, reread: async () => void (rereads += 1) },
    signal: new AbortController().signal,
  });
}

const open = (outcome: FlowOutcome): string[] =>
  outcome.tables.flatMap((table) => openFindings(table).map(({ key }) => key![1]!)).sort();

it('looks at all records again where more differed than it listed', async () => {
  const there = new Set(['A']);
  const outcome = await repaired(['A', 'B', 'C', 'D'], 2, there, () => ['B', 'C'].forEach((sku) => there.add(sku)));
  expect(open(outcome)).toEqual(['D']);
  expect(isProven(outcome)).toBe(false);
  const whole = new Set(['A']);
  const mended = await repaired(['A', 'B', 'C', 'D'], 2, whole, () => ['B', 'C', 'D'].forEach((sku) => whole.add(sku)));
  expect([open(mended), isProven(mended)]).toEqual([[], true]);
});

it('does not take for mended what changes all the time', async () => {
  const outcome = await repaired(['A', 'B'], 10, new Set(['A']), () => {}, { changing: ['B'] });
  expect(open(outcome)).toEqual([]);
  expect(isProven(outcome)).toBe(false);
});

it('asks for what differs alone, and for extra rows to be deleted only where it is told to', async () => {
  for (const deleteExtra of [true, false]) {
    rereads = 0;
    const there = new Set(['A', 'X']);
    const asked: unknown[] = [];
    const outcome = await repaired(
      ['A', 'B'],
      10,
      there,
      (records) => {
        asked.push(records);
        if (records === 'all') return;
        for (const [, sku] of records.again) there.add(sku!);
        for (const [, sku] of records.gone) there.delete(sku!);
      },
      { deleteExtra },
    );
    expect(asked).toEqual([{ again: [['default', 'B']], gone: deleteExtra ? [['default', 'X']] : [] }]);
    expect([...there].sort()).toEqual(deleteExtra ? ['A', 'B'] : ['A', 'B', 'X']);
    expect(outcome.tables[0]!.repaired).toMatchObject({ asked: deleteExtra ? 2 : 1 });
    expect(open(outcome)).toEqual(deleteExtra ? [] : ['X']);
    expect(rereads, 'nothing that is to be mended is left').toBe(0);
  }
});

it('reads nothing again, and asks for nothing, where only extra rows are found that are to stay', async () => {
  rereads = 0;
  const asked: unknown[] = [];
  const outcome = await repaired(['A'], 10, new Set(['A', 'X']), (records) => asked.push(records), {
    deleteExtra: false,
  });
  expect([asked, rereads, open(outcome), isProven(outcome)]).toEqual([[], 0, ['X'], false]);
  expect(outcome.tables[0]!.repaired).toMatchObject({ asked: 0 });
  // More than is listed: all of it is written anew only where that may take rows away.
  for (const deleteExtra of [true, false]) {
    const listed: unknown[] = [];
    await repaired(['A', 'B', 'C'], 1, new Set(['A']), (records) => listed.push(records), { deleteExtra });
    expect(listed[0]).toEqual(deleteExtra ? 'all' : { again: [['default', expect.any(String)]], gone: [] });
  }
});

it('keeps what both sides have of a finding, and no value that is hidden', async () => {
  await repaired(['A', 'B'], 10, new Set(['A', 'C']), () => {});
  expect(Object.fromEntries(settled)).toEqual({
    '["default","B"]': {
      columns: ['tenant', 'sku', 'name'],
      key: [0, 1],
      differs: [],
      source: ['default', 'B', { hidden: true }],
      target: null,
    },
    '["default","C"]': {
      columns: ['tenant', 'sku', 'name'],
      key: [0, 1],
      differs: [],
      source: null,
      target: ['default', 'C', { hidden: true }],
    },
  });
});
