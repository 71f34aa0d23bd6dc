/** What a comparison of records says after a repair: no more than it has looked at. */
import { expect, it } from 'vitest';
import { ORIGIN } from '../../core/position.ts';
import { Buckets, bucketOf } from '../../monitoring/drift/digest.ts';
import { isProven, openFindings, type FlowOutcome } from '../../monitoring/drift/outcome.ts';
import type { ExpectedRecords } from '../../monitoring/drift/records/expected-records.ts';
import { recordPlan } from '../../monitoring/drift/records/record-plan.ts';
import { verifyRecords } from '../../monitoring/drift/records/verify-records.ts';
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
  columns: COLUMNS.map(({ name, type }) => ({ name, type, base: type, ordered: false })),
  key: ['tenant', 'sku'],
  estimatedRows: 0,
};
const digest = (sku: string): DigestedRow =>
  recordPlan({ columns: COLUMNS, key: [0, 1], target: TABLE }, new Set()).digest(['default', sku, 'same']);

/** The rows that were kept with the findings last. */
let settled: ReadonlyMap<string, RowImages> = new Map();

/** Compares products with a target that has `there`; `rewrite` mends it, and `changing` are under change from then on. */
async function repaired(
  skus: readonly string[],
  maxFindings: number,
  there: Set<string>,
  rewrite: () => void,
  changing: readonly string[] = [],
): Promise<FlowOutcome> {
  let touched = new Set<string>();
  const record = (sku: string) => ({ key: ['default', sku], values: ['default', sku, 'same'], open: [], maybe: false });
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
    all: () => skus.map(record),
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
  const mend = async (): Promise<void> => {
    rewrite();
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
    hides: (_, __, column) => column === 'name',
    maxLoad: 1,
    graceMs: 1,
    deliveryMs: 0,
    maxFindings,
    repairer: { rewrite: mend, reread: async () => {} },
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
  const outcome = await repaired(['A', 'B'], 10, new Set(['A']), () => {}, ['B']);
  expect(open(outcome)).toEqual([]);
  expect(isProven(outcome)).toBe(false);
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
  });
});
