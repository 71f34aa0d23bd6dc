/** Statements whose rows are streamed, on connections that break, are closed, or were closed before. */
import { EventEmitter, once } from 'node:events';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectSource, type SqlClient } from '../../capture/mysql/connection.ts';
import type { MysqlSourceConfig } from '../../core/config.ts';
import { CompareSession } from '../../monitoring/drift/mysql/session.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { queryRow } from '../../sandbox/mysql-client.ts';
import { waitFor } from '../support/wait.ts';

const LONG = 'select sleep(100)';
/** More than the sockets between hold. */
const MUCH = `select repeat('x', 60000) from information_schema.columns`;

describe.each(['mysql', 'mariadb'] as const)('on %s', (kind) => {
  let server: MysqlServer;
  beforeAll(async () => {
    server = await startMysql({ flavour: kind });
  }, 240_000);
  afterAll(async () => {
    await server?.dispose();
  });

  const kill = async (id: string | null | undefined): Promise<unknown> => await queryRow(server.url, `kill ${id}`);
  const runs = async (id: string | null | undefined, sql: string): Promise<void> => {
    const text = `select count(*) from information_schema.processlist where id = ${id} and info = '${sql.replaceAll("'", "''")}'`;
    await waitFor('the statement to run', async () => (await queryRow(server.url, text))[0] === '1');
  };

  describe('the reading of a chunk', () => {
    const open = async (): Promise<{ client: SqlClient; id: string }> => {
      const client = await connectSource({ kind, url: server.url } as MysqlSourceConfig);
      return { client, id: (await client.query('select connection_id()', 'test'))[0]![0]! };
    };
    const nothing = (): undefined => undefined;

    it('fails with a connection that breaks, also while the server waits with its rows', async () => {
      for (const [sql, waits] of [
        [LONG, false],
        [MUCH, true],
      ] as const) {
        const { client, id } = await open();
        const killed = new EventEmitter();
        const first = once(killed, 'kill').then(() => undefined);
        const reading = client.each(sql, 'reading', () => (waits ? first : undefined));
        await runs(id, sql);
        const failed = expect(reading).rejects.toMatchObject({ code: 'source_unreachable' });
        await kill(id);
        killed.emit('kill');
        await failed;
        await expect(client.each('select 1', 'reading more', nothing)).rejects.toMatchObject({
          code: 'source_unreachable',
        });
        client.end();
      }
    });

    it('fails for the reason for which its connection is closed', async () => {
      const { client, id } = await open();
      const reading = client.each(LONG, 'reading', nothing);
      await runs(id, LONG);
      const reason = new Error('told to stop');
      client.end(reason);
      await expect(reading).rejects.toBe(reason);
      await expect(client.each('select 1', 'reading more', nothing)).rejects.toBe(reason);
    });
  });

  describe('the reading of a comparison', () => {
    const read = async (session: CompareSession, sql: string): Promise<number> => {
      let rows = 0;
      for await (const _ of session.stream(sql, 'reading')) rows += 1;
      return rows;
    };

    it('fails with a connection that breaks, and where it is closed', async () => {
      for (const end of ['broken', 'closed'] as const) {
        const session = await CompareSession.open('source', { kind, url: server.url }, 'waybill test');
        const id = (await session.query('select connection_id()', 'test'))[0]![0]!;
        const reading = read(session, LONG);
        await runs(id, LONG);
        const failed = expect(reading).rejects.toMatchObject({ code: 'source_unreachable' });
        if (end === 'broken') await kill(id);
        else session.close();
        await failed;
        await expect(read(session, 'select 1')).rejects.toMatchObject({ code: 'source_unreachable' });
        session.close();
      }
    });
  });
});
