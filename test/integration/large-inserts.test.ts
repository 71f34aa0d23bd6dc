/**
 * Transactions that insert very many rows. The capture lays most of these out as lines of COPY (docs/frame-format.md): who
 * takes lines and who takes them apart both end with what the source has, and so does a batch that fails.
 */
import { describe, expect, it } from 'vitest';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import { HEADER } from '../../core/frame.ts';
import { openFindings } from '../../monitoring/drift/outcome.ts';
import type { CrossPipeline } from '../support/cross-pipeline.ts';
import { EveryServer } from '../support/every-server.ts';
import { waitFor } from '../support/wait.ts';

const TIMEOUT_MS = 180_000;
const ROWS = 20_000;
const servers = EveryServer.forThisFile();

const TABLE =
  'create table items (id bigint primary key, name text, qty numeric(12,3), at timestamp(3), flags boolean)';
/** Rows with all that needs an escape in a line, or looks like one. */
const insert = (from: number, to: number): string =>
  `insert into items (id, name, qty, at, flags) select i,
     case i % 5 when 0 then null when 1 then '' when 2 then E'tab\\t lf\\n cr\\r \\\\N \\\\. \\b\\f\\v "q" \\x01 é 🚚' || i when 3 then '\\N'
       else repeat('x', 30) || i end, i / 8.0, timestamp '2026-01-02 03:04:05.678' + i * interval '1 s', i % 2 = 0
   from generate_series(${from}, ${to}) i`;

/** How many frames of the stream hold lines. */
async function framesWithLines(pipeline: CrossPipeline): Promise<number> {
  const stream = cdcStreamName(pipeline.config.nats.prefix, 'one');
  const { streams } = pipeline.nats.manager;
  const { state } = await streams.info(stream);
  let count = 0;
  for (let seq = state.first_seq; seq <= state.last_seq; seq++)
    if ((await streams.getMessage(stream, { seq }))?.header.get(HEADER.format) === '2') count += 1;
  return count;
}

async function expectEqual(pipeline: CrossPipeline): Promise<void> {
  const outcome = await pipeline.verify();
  const findings = outcome.tables.flatMap((table) => openFindings(table));
  expect(findings.slice(0, 10)).toEqual([]);
}

describe.each(['postgres', 'mysql', 'mariadb'] as const)('very many inserts in one transaction, to %s', (to) => {
  it(
    'come whole and in order, with what else the transaction changes',
    async () => {
      const pipeline = await servers.pipeline('postgres', to);
      await pipeline.source.run(`${TABLE}; create table files (id bigint primary key, body bytea)`);
      await pipeline.start();
      await pipeline.source.run(insert(1, 3));
      await pipeline.settled(['items']);
      const before = await framesWithLines(pipeline);
      await pipeline.source.run(`begin; ${insert(4, ROWS)};
        insert into files select i, decode(md5(i::text), 'hex') from generate_series(1, 5000) i;
        update items set name = 'changed' where id % 1000 = 7; delete from items where id % 1000 = 8;
        update items set id = -id where id % 1000 = 9;
        alter table items add column more text;
        insert into items select i, 'new', 1, null, null, case when i % 3 = 0 then null else 'n' || i end
          from generate_series(${ROWS + 1}, ${ROWS + 9000}) i;
        commit`);
      await pipeline.settled(['items', 'files']);
      expect(await framesWithLines(pipeline)).toBeGreaterThan(before);
      // One that brings the same keys again, in one batch with their deletes.
      await pipeline.source.run(`begin; delete from items where id between 100 and 9000; commit; ${insert(100, 8990)}`);
      await pipeline.settled(['items', 'files']);
      await expectEqual(pipeline);
    },
    TIMEOUT_MS,
  );
});

/** From Postgres to Postgres, with rows 1 and 2 on both sides. */
async function withTwoRows(): Promise<CrossPipeline> {
  const pipeline = await servers.pipeline('postgres', 'postgres');
  await pipeline.source.run(TABLE);
  await pipeline.start();
  await pipeline.source.run(insert(1, 2));
  await pipeline.settled(['items']);
  return pipeline;
}

describe('very many inserts that the target does not take as they are', () => {
  it(
    'meet rows that the target has already',
    async () => {
      const pipeline = await withTwoRows();
      await pipeline.target.run(
        `insert into ${pipeline.place}.items (id, name) select i, 'there before' from generate_series(5000, 5010) i`,
      );
      await pipeline.source.run(insert(3, ROWS));
      await pipeline.settled(['items']);
      await expectEqual(pipeline);
    },
    TIMEOUT_MS,
  );

  it(
    'leave in quarantine the rows that it refuses, and later changes of their keys',
    async () => {
      const pipeline = await withTwoRows();
      const { place } = pipeline;
      await pipeline.target.run(`alter table ${place}.items add constraint small check (qty < 2000 or id <> 16001)`);
      await pipeline.source.run(insert(3, 16_500));
      const waiting = 'select key, op, reason, "ordinal" from waybill.quarantine order by id';
      const refused = ['["16001"]', 'i', 'constraint', String(16_001 - 3)];
      await waitFor('the row to be refused', async () =>
        (await pipeline.target.run(waiting)).length > 0 ? true : undefined,
      );
      await pipeline.source.run(
        `begin; update items set name = 'later' where id = 16001; ${insert(16_501, 20_000)}; commit`,
      );
      await waitFor('the rows behind', async () =>
        (await pipeline.target.run(`select count(*) from ${place}.items`))[0]![0] === '19999' ? true : undefined,
      );
      expect((await pipeline.target.run(waiting)).map((row) => row.map(String))).toEqual([
        refused,
        ['["16001"]', 'u', 'held', '0'],
      ]);
    },
    TIMEOUT_MS,
  );
});
