/** A connection that goes at the wrong moment: what a driver throws then must not be taken for a defect. */
import type pg from 'pg';
import { expect, it } from 'vitest';
import type { BatchStore, StoreTransaction } from '../../apply/batch-store.ts';
import { BatchWriter } from '../../apply/batch-writer.ts';
import { targetError } from '../../apply/postgres/target-error.ts';
import type { TablePlan } from '../../apply/postgres/table-plan.ts';
import type { FlowPosition, SinkOptions } from '../../apply/target-store.ts';
import type { CapturedTable } from '../../capture/postgres/catalog.ts';
import { MarkWriter } from '../../capture/postgres/mark-writer.ts';
import { NO_FLOW_REPORT } from '../../core/metrics.ts';
import { ORIGIN } from '../../core/position.ts';

const LOST = 'Connection terminated unexpectedly';

it.each(['begin', 'commit'])('of a source, at the %s of publishing a new table', async (at) => {
  const asked: string[] = [];
  const client = {
    query: async (sql: string) => {
      asked.push(sql);
      if (sql.startsWith(at)) throw new Error(LOST);
      // Nothing is wrong with its identity.
      if (sql.includes('relreplident')) return { rows: [] };
      // As `ensurePublication` asks it: the table is published already.
      return { rows: [{ all: true, root: true, complete: true }] };
    },
  } as unknown as pg.Client;
  const writer = new MarkWriter({
    client,
    publication: 'p',
    markPrefix: 'm',
    included: () => true,
    leftOut: () => undefined,
  });
  const table = {
    oid: 7,
    schema: { schema: 'public', name: 'orders', identity: 'default', key: ['id'], columns: [] },
    partitioned: false,
    parts: [],
  } as unknown as CapturedTable;
  await expect(writer.write(new Map([[7, table]]), new Map())).rejects.toMatchObject({
    code: 'source_unreachable',
    message: expect.stringContaining(LOST) as unknown,
  });
  expect(asked.some((sql) => sql.startsWith(at))).toBe(true);
});

it('of a target, while a flow reads what it has left there', async () => {
  const store = {
    load: async () => {
      throw new Error(LOST);
    },
    error: targetError,
  } as unknown as BatchStore<TablePlan, StoreTransaction>;
  const options = { flow: 'f', report: NO_FLOW_REPORT } as SinkOptions;
  await expect(BatchWriter.create(store, options, { position: ORIGIN, seq: 0 } as FlowPosition)).rejects.toMatchObject({
    code: 'target_unreachable',
  });
});
