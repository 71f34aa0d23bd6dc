/** `deletes: soft`: what goes at the source stays in the target, marked with the moment at which it went. */
import { describe, expect, it } from 'vitest';
import { targetOf } from '../../apply/target-kind.ts';
import { rereadRows } from '../../capture/reread.ts';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import type { Dialect, RowChange, Value } from '../../core/frame.ts';
import type { Repairer } from '../../monitoring/drift/verify-flow.ts';
import type { CrossPipeline } from '../support/cross-pipeline.ts';
import { EveryServer } from '../support/every-server.ts';
import { del, ins, tableOf, upd, type FrameFeed } from '../support/frame-feed.ts';
import { openMysqlTarget } from '../support/mysql-target.ts';
import { PostgresTarget } from '../support/postgres-target.ts';
import { waitFor } from '../support/wait.ts';

const servers = EveryServer.forThisFile();
const PATHS: readonly (readonly [Dialect, Dialect])[] = [
  ['postgres', 'postgres'],
  ['mysql', 'postgres'],
  ['postgres', 'mysql'],
  ['mysql', 'mysql'],
  ['mariadb', 'mariadb'],
];
const DELETED_AT = 'waybill_deleted_at';

/** Ids and values of rows: those that are there, or those that are gone. */
async function rowsOf(p: CrossPipeline, which: 'there' | 'gone', where = 'true'): Promise<string[]> {
  const is = which === 'there' ? 'IS NULL' : 'IS NOT NULL';
  const rows = await p.target.run(`SELECT id, v FROM ${p.place}.t WHERE ${DELETED_AT} ${is} AND ${where} ORDER BY id`);
  return rows.map((row) => row.join(' '));
}

async function countOf(p: CrossPipeline, which: 'there' | 'gone'): Promise<number> {
  return (await rowsOf(p, which)).length;
}

/** The moments at which rows went, in microseconds since 1970. */
async function timesOf(p: CrossPipeline, where: string): Promise<number[]> {
  const micros =
    p.target.dialect === 'postgres'
      ? `(extract(epoch from ${DELETED_AT}) * 1000000)::bigint`
      : `TIMESTAMPDIFF(MICROSECOND, '1970-01-01', ${DELETED_AT})`;
  return (await p.target.run(`SELECT DISTINCT ${micros} FROM ${p.place}.t WHERE ${where}`)).map(([at]) => Number(at));
}

/** Waits until all that the source has done so far is in the target. */
async function passed(p: CrossPipeline, marker: number): Promise<void> {
  await p.source.run(`INSERT INTO ${p.schema}.markers VALUES (${marker})`);
  await waitFor(`marker ${marker}`, async () => {
    if (p.failure !== undefined) throw p.failure;
    return (await p.target.run(`SELECT id FROM ${p.place}.markers WHERE id = ${marker}`)).length === 1;
  });
}

async function begin(from: Dialect, to: Dialect, flow: Record<string, unknown>): Promise<CrossPipeline> {
  const p = await servers.pipeline(from, to, flow);
  await p.source.run(
    `CREATE TABLE ${p.schema}.t (id int PRIMARY KEY, v varchar(40)); CREATE TABLE ${p.schema}.markers (id int PRIMARY KEY);`,
  );
  const values = Array.from({ length: 300 }, (_, i) => `(${i + 1}, 'v')`);
  await p.source.run(`INSERT INTO ${p.schema}.t VALUES ${values.join(', ')}`);
  return p;
}

describe.each(PATHS)('from %s to %s', (from, to) => {
  it('rows that go are marked, and those that come again are not', async () => {
    const p = await begin(from, to, { deletes: 'soft' });
    const { schema, source, target, place } = p;
    await p.start();
    await p.settled(['t']);
    await passed(p, 1);
    expect(await countOf(p, 'gone')).toBe(0);

    // Few travel as literals, many by a table of their own; each with the moment of its commit. Some sources log it in seconds.
    const beforeUs = Math.floor(Date.now() / 1000) * 1_000_000;
    await source.run(`DELETE FROM ${schema}.t WHERE id <= 5`);
    await passed(p, 2);
    expect(await rowsOf(p, 'gone')).toEqual(['1 v', '2 v', '3 v', '4 v', '5 v']);
    const first = await timesOf(p, 'id <= 5');
    expect(first).toHaveLength(1);
    expect(first[0]).toBeGreaterThanOrEqual(beforeUs);
    expect(first[0]).toBeLessThanOrEqual(Date.now() * 1000 + 999);
    await source.run(`DELETE FROM ${schema}.t WHERE id BETWEEN 51 AND 250`);
    await passed(p, 3);
    expect(await countOf(p, 'gone')).toBe(205);
    expect(await timesOf(p, 'id BETWEEN 51 AND 250')).toHaveLength(1);
    expect(await timesOf(p, 'id <= 5')).toEqual(first);

    await source.run(`INSERT INTO ${schema}.t VALUES (1, 'again')`);
    // A row that came and went leaves a mark, whatever a batch is; one whose key changes goes along.
    await source.run(
      `BEGIN; INSERT INTO ${schema}.t VALUES (1000, 'short'); UPDATE ${schema}.t SET v = 'lived' WHERE id = 1000; DELETE FROM ${schema}.t WHERE id = 1000; COMMIT`,
    );
    await source.run(`UPDATE ${schema}.t SET id = 2 WHERE id = 10`);
    const many = Array.from({ length: 150 }, (_, i) => `(${60 + i}, 'many')`);
    await source.run(`INSERT INTO ${schema}.t VALUES ${many.join(', ')}`);
    await passed(p, 4);
    expect(await rowsOf(p, 'there', 'id IN (1, 2, 10, 60, 209)')).toEqual(['1 again', '2 v', '60 many', '209 many']);
    expect(await rowsOf(p, 'gone', 'id NOT BETWEEN 51 AND 250')).toEqual(['3 v', '4 v', '5 v', '1000 lived']);
    expect(await target.run(`SELECT id FROM ${place}.t WHERE id = 10`)).toEqual([]);

    // Comparisons take what is marked for absent, and repair what is not there by marking it.
    const clean = await p.verify();
    expect(clean.tables.flatMap(({ progress }) => progress.findings)).toEqual([]);
    await target.run(
      `INSERT INTO ${place}.t (id, v) VALUES (5000, 'extra'); UPDATE ${place}.t SET ${DELETED_AT} = '2024-01-01 00:00:00' WHERE id = 300`,
    );
    const repairer: Repairer = {
      reread: (namespace, table, keys, signal) =>
        rereadRows({ nats: p.nats, config: p.config.nats, source: 'one', schema: namespace, table, keys, signal }),
    };
    const found = await p.verify();
    expect(
      found.tables.flatMap(({ progress }) => progress.findings.map(({ kind, key }) => `${kind} ${key?.join()}`)).sort(),
    ).toEqual(['extra 5000', 'missing 300']);
    const repaired = await p.verify(repairer);
    expect(repaired.tables.find(({ name }) => name === 't')!.repaired).toEqual({ asked: 2, left: [] });
    expect(await rowsOf(p, 'gone', 'id > 1000')).toEqual(['5000 extra']);
    expect(await rowsOf(p, 'there', 'id = 300')).toEqual(['300 v']);

    // Definitions change beside the column; a reading of the table marks what it does not see.
    await source.run(`ALTER TABLE ${schema}.t ADD COLUMN note varchar(9)`);
    await source.run(`INSERT INTO ${schema}.t VALUES (400, 'v', 'n')`);
    await passed(p, 5);
    await target.run(`INSERT INTO ${place}.t (id, v) VALUES (6000, 'extra'), (6001, 'extra')`);
    await requestSnapshot(p.config.nats, 'one', { tables: [`${schema}.t`], cancel: false, reset: false });
    await waitFor('the reading', async () => (await rowsOf(p, 'gone', 'id >= 6000')).length === 2);
    expect(await target.run(`SELECT note FROM ${place}.t WHERE id = 400`)).toEqual([['n']]);

    const live = await source.run(`SELECT count(*) FROM ${schema}.t`);
    expect(await countOf(p, 'there')).toBe(Number(live[0]![0]));
    await source.run(`TRUNCATE TABLE ${schema}.t`);
    await source.run(`INSERT INTO ${schema}.t VALUES (7, 'last', NULL)`);
    await passed(p, 6);
    expect(await rowsOf(p, 'there')).toEqual(['7 last']);
    expect(await timesOf(p, `id = 3`)).toEqual(first);
    expect(await target.run('SELECT message FROM waybill.quarantine')).toEqual([]);
  });
});

describe.each(['postgres', 'mysql', 'mariadb'] as const)('in %s', (to) => {
  it('a flow takes it up with tables that are there, and does not give it up unnoticed', async () => {
    const p = await begin('postgres', to, {});
    const { schema, source, target, place } = p;
    await p.start();
    await p.settled(['t']);
    await p.stop('apply');
    const flow = p.config.flows[p.flow]! as { deletes: string };
    flow.deletes = 'soft';
    await source.run(`DELETE FROM ${schema}.t WHERE id = 9`);
    await p.start(['apply']);
    await passed(p, 1);
    expect(await rowsOf(p, 'gone')).toEqual(['9 v']);
    await p.stop('apply');
    flow.deletes = 'apply';
    await source.run(`INSERT INTO ${schema}.t VALUES (9, 'again')`);
    await p.start(['apply']);
    await waitFor('the refusal', async () => p.failure !== undefined);
    expect(p.failure).toMatchObject({ code: 'target_shape' });
    expect(String(p.failure)).toMatch(/waybill_deleted_at of a flow with deletes: soft.*DELETE FROM .*DROP COLUMN/s);
    p.failure = undefined;
    await p.stop('apply');
    await target.run(`DELETE FROM ${place}.t WHERE ${DELETED_AT} IS NOT NULL`);
    for (const table of ['t', 'markers']) await target.run(`ALTER TABLE ${place}.${table} DROP COLUMN ${DELETED_AT}`);
    await p.start(['apply']);
    await p.settled(['t']);
    expect(await target.run(`SELECT v FROM ${place}.t WHERE id = 9`)).toEqual([['again']]);
  });

  it('tables of which rows cannot be marked are refused, by themselves', async () => {
    const p = await begin('postgres', to, { deletes: 'soft' });
    const { schema, source } = p;
    await source.run(
      `CREATE TABLE ${schema}.keyless (a int); ALTER TABLE ${schema}.keyless REPLICA IDENTITY FULL;
       CREATE TABLE ${schema}.taken (id int PRIMARY KEY, "Waybill_deleted_at" text);
       INSERT INTO ${schema}.keyless VALUES (1); INSERT INTO ${schema}.taken VALUES (1, 'x');`,
    );
    await p.start();
    await p.settled(['t']);
    const desk = await (await targetOf(p.config.targets['two']!)).openDesk('test');
    try {
      const records = await waitFor('both to be stopped', async () => {
        const found = await desk.tableRecords(p.flow);
        return found.filter(({ state }) => state === 'stopped').length === 2 && found;
      });
      const reasons = Object.fromEntries(records.map(({ name, reason }) => [name, reason ?? '']));
      expect(reasons['keyless']).toContain('it has no key, by which deletes: soft finds the row to mark');
      expect(reasons['taken']).toContain(
        'its column Waybill_deleted_at has the name of the one that deletes: soft adds',
      );
      expect(reasons['t']).toBe('');
      const { check } = await targetOf(p.config.targets['two']!);
      const tables = { [p.flow]: records.flatMap(({ definition }) => (definition === undefined ? [] : [definition])) };
      const keyless = { ...tables[p.flow]![0]!, name: 'other', key: [] };
      const findings = await check('two', p.config.flows, { [p.flow]: [keyless] });
      expect(findings.filter(({ severity }) => severity === 'error')[0]).toMatchObject({
        message: expect.stringContaining('it has no key, by which deletes: soft finds the row to mark') as string,
        remedy: 'see docs/runbook.md#deleted-rows-that-stay',
      });
    } finally {
      await desk.close();
    }
  });
});

describe.each(['postgres', 'mysql', 'mariadb'] as const)('however it is written, in %s', (kind) => {
  it('row by row, held back, replayed and of a range', async () => {
    const items = tableOf('items', ['id integer', 'name text', 'doc text']);
    const { feed, rows } = await openTarget(kind, { deletes: 'soft', schema: 'wms' });
    const there = async (): Promise<unknown[]> =>
      await rows(`SELECT id, name, doc FROM wms.items WHERE ${DELETED_AT} IS NULL ORDER BY id`);
    const gone = async (): Promise<unknown[]> =>
      await rows(`SELECT id, name, doc FROM wms.items WHERE ${DELETED_AT} IS NOT NULL ORDER BY id`);
    const moved = (before: string, ...after: Value[]): RowChange => ['u', 0, after, 'k', [before, null, null]];
    feed.start();
    await feed.frame([items], [['1', '2', '3', '4', '5', '6'].map((id) => ins(id, 'a', 'd'))]);
    await feed.frame([items], [[del('5', null, null)], [del('6', null, null)]]);
    await feed.caughtUp();
    expect(await gone()).toEqual(texts([5, 'a', 'd'], [6, 'a', 'd']));

    // What an update leaves unchanged only the target has: such rows go one after the other, also to a key that is marked.
    await feed.frame([items], [[upd('1', 'b', 0)], [del('1', null, null)], [moved('2', '6', 'c', 0)]]);
    await feed.caughtUp();
    expect(await gone()).toEqual(texts([1, 'b', 'd'], [5, 'a', 'd']));
    expect(await there()).toEqual(texts([3, 'a', 'd'], [4, 'a', 'd'], [6, 'c', 'd']));

    // One row that the target refuses has the others written by themselves; what follows it waits.
    await rows(`ALTER TABLE wms.items ADD CONSTRAINT fine CHECK (name <> 'bad')`);
    await feed.frame(
      [items],
      [[ins('7', 'bad', 'd')], [del('3', null, null)], [moved('4', '5', 'm', 'd')], [del('7', null, null)]],
    );
    await feed.caughtUp();
    const saidUs = Date.now() * 1000 + 999;
    expect(await gone()).toEqual(texts([1, 'b', 'd'], [3, 'a', 'd']));
    expect(await there()).toEqual(texts([5, 'm', 'd'], [6, 'c', 'd']));
    await rows(`ALTER TABLE wms.items DROP CONSTRAINT fine`);
    await waitFor('another moment', async () => Date.now() * 1000 > saidUs);
    const desk = await (await targetOf(feed.config.targets['vis']!)).openDesk('test');
    const replayed = await desk.replayQuarantine('mirror', { all: true }, feed.settings);
    await desk.close();
    expect(replayed).toEqual({ applied: 2, failed: [] });
    expect(await gone()).toEqual(texts([1, 'b', 'd'], [3, 'a', 'd'], [7, 'bad', 'd']));
    const micros =
      kind === 'postgres'
        ? `(extract(epoch from ${DELETED_AT}) * 1000000)::bigint`
        : `TIMESTAMPDIFF(MICROSECOND, '1970-01-01', ${DELETED_AT})`;
    const [[at]] = (await rows(`SELECT ${micros} FROM wms.items WHERE id = 7`)) as [[unknown]];
    expect(Number(at), 'the commit of the delete, not of its replay').toBeLessThanOrEqual(saidUs);

    // Of a range what is not seen is marked, and what is marked already stays as it is.
    const mark = (what: string): RowChange => ['s', 0, ['part', what, '["3"]', '["7"]']];
    await feed.frame([items], [[mark('begin_range')], [['r', 0, ['5', 'read', 'd']], mark('end_range')]]);
    await feed.caughtUp();
    expect(await there()).toEqual(texts([5, 'read', 'd']));
    expect(await gone()).toEqual(texts([1, 'b', 'd'], [3, 'a', 'd'], [6, 'c', 'd'], [7, 'bad', 'd']));
  });
});

/** As either kind of client gives them: all values as texts. */
function texts(...rows: readonly (readonly unknown[])[]): string[][] {
  return rows.map((row) => row.map(String));
}

/** A target that is fed by hand, and its rows as texts. */
async function openTarget(
  kind: Dialect,
  flow: Record<string, unknown>,
): Promise<{ feed: FrameFeed; rows: (sql: string) => Promise<string[][]> }> {
  if (kind === 'postgres') {
    const target = servers.closing(await PostgresTarget.open(servers.postgres, servers.nats.url, flow));
    return {
      feed: target.feed,
      rows: async (sql) => ((await target.rows(sql)) as unknown[][] | undefined)?.map((row) => row.map(String)) ?? [],
    };
  }
  const { feed, session } = await openMysqlTarget(servers[kind], servers.nats.url, flow);
  servers.closing({
    close: async () => {
      await feed.close();
      await session.run('DROP DATABASE IF EXISTS wms');
      await session.close();
    },
  });
  return {
    feed,
    rows: async (sql) =>
      sql.startsWith('SELECT') ? (await session.rows(sql)).map((row) => row.map(String)) : (await session.run(sql), []),
  };
}

it('a key that a target takes for another text of the same one is the same row', async () => {
  const p = await begin('mysql', 'mysql', { deletes: 'soft' });
  await p.source.run(`CREATE TABLE ${p.schema}.k (code varchar(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v int);
    INSERT INTO ${p.schema}.k VALUES ('abc', 1)`);
  await p.start();
  await passed(p, 1);
  await waitFor('the row', async () => (await p.target.run(`SELECT v FROM ${p.place}.k`).catch(() => [])).length === 1);
  await p.source.run(`BEGIN; UPDATE ${p.schema}.k SET code = 'ABC'; DELETE FROM ${p.schema}.k;
    INSERT INTO ${p.schema}.k VALUES ('abc', 2); COMMIT`);
  await passed(p, 2);
  expect(await p.target.run(`SELECT code, v, ${DELETED_AT} FROM ${p.place}.k`)).toEqual([['abc', 2, null]]);
});
