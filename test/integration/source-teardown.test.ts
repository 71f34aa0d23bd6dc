/** A source is taken down while nobody captures it or reads its stream, and then nothing of it is left. */
import { jetstreamManager } from '@nats-io/jetstream';
import { createConnection, type Connection } from 'mysql2/promise';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import { parseConfig } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { connectNats } from '../../core/nats.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CommandLine, type Outcome } from '../support/command-line.ts';
import { Stage } from '../support/stage.ts';
import { waitFor } from '../support/wait.ts';

let nats: NatsServer;
let postgres: PostgresServer;
let mariadb: MysqlServer;
let commands: CommandLine;
let store: pg.Client;
let erp: Connection;
let yaml: string;
let configFile: string;
const stages: Stage[] = [];

beforeAll(async () => {
  [nats, postgres, mariadb, commands] = await Promise.all([
    startNats(),
    startPostgres(),
    startMysql({ flavour: 'mariadb' }),
    CommandLine.open(),
  ]);
  const [erpUrl, visUrl] = [await mariadb.createDatabase('erp'), await postgres.createDatabase('vis')];
  [erp, store] = [await createConnection({ uri: erpUrl }), new pg.Client({ connectionString: visUrl })];
  await store.connect();
  await erp.query('CREATE TABLE items (id int PRIMARY KEY)');
  await erp.query('INSERT INTO items VALUES (1)');
  yaml = `version: 1
nats: { servers: ["${nats.url}"], stream: { sync_interval: 0s } }
sources: { erp: { kind: mariadb, url: "${erpUrl}", tables: ["erp.*"] } }
targets: { vis: { kind: postgres, url: "${visUrl}" } }
flows: { copy: { mirror: erp, to: vis } }
`;
  configFile = await commands.writeConfig(yaml);
}, 240_000);

afterAll(async () => {
  for (const stage of stages) await stage.end('SIGKILL');
  erp?.destroy();
  await Promise.all([store?.end(), commands?.close()]);
  await Promise.all([nats?.dispose(), postgres?.dispose(), mariadb?.dispose()]);
});

function start(only: string): Stage {
  const stage = new Stage({ configFile, only, logFile: `${commands.folder}/${stages.length}.log`, leaseTtlMs: 1500 });
  stages.push(stage);
  stage.start();
  return stage;
}

async function inNats(): Promise<{ streams: string[]; keys: string[] }> {
  const { nats: settings } = parseConfig(yaml, {});
  const connection = await connectNats(settings, 'test');
  try {
    const manager = await jetstreamManager(connection.connection);
    const streams: string[] = [];
    for await (const { config } of manager.streams.list())
      if (config.name === cdcStreamName(settings.prefix, 'erp')) streams.push(config.name);
    const keys: string[] = [];
    for await (const key of await (await openBucket(connection, settings)).keys()) keys.push(key);
    return { streams, keys: keys.filter((key) => key.includes('erp')) };
  } finally {
    await connection.close();
  }
}

const teardown = async (): Promise<Outcome> => await commands.waybill(yaml, ['teardown', 'erp', '--yes']);

it('is refused while a stage runs that writes its stream or reads it', async () => {
  const [capture, apply] = [start('capture:erp'), start('apply:copy')];
  await waitFor('the row', async () => (await store.query('select from erp.items')).rowCount === 1);
  const both = await teardown();
  expect(both.status, both.output).toBe(2);
  expect(both.output).toMatch(
    /capture:erp \(by .+\) and apply:copy \(by .+\) run: stop capture:erp and apply:copy first; nothing was removed/,
  );
  expect(await apply.end('SIGTERM')).toBe(0);
  const one = await teardown();
  expect(one.status, one.output).toBe(2);
  expect(one.output).toMatch(/capture:erp \(by .+\) runs: stop capture:erp first; nothing was removed/);
  expect((await inNats()).streams).toHaveLength(1);
  // Neither was disturbed.
  await erp.query('INSERT INTO items VALUES (2)');
  const again = start('apply:copy');
  await waitFor('the next row', async () => (await store.query('select from erp.items')).rowCount === 2);
  expect([await capture.end('SIGTERM'), await again.end('SIGTERM')]).toEqual([0, 0]);
});

it('is done once they are stopped, or have been killed', async () => {
  const killed = start('capture:erp');
  await waitFor('it to lead', async () => (await killed.status()).state === 'streaming');
  await killed.end('SIGKILL');
  const done = await teardown();
  expect(done.status, done.output).toBe(0);
  expect(done.output).toContain('removed stream waybill_cdc_erp');
  expect(await inNats()).toEqual({ streams: [], keys: [] });
});
