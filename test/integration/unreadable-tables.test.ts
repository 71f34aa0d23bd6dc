/** A table that the user of a source may not read waits for the right to, by itself; all others go on. */
import pg from 'pg';
import { afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { checkPostgresSource } from '../../capture/postgres/preflight.ts';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import type { PostgresServer } from '../../sandbox/postgres.ts';
import { CaptureTests } from '../support/capture-tests.ts';
import { Source, timeoutMs } from '../support/postgres-source.ts';

const tests = CaptureTests.forThisFile();
let server: PostgresServer;
let owner: pg.Client;
let s: Source;
let made = 0;

beforeAll(async () => {
  server = await tests.server({});
  const admin = new pg.Client(server.url);
  await admin.connect();
  await admin.query('create role reader login replication');
  await admin.end();
}, timeoutMs);

beforeEach(async () => {
  const name = `unreadable${(made += 1)}`;
  const url = new URL(await server.createDatabase(name));
  owner = new pg.Client(url.href);
  await owner.connect();
  await owner.query(`create table t (id int primary key, v text); insert into t select i, 'v' from generate_series(1, 50) i;
    create table u (id int primary key); insert into u select generate_series(1, 50);
    grant select on t, u to reader;
    create publication waybill_${name} for all tables with (publish_via_partition_root = true)`);
  s = await Source.open(name, Object.assign(url, { username: 'reader' }).href, tests.nats);
  await tests.adopt(s);
  s.start();
  await s.loaded(2);
}, timeoutMs);

afterEach(async () => {
  await owner.end();
});

async function goesOn(): Promise<void> {
  await owner.query('insert into t select max(id) + 1 from t');
  await s.caughtUp();
}

async function says(part: RegExp): Promise<void> {
  await s.wait('it to be said', async () => s.states.some((state) => part.test(state)));
}

async function isWhole(table: string): Promise<void> {
  await s.wait('the table', async () => {
    await s.caughtUp();
    return JSON.stringify(await s.folded('public', table)) === JSON.stringify(await s.table('public', table));
  });
}

it('one that is made later', async () => {
  await owner.query('create table late (id int primary key, v text)');
  await s.wait('the report', async () => s.leftOut.length > 0);
  expect(s.leftOut).toEqual([
    {
      schema: 'public',
      name: 'late',
      reason: expect.stringMatching(/may not read it.*GRANT SELECT ON late TO reader;/),
    },
  ]);
  await goesOn();
  await owner.query('insert into late values (1, $$a$$), (2, $$b$$)');
  await says(/late waits: this user may not read it; run, as its owner: GRANT SELECT ON late TO reader;/);
  await owner.query('alter table late alter v set not null');
  await goesOn();
  await s.stop();
  s.start('again');
  await goesOn();
  const findings = await checkPostgresSource(s.name, s.settings, 'waybill');
  expect(findings.filter(({ severity }) => severity === 'error')).toMatchObject([
    { subject: expect.stringMatching(/: late$/), remedy: 'GRANT SELECT ON late TO reader; -- as its owner' },
  ]);
  await owner.query('grant select on late to reader');
  await isWhole('late');
  await s.wait('nothing to be left out', async () => s.leftOut.length === 0);
  await s.stop();
});

it('one in a schema that this user may not use', async () => {
  await owner.query(`create schema hidden; alter table u set schema hidden; alter table hidden.u set schema public;
    revoke usage on schema public from public`);
  await requestSnapshot(s.config, s.name, { tables: ['public.t'] });
  await says(/t waits: .*GRANT USAGE ON SCHEMA public TO reader;/);
  await owner.query('insert into u values (100)');
  await owner.query('grant usage on schema public to public');
  await isWhole('u');
  await isWhole('t');
  await s.stop();
});

it.each([
  ['the right to is taken back', 'revoke select on t from reader', 'grant select on t to reader', /GRANT SELECT ON/],
  [
    'policies come to hide rows',
    'alter table t enable row level security',
    'alter table t disable row level security',
    /ALTER ROLE reader BYPASSRLS;/,
  ],
])('one of which %s', async (_, take, give, remedy) => {
  await owner.query(take);
  await requestSnapshot(s.config, s.name, {});
  await says(remedy);
  await goesOn();
  const readings = async (): Promise<number> =>
    (await s.frames()).flatMap(({ payload }) => payload.rows).filter((row) => row[0] === 's' && row[2]?.[1] === 'end')
      .length;
  await s.wait('the other one to be read', async () => (await readings()) === 3);
  await owner.query(give);
  await s.wait('it to be read', async () => (await readings()) === 4);
  await isWhole('t');
  await s.stop();
});
