/** Binary values of MySQL and MariaDB sources whose base64 is longer than a packet of theirs may be. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rereadRows } from '../../capture/reread.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { Source } from '../support/mysql-source.ts';

const PACKET_BYTES = 1 << 20;

describe.each(['mysql', 'mariadb'] as const)('large binary values of %s', (flavour) => {
  let small: MysqlServer;
  let nats: NatsServer;

  beforeAll(async () => {
    [small, nats] = await Promise.all([
      startMysql({ flavour, settings: { max_allowed_packet: String(PACKET_BYTES) } }),
      startNats(),
    ]);
  });
  afterAll(async () => {
    await Promise.all([small?.dispose(), nats?.dispose()]);
  });

  it('are read whole, and again by their keys', async () => {
    const s = await Source.open(`blobs_${flavour}`, small, nats);
    try {
      await s.run(`create table docs (id int primary key, scan longblob, place geometry, k varbinary(9))`);
      await s.run(
        `insert into docs values (1, repeat(x'00ff5c', 300000), point(1, 2), x'5c'), (2, x'', null, x'0a00')`,
      );
      await s.run(`insert into docs values (3, null, null, x'5c5c09'), (4, repeat('a', 1000000), null, null)`);
      s.start();
      await s.loaded(1);
      const scan = async (key: string): Promise<unknown> => (await s.folded('docs')).get(JSON.stringify([key]))![1];
      const first = Buffer.from('00ff5c'.repeat(300_000), 'hex').toString('base64');
      expect(await scan('1')).toBe(first);
      expect(await scan('2')).toBe('');
      expect(await scan('3')).toBeNull();
      expect(await scan('4')).toBe(Buffer.from('a'.repeat(1_000_000)).toString('base64'));
      await rereadRows({
        nats: s.nats,
        config: s.config,
        source: s.name,
        schema: s.database,
        table: 'docs',
        keys: [['1']],
        signal: AbortSignal.timeout(60_000),
      });
      const again = (await s.changes()).filter(({ row }) => row[0] === 'r' && row[2]![0] === '1');
      expect(again.map(({ row }) => row[2]![1] === first)).toEqual([true, true]);
      await s.expectEqual('docs');
      await s.stop();
    } finally {
      await s.close();
    }
  });
});
