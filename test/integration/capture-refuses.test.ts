import { NO_CAPTURE_REPORT } from '../../core/metrics.ts';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runPostgresCapture } from '../../capture/postgres/capture.ts';
import { checkPostgresSource } from '../../capture/postgres/preflight.ts';
import { quoteIdent } from '../../capture/postgres/publication.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { waitFor } from '../support/wait.ts';
import { configFor, DEADLINE_MS, log, Source, timeoutMs } from '../support/postgres-source.ts';

const disposables: { dispose(): Promise<void> }[] = [];
afterAll(async () => {
  await Promise.all(disposables.splice(0).map((server) => server.dispose()));
}, timeoutMs);

let nats: NatsServer;
beforeAll(async () => {
  nats = await startNats();
  disposables.push(nats);
}, timeoutMs);

describe('capture refuses', () => {
  let server: PostgresServer;
  let made = 0;

  beforeAll(async () => {
    server = await startPostgres({ settings: { max_replication_slots: '2' } });
    disposables.push(server);
  }, timeoutMs);

  const database = async (on: PostgresServer, ...statements: string[]): Promise<string> => {
    const url = await on.createDatabase(`refused_${++made}`);
    const client = new pg.Client(url);
    await client.connect();
    for (const sql of statements) await client.query(sql);
    await client.end();
    return url;
  };
  const refused = async (url: string, code: string, part: RegExp, natsUrl = nats.url): Promise<void> => {
    const name = `refused${made}`;
    const { settings, config } = configFor(name, url, natsUrl);
    const signal = AbortSignal.timeout(DEADLINE_MS);
    const states: string[] = [];
    const report = {
      ...NO_CAPTURE_REPORT,
      state: (state: string, detail = '') => void states.push(`${state} ${detail}`),
    };
    const running = runPostgresCapture({ name, settings, nats: config, holder: 'test', log, signal, report });
    await expect(running, states.join('\n')).rejects.toMatchObject({
      code,
      message: expect.stringMatching(part) as string,
    });
    expect(states.at(-1)).toContain(`blocked ${code}`);
  };
  const TABLE = 'create table t (id int primary key)';

  it('a table without identity, with the SQL that mends it', async () => {
    const url = await database(
      server,
      TABLE,
      'create table "No Key" (a int)',
      'create table n (a int primary key)',
      'alter table n replica identity nothing',
    );
    await refused(url, 'source_table_identity', /public\.No Key.*ALTER TABLE "public"\."No Key" REPLICA IDENTITY FULL/);
  });

  it('a table whose key is deferrable, which once published could not be updated any more', async () => {
    const url = await database(
      server,
      'create table d (id int primary key deferrable, v int)',
      'insert into d values (1, 1)',
    );
    await refused(url, 'source_table_identity', /public\.d has no primary key \(a deferrable one does not count\)/);
    const client = new pg.Client(url);
    await client.connect();
    expect((await client.query('update d set v = 2')).rowCount).toBe(1);
    await client.end();
  });

  // PostgreSQL 18 and later: an identity with a generated column has updates refused once the table is published.
  it('a table whose identity has a generated column, which once published could not be updated any more', async () => {
    const url = await database(
      server,
      'create table g (id int primary key, v int, twice int generated always as (v * 2) stored)',
      'alter table g replica identity full',
      'create table k (v int, twice int generated always as (v * 2) stored primary key)',
      'create table plain (id int primary key, v int, twice int generated always as (v * 2) stored)',
      'create table p (id int primary key, v int, twice int generated always as (v * 2)) partition by range (id)',
      'create table p1 partition of p for values from (0) to (10)',
      'alter table p1 replica identity full',
      'insert into g values (1, 1); insert into k values (1); insert into p values (1, 1)',
    );
    await refused(
      url,
      'source_table_identity',
      /public\.g .*twice.*ALTER TABLE "public"\."g" REPLICA IDENTITY DEFAULT;.*"k" REPLICA IDENTITY USING INDEX .*"p1" REPLICA IDENTITY DEFAULT;/,
    );
    const s = await Source.open(`refused${made}`, url, nats);
    try {
      for (const table of ['g', 'k', 'p']) await s.query(`update ${table} set v = 2`);
      const findings = await checkPostgresSource(s.name, s.settings, 'waybill');
      expect(findings.filter(({ severity }) => severity === 'error').map(({ subject }) => subject)).toEqual(
        ['g', 'k', 'p1'].map((name) => `source ${s.name}: public.${name}`),
      );
    } finally {
      await s.close();
    }
  });

  it('a partition whose own identity tells less than its table needs, with the SQL that mends each', async () => {
    const url = await database(
      server,
      'create table p (id int, day int, v text) partition by list (day)',
      'create table p1 partition of p for values in (1)',
      'create table "P 2" partition of p for values in (2)',
      'alter table p replica identity full',
      'create table u (id int primary key, day int not null, v text)',
      'create table i (id int not null, day int not null, code int not null, primary key (id, day)) partition by list (day)',
      'create table i1 partition of i for values in (1)',
      'create unique index i_code on i (code, day)',
      'alter table i replica identity using index i_code',
      "insert into p values (1, 1, 'a'), (2, 2, 'b'), (3, 2, 'c')",
      'insert into i values (1, 1, 7)',
    );
    await refused(
      url,
      'source_table_identity',
      /public\.P 2, public\.p1 .*ALTER TABLE "public"\."P 2" REPLICA IDENTITY FULL; ALTER TABLE "public"\."p1" .*"i1" REPLICA/,
    );
    const s = await Source.open(`refused${made}`, url, nats);
    try {
      const findings = await checkPostgresSource(s.name, s.settings, 'waybill');
      expect(
        findings
          .filter(({ severity }) => severity === 'error')
          .map(({ subject }) => subject)
          .toSorted(),
      ).toEqual(['public.P 2', 'public.i1', 'public.p1'].map((name) => `source ${s.name}: ${name}`));
      for (const { remedy } of findings.filter(({ severity }) => severity === 'error')) await s.query(remedy!);
      s.start();
      await s.loaded(3);
      await s.query("update p set v = 'x' where id < 3");
      await s.query('delete from p where id = 3');
      await s.query('update i set code = 8');
      await s.caughtUp();
      expect(await s.folded('public', 'p')).toEqual(await s.table('public', 'p'));
      expect(await s.folded('public', 'i')).toEqual(await s.table('public', 'i'));
      // One that comes later with an identity of its own, in a table that is not published yet.
      await s.query('create table q (id int, day int) partition by list (day)');
      await s.query('create table q1 partition of q for values in (1)');
      await s.query('insert into q values (1, 1)');
      await s.query('alter table q replica identity full');
      await s.stop();
      s.start();
      await s.caughtUp();
      await s.query('update q set id = 2');
      await s.stop();
      // This server has few.
      await waitFor('the slot to go', async () => {
        await s.query(
          'select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1 and not active',
          [s.slot],
        );
        return (await s.query('select 1 from pg_replication_slots')).length === 0;
      });
    } finally {
      await s.close();
    }
  });

  it('a source without tables', async () => {
    await refused(await database(server), 'source_table_missing', /public\.\*/);
  });

  it('a server without logical log', async () => {
    const physical = await startPostgres({ settings: { wal_level: 'replica' } });
    disposables.push(physical);
    await refused(await database(physical, TABLE), 'source_not_logical', /wal_level of the source is replica/);
  });

  it('a wrong password, an unknown user and an unknown database', async ({ skip }) => {
    const file = join(server.dataDir ?? skip('the server is elsewhere'), 'pg_hba.conf');
    const rules = await readFile(file, 'utf8');
    await writeFile(file, `host all guarded 127.0.0.1/32 scram-sha-256\n${rules}`);
    const url = new URL(
      await database(server, TABLE, `create role guarded superuser login password 'right'`, 'select pg_reload_conf()'),
    );
    const as = (user: string, password = ''): string => Object.assign(new URL(url), { username: user, password }).href;
    await waitFor('the new rules', async () => {
      const client = new pg.Client(as('guarded', 'wrong'));
      client.on('error', () => {});
      return client.connect().then(
        () => client.end().then(() => false),
        () => true,
      );
    });
    await refused(as('guarded', 'wrong'), 'source_auth', /password authentication failed.*28P01/);
    await refused(as('nobody'), 'source_auth', /28000/);
    await refused(server.urlFor('not_there'), 'source_auth', /3D000/);
    await writeFile(file, rules);
  });

  it('a user that may not publish, and one that may not replicate', async () => {
    const url = new URL(await database(server, TABLE, 'create role reader login', 'grant select on t to reader'));
    url.username = 'reader';
    await refused(url.href, 'source_publication', /CREATE PUBLICATION .* FOR TABLE "public"\."t"/);
    const admin = new pg.Client(Object.assign(new URL(url), { username: 'postgres' }).href);
    await admin.connect();
    await admin.query(
      `create publication ${quoteIdent(`waybill_refused${made}`)} for table t with (publish_via_partition_root)`,
    );
    await admin.end();
    await refused(url.href, 'source_privilege', /42501/);
  });

  it('a publication of some rows or columns of a table', async ({ skip }) => {
    if (Number.parseInt(server.version, 10) < 15) skip('it can publish whole tables only');
    const publication = quoteIdent(`waybill_refused${made + 1}`);
    const url = await database(
      server,
      TABLE,
      'create table u (id int primary key, v int)',
      `create publication ${publication} for table t where (id < 3), u (id) with (publish_via_partition_root)`,
    );
    await refused(
      url,
      'source_publication',
      /some rows or columns of "public"\."t", "public"\."u".*run: ALTER PUBLICATION/,
    );
  });

  it('a user from whom policies hide rows that the log has', async () => {
    const url = new URL(
      await database(
        server,
        TABLE,
        'insert into t select generate_series(1, 9)',
        'alter table t enable row level security',
        'create policy few on t using (id < 3)',
        'create role hidden login replication',
        'grant select on t to hidden',
        `create publication ${quoteIdent(`waybill_refused${made + 1}`)} for table t with (publish_via_partition_root)`,
      ),
    );
    url.username = 'hidden';
    await refused(url.href, 'source_privilege', /policies of row-level security hide rows/);
    const { settings } = configFor('hidden', url.href, nats.url);
    const findings = await checkPostgresSource(`refused${made}`, settings, 'waybill');
    expect(findings.filter(({ severity }) => severity === 'error')).toMatchObject([
      { subject: expect.stringContaining(': t') as string, remedy: 'ALTER ROLE hidden BYPASSRLS; -- as a superuser' },
    ]);
    const admin = new pg.Client(server.url);
    await admin.connect();
    // The server keeps no log for what does not begin.
    expect((await admin.query('select from pg_replication_slots')).rowCount).toBe(0);
    await admin.end();
  });

  it('a slot that sends prepared transactions, with the SQL for another one', async ({ skip }) => {
    if (Number.parseInt(server.version, 10) < 14) skip('it has none');
    const slot = `waybill_refused${made + 1}`;
    const url = await database(
      server,
      TABLE,
      `select pg_create_logical_replication_slot('${slot}', 'pgoutput', false, true)`,
    );
    await refused(url, 'config_invalid', /was made with two_phase.*run: SELECT pg_drop_replication_slot/);
    const { settings } = configFor(`refused${made}`, url, nats.url);
    const findings = await checkPostgresSource(`refused${made}`, settings, 'waybill');
    expect(findings.filter(({ severity }) => severity === 'error')).toMatchObject([
      { subject: expect.stringMatching(/: slot$/) as string, message: expect.stringContaining('two_phase') as string },
    ]);
    const client = new pg.Client(url);
    await client.connect();
    await client.query('select pg_drop_replication_slot($1)', [slot]);
    await client.end();
  });

  it('a server whose slots are all taken', async () => {
    const url = await database(
      server,
      TABLE,
      `select pg_create_physical_replication_slot('a'), pg_create_physical_replication_slot('b')`,
    );
    await refused(url, 'source_no_free_slot', /53400/);
    const client = new pg.Client(server.url);
    await client.connect();
    await client.query(`select pg_drop_replication_slot('a'), pg_drop_replication_slot('b')`);
    await client.end();
  });

  it('a slot of another plugin', async () => {
    const url = await database(server, TABLE);
    const client = new pg.Client(url);
    await client.connect();
    const slot = `waybill_refused${made}`;
    await client.query(`select pg_create_logical_replication_slot('${slot}', 'pgoutput')`);
    await client.end();
    // The slot belongs to another database than the one that is captured under the same name.
    const other = new pg.Client(server.url);
    await other.connect();
    await other.query(TABLE);
    await other.end();
    await refused(server.url, 'config_invalid', new RegExp(`${slot} belongs to plugin pgoutput in database refused_`));
    const again = new pg.Client(url);
    await again.connect();
    await again.query(`select pg_drop_replication_slot('${slot}')`);
    await again.end();
  });

  it('NATS without JetStream, and with messages that are too small', async () => {
    const url = await database(server, TABLE);
    const plain = await startNats({ jetstream: false });
    disposables.push(plain);
    await refused(url, 'nats_no_jetstream', /./, plain.url);
    const small = await startNats({ config: { maxPayload: 16 * 1024 } });
    disposables.push(small);
    await refused(url, 'nats_payload_too_small', /16384 bytes/, small.url);
  });
});
