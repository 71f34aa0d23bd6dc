/** MySQL and MariaDB targets: their audit logs, and the console's drift and inbox in them. */
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { audit, checkAuditLog, lastConfigurationHash, openAuditLog } from '../../cli/audit.ts';
import { createConsoleStage, type ConsoleStage } from '../../cli/console/console-data.ts';
import { createLogger } from '../../core/logger.ts';
import { Metrics } from '../../monitoring/metrics.ts';
import { Observatory, observer } from '../../monitoring/observation.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { CrossPipeline } from '../support/cross-pipeline.ts';
import { waitFor } from '../support/wait.ts';

let servers: Record<'mysql' | 'mariadb', MysqlServer>;
let nats: NatsServer;
let pipeline: CrossPipeline | undefined;
let stage: ConsoleStage | undefined;
let stop: AbortController | undefined;
let running: Promise<void> | undefined;

beforeAll(async () => {
  const [mysql, mariadb, broker] = await Promise.all([
    startMysql({ flavour: 'mysql' }),
    startMysql({ flavour: 'mariadb' }),
    startNats(),
  ]);
  servers = { mysql, mariadb };
  nats = broker;
}, 180_000);

afterEach(async () => {
  stop?.abort();
  await running;
  // One server holds one log, whatever the database of a test.
  await pipeline?.target.run('drop table if exists waybill.audit');
  await pipeline?.close();
  pipeline = undefined;
});

afterAll(async () => {
  await Promise.all([servers?.mysql.dispose(), servers?.mariadb.dispose(), nats?.dispose()]);
});

async function opened(from: 'mysql' | 'mariadb', to: 'mysql' | 'mariadb'): Promise<CrossPipeline> {
  pipeline = await CrossPipeline.open({
    from: { dialect: from, server: servers[from] },
    to: { dialect: to, server: servers[to] },
    nats,
  });
  return pipeline;
}

const event = (n: number) =>
  ({ action: 'repair', subject: `flow ${n}`, detail: { text: `é 漢 \u{1F4E6} \\ ' " ${n} `, n } }) as const;

describe.each(['mysql', 'mariadb'] as const)('the audit log in %s', (kind) => {
  it('keeps entries of many writers in one chain', async () => {
    const { config } = await opened('mysql', kind);
    await Promise.all(Array.from({ length: 8 }, (_, n) => audit(config, ['two'], event(n))));
    expect(await checkAuditLog(config, 'two')).toMatchObject({ entries: 8, problems: [] });
    const log = await openAuditLog(config, 'two');
    try {
      expect((await log.read(0, 100)).map((entry) => entry.id)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
      expect((await log.latest(undefined, 3)).map((entry) => entry.id)).toEqual([8, 7, 6]);
      expect((await log.latest(6, 100)).map((entry) => entry.id)).toEqual([5, 4, 3, 2, 1]);
      const details = (await log.read(0, 100)).map((entry) => JSON.parse(entry.detail) as { n: number; text: string });
      expect(details.map(({ n }) => n).sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
      expect(details[0]!.text).toBe(event(details[0]!.n).detail.text);
    } finally {
      await log.close();
    }
    await audit(config, ['two'], { action: 'configuration', subject: 'process 1', detail: { after: 'abc' } });
    await audit(config, ['two'], event(9));
    expect(await lastConfigurationHash(config, 'two')).toBe('abc');
  });

  it.each([
    ['a changed entry', `update waybill.audit set actor = 'nobody@nowhere' where id = 2`, ['entry 2 was changed']],
    [
      'a case that was changed',
      `update waybill.audit set subject = upper(subject) where id = 3`,
      ['entry 3 was changed'],
    ],
    ['a removed entry', 'delete from waybill.audit where id = 2', ['entry 2 is gone']],
    [
      'entries cut off the end',
      'delete from waybill.audit where id > 2',
      ['the log ends at entry 2, but entry 4 was written: its end was cut off'],
    ],
  ])('shows %s', async (_, sql, problems) => {
    const { config, target } = await opened('mysql', kind);
    for (let n = 0; n < 4; n++) await audit(config, ['two'], event(n));
    await target.run(sql);
    expect((await checkAuditLog(config, 'two')).problems).toEqual(problems);
  });
});

it('the console shows and works on a MySQL source and a MariaDB target', async () => {
  const { config, source, target, place, schema, flow } = await opened('mysql', 'mariadb');
  const columns = 'id int primary key, qty int not null, api_key varchar(40), seen datetime(3)';
  await source.run(`create table ${schema}.stock (${columns})`);
  await source.run(
    `insert into ${schema}.stock values (1, 10, 'do-not-show', '2026-11-20 08:00:00.123'), (2, 20, null, null), (3, 30, null, null)`,
  );
  await pipeline!.start();
  await waitFor('the table', async () => (await target.run(`select count(*) from ${place}.stock`))[0]![0] === 3);
  await target.run(`update ${place}.stock set qty = 11, api_key = 'do-not-show either' where id = 1`);
  await pipeline!.verify();

  const id = randomUUID();
  const log = createLogger('silent');
  const observatory = new Observatory(observer(id, new Metrics(), () => ['console']));
  stage = createConsoleStage(config, { observatory, alertPace: 1, log });
  stop = new AbortController();
  running = stage.run(stop.signal);
  const { data } = stage;

  const overview = await data.overview();
  expect(overview.flows[0]).toMatchObject({ state: 'silent', drift: 1, quarantined: 0, targetKind: 'mariadb' });
  expect(overview.flows[0]!.position).toMatch(/[0-9a-f-]{36}:/);
  expect(overview.streams[0]).toMatchObject({ state: 'here' });
  const { findings, tables } = await data.drift(flow, 0, 10);
  expect(tables).toEqual([{ table: `${schema}.stock`, kind: 'different', rows: 1 }]);
  const pair = (await data.rowPair(flow, findings[0]!.id))!;
  expect(pair.columns).toEqual([
    { name: 'id', key: true, source: '1', target: '1', differs: false },
    { name: 'qty', key: false, source: '10', target: '11', differs: true },
    { name: 'api_key', key: false, source: { hidden: true }, target: { hidden: true }, differs: true },
    {
      name: 'seen',
      key: false,
      source: '2026-11-20 08:00:00.123',
      target: '2026-11-20 08:00:00.123',
      differs: false,
    },
  ]);

  await target.run(`alter table ${place}.stock add constraint plausible check (qty < 1000)`);
  await source.run(`insert into ${schema}.stock values (4, 4000, 'do-not-show', null), (5, 5000, null, null)`);
  const page = await waitFor('refused rows', async () => {
    const found = await data.quarantine(flow, { offset: 0, limit: 10 });
    return found.total === 2 ? found : undefined;
  });
  expect(page.reasons).toEqual([{ reason: 'constraint', count: 2 }]);
  expect((await data.quarantine(flow, { offset: 1, limit: 10 })).items.map((item) => item.key)).toEqual(['["5"]']);
  expect((await data.quarantine(flow, { offset: 0, limit: 10, reason: 'held' })).total).toBe(0);
  const detail = (await data.quarantined(flow, page.items[0]!.id))!;
  expect(detail.columns.map((column) => column.after)).toEqual(['4', '4000', { hidden: true }, null]);

  const who = { name: 'Ada (console, test)' };
  await expect(data.edit(who, flow, detail.id, { api_key: 'x' }, false)).rejects.toThrow('not shown here');
  expect((await data.edit(who, flow, detail.id, { qty: '400' }, true)).done).toBe('saved; 1 applied');
  expect(await target.run(`select qty, api_key from ${place}.stock where id = 4`)).toEqual([[400, 'do-not-show']]);
  expect((await data.discard(who, flow, [page.items[1]!.id])).done).toBe('1 discarded');
  const { lines } = await data.audit('two', undefined, 10);
  expect(lines.map(({ action, actor }) => [action, actor])).toEqual([
    ['quarantine-discard', who.name],
    ['quarantine-replay', who.name],
    ['quarantine-edit', who.name],
  ]);
  expect(lines[2]!.detail).toMatchObject({ before: { qty: '4000' }, after: { qty: '400' } });
  expect((await data.checkAudit('two')).problems).toEqual([]);
});
