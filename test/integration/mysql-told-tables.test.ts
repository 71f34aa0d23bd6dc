/** Rows from before an ALTER that are read after it: what the catalog alone tells of a table, and tells no longer. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { Source, type Change } from '../support/mysql-source.ts';

const timeoutMs = 120_000;

describe.each([
  ['mysql', '9.7'],
  ['mariadb', '10.11'],
  ['mariadb', '11.8'],
] as const)('rows of %s %s from before an ALTER', (flavour, version) => {
  let server: MysqlServer;
  let nats: NatsServer;
  let open: Source | undefined;

  beforeAll(async () => {
    [server, nats] = await Promise.all([startMysql({ flavour, version }), startNats()]);
  }, timeoutMs);
  afterEach(async () => {
    await open?.close();
    open = undefined;
  }, timeoutMs);
  afterAll(async () => {
    await Promise.all([server?.dispose(), nats?.dispose()]);
  }, timeoutMs);

  /** The changes of the table that come of `sql`, run while the capture stands still. */
  const lateChanges = async (table: string, first: string, sql: string): Promise<Change[]> => {
    const s = await Source.open(`${table}_${flavour}_${version.replace('.', '_')}`, server, nats);
    open = s;
    await s.run(first);
    s.start();
    await s.loaded(1);
    await s.caughtUp();
    await s.stop();
    const before = (await s.changes()).length;
    await s.run(sql);
    s.start();
    await s.caughtUp();
    await s.stop();
    return (await s.changes()).slice(before).filter((change) => change.table.name === table);
  };
  const rowsOf = (changes: readonly Change[]): unknown[][] =>
    changes
      .filter(({ row }) => ['i', 'u', 'd'].includes(row[0]))
      .map(({ row: [op, , after, , old] }) => [op, after, old]);
  const columnsOf = (changes: readonly Change[]): unknown[] => [
    ...new Set(changes.map(({ table: { columns, key } }) => [...columns.map(({ name }) => name), key].join(','))),
  ];

  it(
    'have no generated column that was dropped',
    async () => {
      const found = await lateChanges(
        'dropped',
        `create table dropped (a int, g int as (a * 2) stored); insert into dropped (a) values (1), (5)`,
        `update dropped set a = 2 where a = 1; delete from dropped where a = 5; alter table dropped drop column g`,
      );
      expect(columnsOf(found)).toEqual(['a,']);
      expect(rowsOf(found)).toEqual([
        ['u', ['2'], ['1']],
        ['d', null, ['5']],
      ]);
    },
    timeoutMs,
  );

  it(
    'have no generated column that has become a plain one',
    async () => {
      const found = await lateChanges(
        'plain',
        `create table plain (id int primary key, a int, g int as (a * 2) stored); insert into plain (id, a) values (1, 1)`,
        `update plain set a = 2 where id = 1; alter table plain modify g int; update plain set g = 7`,
      );
      expect(rowsOf(found)[0]!.slice(0, 2)).toEqual(['u', ['1', '2']]);
      await open!.expectEqual('plain');
    },
    timeoutMs,
  );

  if (flavour === 'mysql') return;
  it(
    'are no rows of a history that was dropped',
    async () => {
      const found = await lateChanges(
        'versioned',
        `create table versioned (id int primary key, a int) with system versioning; insert into versioned values (1, 1)`,
        `update versioned set a = 2 where id = 1; delete from versioned where id = 1; insert into versioned values (2, 2);
         alter table versioned drop system versioning`,
      );
      expect(columnsOf(found)).toEqual(['id,a,id']);
      expect(rowsOf(found).map((row) => row.slice(0, 2))).toEqual([
        ['u', ['1', '2']],
        ['d', null],
        ['i', ['2', '2']],
      ]);
    },
    timeoutMs,
  );

  it(
    'are no numbers of a sequence that was dropped',
    async () => {
      const found = await lateChanges(
        'numbers',
        `create table other (id int primary key)`,
        `create sequence numbers; select nextval(numbers); drop sequence numbers; insert into other values (1)`,
      );
      expect(found).toEqual([]);
      expect((await open!.changes()).some(({ table, row }) => table.name === 'other' && row[0] === 'i')).toBe(true);
    },
    timeoutMs,
  );
});
