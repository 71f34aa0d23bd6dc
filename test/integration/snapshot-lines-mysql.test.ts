/** What is read of a table of MySQL or MariaDB passes as lines into tables of their kind: whatever characters values have. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isProven } from '../../monitoring/drift/outcome.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CrossPipeline } from '../support/cross-pipeline.ts';

let natsServer: NatsServer;
let servers: { mysql: MysqlServer; mariadb: MysqlServer; postgres: PostgresServer };

beforeAll(async () => {
  const [nats, mysql, mariadb, postgres] = await Promise.all([
    startNats(),
    startMysql({ flavour: 'mysql' }),
    startMysql({ flavour: 'mariadb' }),
    startPostgres(),
  ]);
  natsServer = nats;
  servers = { mysql, mariadb, postgres };
});
afterAll(async () => {
  await Promise.all([natsServer?.dispose(), ...Object.values(servers ?? {}).map((server) => server.dispose())]);
});

const NUMBERS = `with recursive n as (select 1 as id union all select id + 1 from n where id < 700) select id from n`;
/** Vertical tab and form feed, which LOAD DATA has no escape for. */
const RARE = '11, 12';

describe.each([
  ['mysql', 'mysql'],
  ['mariadb', 'mysql'],
  ['mariadb', 'mariadb'],
  ['mysql', 'postgres'],
] as const)('from %s into %s', (from, to) => {
  it('every character, byte and NULL arrives', async () => {
    const pipe = await CrossPipeline.open({
      from: { dialect: from, server: servers[from] },
      to: { dialect: to, server: servers[to] },
      nats: natsServer,
    });
    try {
      // Postgres has no NUL in text.
      const least = to === 'postgres' ? 1 : 0;
      const character = `char(greatest(${least}, id mod 32) using utf8mb4)`;
      for (const [table, condition] of [
        ['plain', `id mod 32 not in (${RARE})`],
        ['rare', 'true'],
      ] as const)
        await pipe.source.run(
          `create table ${table} (id int primary key, a text, b varbinary(20), c bit(10), d decimal(8,2), e datetime(3),
             f varchar(20) not null) character set utf8mb4;
           insert into ${table} select id, concat(${character}, 'x', ${character}, '\\\\N', if(id mod 7 = 0, '\\\\', 'é🚚')),
             unhex(lpad(hex(id), 8, '0')), id, if(id mod 5 = 0, null, id / 4), if(id mod 3 = 0, null, '2026-05-05 01:02:03.250'),
             if(id mod 11 = 0, '', if(id mod 13 = 0, '\\\\N', 'f')) from (${NUMBERS}) s where ${condition}`,
        );
      await pipe.start();
      await pipe.settled(['plain', 'rare']);
      const outcome = await pipe.verify();
      expect(outcome.tables.map(({ name, progress }) => [name, progress.findings])).toEqual([
        ['plain', []],
        ['rare', []],
      ]);
      expect(isProven(outcome)).toBe(true);
    } finally {
      await pipe.close();
    }
  });
});
