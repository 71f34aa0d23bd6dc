/** The order in which chunks of a MySQL table are read, looked at and published. */
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import type { CapturedTable } from '../../capture/mysql/catalog.ts';
import type { SqlClient, TakeRow } from '../../capture/mysql/connection.ts';
import type { LogPort } from '../../capture/mysql/log-boundary.ts';
import { beginReading } from '../../capture/mysql/reading-marks.ts';
import { SnapshotReader } from '../../capture/mysql/snapshot.ts';
import type { ProgressStore, SnapshotProgress, TableProgress } from '../../capture/snapshot-request.ts';
import { StreamLead } from '../../capture/stream-lead.ts';
import { ColumnRules } from '../../core/column-rules.ts';
import { parseGtidSet } from '../../core/gtid-position.ts';
import { createLogger } from '../../core/logger.ts';

const id = { name: 'id', type: 'int', portable: 'integer', notNull: true };
const TABLE: CapturedTable = {
  schema: {
    dialect: 'mysql',
    schema: 'erp',
    name: 'items',
    version: 'v',
    identity: 'full',
    key: ['id'],
    columns: [id],
  },
  columns: [{ schema: id, dataType: 'int', shown: 'int', generated: false, computed: false, textSql: '`id`' }],
  transactional: true,
};

it('begins where the log has come to what the catalog has', async () => {
  const narrowed: CapturedTable = { ...TABLE, schema: { ...TABLE.schema, version: 'narrower' } };
  const published: string[] = [];
  let changes = 0;
  let isBehind = true;
  const port: LogPort = {
    taken: parseGtidSet('', 'mysql')!,
    contains: () => !isBehind,
    place: { file: '', offset: 0 },
    window: undefined,
    publish: ({ schema }, op) => void published.push(`${op} ${schema.version}`),
    publishLines: () => published.push('rows'),
  };
  const client = { query: async () => [['']], each: async () => undefined } as unknown as SqlClient;
  const table: TableProgress = { schema: 'erp', name: 'items', state: 'pending', cursor: null, rows: 0 };
  const begun = await beginReading(
    {
      client,
      lookups: client,
      flavour: 'mysql',
      readTable: async () => narrowed,
      begins: ({ name }) => void published.push(`${name} begins`),
      changes: () => changes,
      rules: ColumnRules.compile(undefined),
      progress: { write: async () => undefined } as unknown as ProgressStore,
      maxChunkRows: 2,
      maxRowsPerSecond: undefined,
      log: createLogger('silent'),
      lead: new StreamLead(0),
      signal: new AbortController().signal,
      atBoundary: async (ready, work) => {
        if (!ready(port)) {
          // Rows of the version before, the statement, and rows of the new one.
          published.push('log v', 'log narrower');
          changes += 1;
          isBehind = false;
        }
        return work(port);
      },
      stored: async () => undefined,
    },
    table,
    'first_erp.items',
    () => true,
  );
  expect(begun?.schema.version).toBe('narrower');
  expect(published).toEqual(['log v', 'log narrower', 's narrower', 'items begins']);
});

it('rows of a table that is dropped while the chunk before is being stored are not published', async () => {
  const published: string[] = [];
  let dropped = false;
  let chunks = 0;
  const client = {
    query: async () => [['']],
    each: async (_sql: string, _doing: string, take: TakeRow) => {
      chunks += 1;
      // Two rows, which is as many as were asked for.
      for (const n of [1, 2]) await take(Buffer.from(`\u0001${2 * chunks + n}`), 0, 2);
    },
  } as unknown as SqlClient;
  const port: LogPort = {
    taken: parseGtidSet('', 'mysql')!,
    contains: () => true,
    place: { file: '', offset: 0 },
    window: undefined,
    publish: (_, op, rows) => void (rows.length > 0 && published.push(op)),
    publishLines: (_, rows) => published.push(`${rows.length} rows`),
  };
  const progress: SnapshotProgress = {
    v: 1,
    id: 'first',
    tables: [{ schema: 'erp', name: 'items', state: 'pending', cursor: null, rows: 0 }],
  };
  const task = {
    progress,
    cancelled: () => false,
    isDue: ({ state }: { state: string }) => state !== 'done',
    setAside: () => undefined,
  };
  const reader = new SnapshotReader(
    {
      client,
      lookups: client,
      flavour: 'mysql',
      readTable: async () => (dropped ? 'absent' : TABLE),
      begins: () => undefined,
      changes: () => 0,
      rules: ColumnRules.compile(undefined),
      progress: { write: async () => undefined } as unknown as ProgressStore,
      maxChunkRows: 2,
      maxRowsPerSecond: undefined,
      log: createLogger('silent'),
      lead: new StreamLead(0),
      signal: new AbortController().signal,
      atBoundary: async (_, work) => work(port),
      stored: async () => {
        if (chunks === 0) return;
        await delay(30);
        dropped = true;
      },
    },
    task,
  );
  await reader.run();
  // The first chunk behind the mark that the reading begins; the second was read, and the stream says of the drop by itself.
  expect([chunks, published]).toEqual([2, ['s', '2 rows']]);
  expect(progress.tables).toMatchObject([{ state: 'done', rows: 2, cursor: ['4'] }]);
});
