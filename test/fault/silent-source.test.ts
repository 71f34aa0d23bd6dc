/** A source whose host is frozen, or gone without a word: no connection to it ends. */
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { Source } from '../support/postgres-source.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';

let nats: NatsServer;
let postgres: PostgresServer;
let direct: pg.Client;
let network: TcpProxy;
let source: Source;

beforeAll(async () => {
  [nats, postgres] = await Promise.all([startNats(), startPostgres()]);
  const url = await postgres.createDatabase('silent');
  direct = new pg.Client(url);
  await direct.connect();
  await direct.query('create table t (id int primary key)');
  network = await TcpProxy.start({ host: postgres.host, port: postgres.port });
  const through = new URL(url);
  through.hostname = '127.0.0.1';
  through.port = String(network.port);
  source = await Source.open('silent', through.href, nats, { heartbeat: '1s' });
  source.client.on('error', () => {});
});
afterAll(async () => {
  network?.thaw();
  await source?.close();
  await network?.close();
  await direct?.end();
  await Promise.all([nats?.dispose(), postgres?.dispose()]);
});

const isStreaming = (): boolean => source.states.at(-1) === 'streaming';
const captures = async (id: number): Promise<void> => {
  await direct.query('insert into t values ($1)', [id]);
  await source.wait(`row ${id}`, async () => (await source.changes()).some(({ row }) => row[2]?.[0] === String(id)));
};

it('is left when it no longer answers, and followed again when it is back', async () => {
  source.start();
  await captures(1);
  network.freeze();
  await source.wait('the silence to be noticed', async () =>
    source.states.some((state) => /source_unreachable/.test(state)),
  );
  network.thaw();
  await captures(2);
  expect((await source.changes()).map(({ row }) => row[2]?.[0])).toEqual(['1', '2']);
});

it('does not keep a capture that is told to leave', async () => {
  await source.wait('the stream', async () => isStreaming());
  network.freeze();
  await source.stop();
  network.thaw();
});
