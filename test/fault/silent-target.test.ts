/** A target whose host is frozen, or gone without a word: no connection to it ends. */
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createMysqlStore } from '../../apply/mysql/store.ts';
import { createPostgresStore } from '../../apply/postgres/store.ts';
import type { TargetConfig } from '../../core/config.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { FrameFeed, ins, tableOf } from '../support/frame-feed.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';
import { waitFor } from '../support/wait.ts';

let nats: NatsServer;
let postgres: PostgresServer;
let mysql: MysqlServer;

beforeAll(async () => {
  [nats, postgres, mysql] = await Promise.all([
    startNats(),
    startPostgres(),
    startMysql({ flavour: 'mysql', version: '9.7' }),
  ]);
}, 120_000);
afterAll(async () => {
  await Promise.all([nats?.dispose(), postgres?.dispose(), mysql?.dispose()]);
});

/** Values of the first column that a query gives, without the network in between. */
type Ask = (sql: string) => Promise<unknown[]>;

it('a target of either kind is left when it no longer answers, and written again when it is back', async () => {
  // Both at once: it takes half a minute.
  const kinds = ['postgres', 'mysql'] as const;
  const comeBack = kinds.map(async (kind) => {
    const server = kind === 'postgres' ? postgres : mysql;
    const url = await server.createDatabase(`silent_${kind}`);
    const network = await TcpProxy.start({ host: server.host, port: server.port });
    const through = new URL(url);
    through.hostname = '127.0.0.1';
    through.port = String(network.port);
    const [ask, end] = await direct(kind, url);
    const feed = await FrameFeed.open({
      natsUrl: nats.url,
      target: { kind, url: through.href } as TargetConfig,
      flow: { schema: `silent_${kind}` },
      createStore: kind === 'postgres' ? createPostgresStore : createMysqlStore,
      readPosition: async () => String((await ask('select position from waybill.position'))[0]),
    });
    try {
      const states: string[] = [];
      feed.start({ state: (state, detail) => void states.push(`${state} ${detail ?? ''}`) });
      const table = tableOf('items', ['id integer']);
      await feed.frame([table], [[ins('1')]]);
      await feed.caughtUp();
      network.freeze();
      await feed.frame([table], [[ins('2')]]);
      await waitFor('the silence to be noticed', async () =>
        states.some((state) => state.startsWith('waiting target_unreachable')),
      );
      network.thaw();
      await feed.caughtUp();
      const rows = await ask(`select id from silent_${kind}.items order by id`);
      expect(rows.map(Number)).toEqual([1, 2]);
    } finally {
      network.thaw();
      await feed.close();
      await end();
      await network.close();
    }
  });
  await Promise.all(comeBack);
});

async function direct(kind: 'postgres' | 'mysql', url: string): Promise<[Ask, () => Promise<void>]> {
  if (kind === 'postgres') {
    const client = new pg.Client(url);
    await client.connect();
    const ask: Ask = async (text) => (await client.query({ text, rowMode: 'array' })).rows.map(([one]) => one);
    return [ask, () => client.end()];
  }
  const connection = await createConnection({ uri: url });
  const ask: Ask = async (sql) =>
    (await connection.query<RowDataPacket[][]>({ sql, rowsAsArray: true }))[0].map((row) => row[0] as unknown);
  return [ask, () => connection.end()];
}
