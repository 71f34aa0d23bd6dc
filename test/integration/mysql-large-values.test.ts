/** Values of MySQL and MariaDB sources that nearly fill a packet: as base64, or as a literal, they are longer than one. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { openFindings } from '../../monitoring/drift/outcome.ts';
import { CrossPipeline } from '../support/cross-pipeline.ts';
import { waitFor } from '../support/wait.ts';

const PACKET = { max_allowed_packet: '16M' };
const TIMEOUT_MS = 240_000;
/** 13.6 MB. */
const BLOB = "repeat(x'00ff5c27', 3400000)";

let nats: NatsServer;
let postgres: PostgresServer;
let mysql: MysqlServer;
let mariadb: MysqlServer;
let older: MysqlServer;
let pipe: CrossPipeline | undefined;

beforeAll(async () => {
  [nats, postgres, mysql, mariadb, older] = await Promise.all([
    startNats(),
    startPostgres(),
    startMysql({ flavour: 'mysql', settings: PACKET }),
    startMysql({ flavour: 'mariadb', settings: PACKET }),
    startMysql({ flavour: 'mariadb', version: '10.11', settings: PACKET }),
  ]);
}, TIMEOUT_MS);
afterEach(async () => {
  await pipe?.close();
  pipe = undefined;
});
afterAll(async () => {
  await Promise.all([nats, postgres, mysql, mariadb, older].map(async (server) => await server?.dispose()));
});

/** Waits until both sides have the same rows; the table has columns id, note and scan. */
async function equal(table: string): Promise<void> {
  const { source, target, schema, place } = pipe!;
  const sums = async (side: typeof source, where: string): Promise<string> => {
    const sum =
      side.dialect === 'postgres'
        ? "encode(sha256(convert_to(note, 'UTF8')), 'hex'), encode(sha256(scan), 'hex')"
        : 'sha2(note, 256), sha2(scan, 256)';
    const rows = await side.run(`select id, ${sum}, octet_length(scan) from ${where}.${table} order by id`);
    return JSON.stringify(rows.map((row) => row.map(String)));
  };
  let refused: unknown;
  await waitFor(
    `${table} on both sides`,
    async () => {
      if (pipe!.failure !== undefined) return true;
      refused = await target.run('select table_name, reason, message from waybill.quarantine').catch(() => undefined);
      if (Array.isArray(refused) && refused.length > 0) return true;
      const found = await sums(target, place).catch(() => undefined);
      return found === (await sums(source, schema)) || undefined;
    },
    60_000,
  );
  if (pipe!.failure !== undefined) throw pipe!.failure;
  expect(refused).toEqual([]);
}

describe.each([
  ['mysql', 'mariadb'],
  ['mariadb', 'mysql'],
  ['older', 'older'],
  ['mysql', 'postgres'],
] as const)('values that nearly fill a packet, from %s to %s', (from, to) => {
  const server = { mysql: () => mysql, mariadb: () => mariadb, older: () => older, postgres: () => postgres };
  const dialect = (name: typeof from | typeof to) => (name === 'older' ? 'mariadb' : name);

  it(
    'arrive when they are read, inserted and updated, with a key and without',
    async () => {
      pipe = await CrossPipeline.open({
        from: { dialect: dialect(from), server: server[from]() },
        to: { dialect: dialect(to), server: server[to]() },
        nats,
      });
      const { source } = pipe;
      await source.run(`create table docs (id int primary key, note longtext, scan longblob);
        create table loose (id int, note longtext, scan longblob)`);
      await source.run(`insert into docs values (1, 'a', ${BLOB})`);
      await source.run(`insert into docs values (2, 'b', 'x'), (3, 'c', 'y')`);
      await source.run(`insert into loose values (1, 'a', ${BLOB})`);
      await pipe.start();
      await equal('docs');
      await equal('loose');
      await source.run(`update docs set scan = ${BLOB}, note = 'changed' where id = 2`);
      await source.run(`insert into docs values (4, repeat('it''s ünïcödé 🚚', 700000), 'z')`);
      await source.run(`update docs set id = 5 where id = 1`);
      await equal('docs');
      // Many rows of one transaction go another way.
      const many = Array.from({ length: 150 }, (_, n) => `(${n + 10}, 'n', 'z')`).join();
      await source.run(
        `begin; insert into docs values ${many}; update docs set scan = ${BLOB}, note = repeat('\\t', 15000000) where id = 77; commit`,
      );
      await equal('docs');
      await source.run(
        `begin; update docs set note = 'o' where id > 8; update docs set scan = ${BLOB} where id = 79; commit`,
      );
      await equal('docs');
      await source.run(`update loose set note = 'changed' where id = 1`);
      await equal('loose');
      await source.run(`delete from loose; delete from docs where id = 2`);
      await equal('docs');
      await equal('loose');
    },
    TIMEOUT_MS,
  );
});

describe.each([
  ['mysql', 'postgres'],
  ['mariadb', 'mariadb'],
] as const)('values whose text is longer than a packet of the source, from %s to %s', (from, to) => {
  it(
    'arrive, and are compared byte by byte',
    async () => {
      const small = await startMysql({ flavour: from, settings: { max_allowed_packet: '1M' } });
      try {
        const server = { mariadb, postgres }[to];
        pipe = await CrossPipeline.open({ from: { dialect: from, server: small }, to: { dialect: to, server }, nats });
        await pipe.source.run('create table docs (id int primary key, note longtext, scan longblob)');
        await pipe.source.run("insert into docs values (1, 'a', repeat(x'00ff5c27', 250000)), (2, 'b', 'x')");
        await pipe.start();
        await equal('docs');
        await pipe.source.run("update docs set scan = repeat(x'00ff5c28', 250000) where id = 2");
        await equal('docs');
        const findings = async (): Promise<unknown[]> =>
          (await pipe!.verify()).tables.flatMap((table) => openFindings(table));
        expect(await findings()).toEqual([]);
        const other = to === 'postgres' ? "decode(repeat('00ff5c29', 250000), 'hex')" : "repeat(x'00ff5c29', 250000)";
        await pipe.target.run(`update ${pipe.place}.docs set scan = ${other} where id = 2`);
        expect(await findings()).toHaveLength(1);
        await pipe.close();
        pipe = undefined;
      } finally {
        await small.dispose();
      }
    },
    TIMEOUT_MS,
  );
});
