/** What is wrong with a Postgres source, on the real command line: each with its code and its remedy, and nothing lost. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LogicalReplicationService, PgoutputPlugin } from 'pg-logical-replication';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CommandLine } from '../support/command-line.ts';
import { waitFor } from '../support/wait.ts';

let server: PostgresServer;
let nats: NatsServer;
let cli: CommandLine;

beforeAll(async () => {
  [server, nats, cli] = await Promise.all([
    startPostgres({
      settings: { max_replication_slots: '4', max_slot_wal_keep_size: '2MB', min_wal_size: '2MB', max_wal_size: '4MB' },
    }),
    startNats(),
    CommandLine.open(),
  ]);
});
afterAll(async () => {
  await Promise.all([server?.dispose(), nats?.dispose(), cli?.close()]);
});

async function execute(url: string, ...statements: string[]): Promise<void> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

async function database(...statements: string[]): Promise<string> {
  const url = await server.createDatabase(`bad${cli.next()}`);
  await execute(url, ...statements);
  return url;
}

interface Source {
  readonly url: string;
  readonly config: string;
  readonly slot: string;
}

function sourceAt(url: string, prefix = `p${cli.next()}`): Source {
  const config = `version: 1
nats: { servers: ["${nats.url}"], prefix: ${prefix}, stream: { sync_interval: 0s, max_bytes: 64MB } }
sources: { wms: { kind: postgres, url: "${url}", heartbeat: 1s } }
`;
  return { url, config, slot: `${prefix}_wms` };
}

/** A source whose table has been read once: it has a slot, and a stream that ends somewhere. */
async function captured(): Promise<Source> {
  const source = sourceAt(await database('create table a (id int primary key)', 'insert into a values (1)'));
  const args = ['run', '--listen', '127.0.0.1:0'];
  const { status, output } = await cli.waybill(source.config, args, (log) => log.includes('table read'));
  expect(status, output).toBe(0);
  return source;
}

const dropSlot = ({ url, slot }: Source): Promise<void> => execute(url, `select pg_drop_replication_slot('${slot}')`);

describe('who connects', () => {
  it('a wrong password, which is not repeated', async () => {
    await execute(server.url, `create role keeper login replication password 'right'`);
    const hba = join(server.dataDir!, 'pg_hba.conf');
    const before = await readFile(hba, 'utf8');
    await writeFile(hba, `host all keeper 127.0.0.1/32 scram-sha-256\n${before}`);
    await execute(server.url, 'select pg_reload_conf()');
    const url = new URL(await database('create table a (id int primary key)'));
    url.username = 'keeper';
    url.password = 'wrong-hunter2';
    const { config } = sourceAt(url.href);
    expect(await cli.check(config, 'source_auth')).not.toContain('hunter2');
    const { status, output } = await cli.run(config, 'source_auth');
    expect(status, output).toBe(1);
    expect(output).not.toContain('hunter2');
  });

  it('a user who may not read a table', async () => {
    const url = await database('create table a (id int primary key)', 'insert into a values (1)');
    const role = `reader${cli.next()}`;
    const source = sourceAt(Object.assign(new URL(url), { username: role }).href);
    await execute(
      url,
      `create role ${role} login replication`,
      `create publication ${source.slot} for table a with (publish_via_partition_root = true)`,
    );
    const { output } = await cli.run(source.config, 'source_privilege');
    expect(output).toMatch(/this user may not read it; run, as its owner: GRANT SELECT ON a TO reader\d+;/);
    const checked = await cli.waybill(source.config, ['check']);
    expect(checked.status).toBe(1);
    expect(checked.output).toContain('GRANT SELECT ON a TO');
  });
});

describe('what is connected to', () => {
  it('a database whose characters have no encoding', async () => {
    const name = `ascii${cli.next()}`;
    await execute(server.url, `create database ${name} encoding 'SQL_ASCII' template template0 locale 'C'`);
    const { config } = sourceAt(server.urlFor(name));
    await cli.check(config, 'source_encoding');
    await cli.run(config, 'source_encoding');
  });

  it('another database than the stream was captured from', async () => {
    const first = await captured();
    const other = sourceAt(await database('create table a (id int primary key)'), first.slot.replace(/_wms$/, ''));
    const { status, output } = await cli.run(other.config, 'source_identity_mismatch');
    expect(status, output).toBe(1);
    await dropSlot(first);
  });

  it('a statement that fails for another reason is tried again, and goes on when that is mended', async () => {
    const url = await database('create table a (id int primary key)', 'insert into a values (1)');
    const source = sourceAt(url);
    await execute(url, `create publication ${source.slot} for table a with (publish_via_partition_root = true)`);
    const locker = new Client({ connectionString: url });
    await locker.connect();
    await locker.query('begin; lock table a in access exclusive mode');
    let mending: Promise<unknown> | undefined;
    const running = cli.waybill(source.config, ['run', '--listen', '127.0.0.1:0'], (log) => {
      if (log.includes('"code":"source_query"')) mending ??= locker.query('rollback');
      return log.includes('table read');
    });
    const watcher = new Client({ connectionString: url });
    await watcher.connect();
    await waitFor('a statement to be cancelled', async () => {
      const { rowCount } = await watcher.query(
        `select pg_cancel_backend(pid) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      );
      return rowCount !== 0;
    });
    const { status, output } = await running;
    await mending;
    await locker.end();
    await watcher.end();
    expect(status, output).toBe(0);
    expect(output).toContain('57014');
    await dropSlot(source);
  });
});

describe('the slot', () => {
  it('is read by somebody else: it is waited for', async () => {
    const source = sourceAt(await database('create table a (id int primary key)'));
    await execute(source.url, `select pg_create_logical_replication_slot('${source.slot}', 'pgoutput')`);
    const other = new LogicalReplicationService(
      { connectionString: source.url },
      { acknowledge: { auto: false, timeoutSeconds: 0 } },
    );
    await execute(
      source.url,
      `create publication ${source.slot} for all tables with (publish_via_partition_root = true)`,
    );
    void other
      .subscribe(new PgoutputPlugin({ protoVersion: 1, publicationNames: [source.slot] }), source.slot)
      .catch(() => undefined);
    try {
      await waitFor('the slot to be in use', async () => {
        const client = new Client({ connectionString: source.url });
        await client.connect();
        const { rowCount } = await client.query('select from pg_replication_slots where active and slot_name = $1', [
          source.slot,
        ]);
        await client.end();
        return rowCount === 1;
      });
      const { status, output } = await cli.run(source.config, 'source_slot_in_use');
      expect(status, output).toBe(0);
    } finally {
      await other.stop();
    }
    await waitFor('the slot to be free', () => dropSlot(source).then(() => true));
  });

  it('is gone: until the tables are read again', async () => {
    const source = await captured();
    await dropSlot(source);
    await execute(source.url, 'insert into a values (2)');
    await cli.run(source.config, 'source_slot_missing');
    expect((await cli.waybill(source.config, ['snapshot', 'wms', '--reset'])).status).toBe(0);
    const again = await cli.waybill(source.config, ['run', '--listen', '127.0.0.1:0'], (log) =>
      log.includes('"rows":2'),
    );
    expect(again.status, again.output).toBe(0);
    await dropSlot(source);
  });

  it('is ahead of the stream: somebody confirmed what was not stored', async () => {
    const source = await captured();
    await execute(
      source.url,
      'insert into a values (2)',
      `select pg_replication_slot_advance('${source.slot}', pg_current_wal_lsn())`,
    );
    await cli.run(source.config, 'source_slot_ahead');
    await dropSlot(source);
  });

  it('has lost its log, because the source may not keep so much', async () => {
    const source = await captured();
    await waitFor('the slot to be lost', async () => {
      await execute(
        source.url,
        `select pg_logical_emit_message(false, 'fill', repeat('x', 4000000))`,
        'select pg_switch_wal()',
        'checkpoint',
      );
      const client = new Client({ connectionString: source.url });
      await client.connect();
      const { rows } = await client.query<{ lost: boolean }>(
        `select wal_status = 'lost' as lost from pg_replication_slots where slot_name = $1`,
        [source.slot],
      );
      await client.end();
      return rows[0]?.lost;
    });
    await cli.run(source.config, 'source_slot_lost');
    const checked = await cli.waybill(source.config, ['check']);
    expect(checked.status).toBe(1);
    expect(checked.output).toContain('is lost');
    const { output } = await cli.waybill(source.config, ['status']);
    expect(output).toMatch(/^wms +slot_lost/m);
    await dropSlot(source);
  });
});
