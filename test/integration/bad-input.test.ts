/** What a user gets wrong, on the real command line: each a clear error with its code, its remedy and its exit status. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { jetstream } from '@nats-io/jetstream';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { policyFor, type ErrorCode } from '../../core/errors.ts';
import { connectNats } from '../../core/nats.ts';
import { parseConfig } from '../../core/config.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { waitFor } from '../support/wait.ts';

const PROGRAM = resolve(import.meta.dirname, '../../dist/cli/main.js');
let server: PostgresServer;
let nats: NatsServer;
let folder: string;
let count = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'waybill-bad-'));
  [server, nats] = await Promise.all([startPostgres({ settings: { max_replication_slots: '2' } }), startNats()]);
});

afterAll(async () => {
  await Promise.all([server?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

interface Outcome {
  readonly status: number | null;
  readonly output: string;
}

async function waybill(config: string, args: string[], until?: (output: string) => boolean): Promise<Outcome> {
  const file = join(folder, `${++count}.yaml`);
  await writeFile(file, config);
  const child = spawn(PROGRAM, [...args, '--config', file], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const read = (data: Buffer): void => {
    output += data.toString();
    if (until?.(output) === true) child.kill('SIGTERM');
  };
  child.stdout.on('data', read);
  child.stderr.on('data', read);
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, output };
}

/** Runs the stages until the error of this code is in the log. */
function run(config: string, code: ErrorCode): Promise<Outcome> {
  return waybill(config, ['run', '--listen', '127.0.0.1:0'], (output) => output.includes(`"code":"${code}"`));
}

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
  const url = await server.createDatabase(`bad${++count}`);
  await execute(url, ...statements);
  return url;
}

const configFor = (source: string, extra = '', natsUrl = nats.url): string => `version: 1
nats: { servers: ["${natsUrl}"], prefix: p${++count}, stream: { sync_interval: 0s, max_bytes: 64MB } }
sources: { wms: { kind: postgres, url: "${source}" } }
${extra}`;

describe('configuration', () => {
  it('names every problem with its path, and the nearest known key', async () => {
    const { status, output } = await waybill(
      'version: 1\nsorces: {}\nflows: { a: { mirror: wms, to: x, delets: apply } }\n',
      ['check'],
    );
    expect(status).toBe(2);
    expect(output).toContain('sorces: unknown key (did you mean "sources"?)');
    expect(output).toContain('flows.a.delets: unknown key (did you mean "deletes"?)');
  });

  it('says which variable is not set, and which file is not there', async () => {
    const unset = await waybill('version: 1\nsources: { wms: { kind: postgres, url: "${NO_SUCH_URL}" } }\n', ['check']);
    expect(unset.status).toBe(2);
    expect(unset.output).toContain('environment variable NO_SUCH_URL is not set');
    const missing = await waybill('version: 1\nsources: { wms: { kind: postgres, url_file: /no/such/file } }\n', [
      'check',
    ]);
    expect(missing.output).toContain('sources.wms.url_file: cannot read /no/such/file');
  });

  it('knows stages, sources and commands by name only', async () => {
    const config = configFor('postgresql://127.0.0.1:1/x');
    const stage = await waybill(config, ['run', '--only', 'capture:wsm']);
    expect(stage.status).toBe(2);
    expect(stage.output).toContain('did you mean "capture:wms"?');
    expect((await waybill(config, ['snapshot', 'erp'])).status).toBe(2);
    expect((await waybill(config, ['frobnicate'])).status).toBe(2);
  });
});

describe('source', () => {
  const check = async (config: string, code: ErrorCode): Promise<string> => {
    const { status, output } = await waybill(config, ['check']);
    expect(status).toBe(1);
    expect(output).toContain(code);
    expect(output).toContain(policyFor(code).remedy.slice(0, 30));
    return output;
  };

  it('wrong host or port', async () => {
    await check(configFor('postgresql://postgres@127.0.0.1:1/x'), 'source_unreachable');
  });

  it('wrong user or database, and never the password', async () => {
    const url = new URL(server.url);
    url.username = 'nobody_here';
    url.password = 'hunter2';
    const output = await check(configFor(url.toString()), 'source_auth');
    expect(output).not.toContain('hunter2');
    url.username = 'postgres';
    url.pathname = '/no_such_database';
    await check(configFor(url.toString()), 'source_auth');
  });

  it('a table without identity, with the SQL that mends it', async () => {
    const url = await database('create table plain (a int)');
    const outcome = await run(configFor(url), 'source_table_identity');
    expect(outcome.output).toContain(String.raw`ALTER TABLE \"public\".\"plain\" REPLICA IDENTITY FULL;`);
    const checked = await waybill(configFor(url), ['check']);
    expect(checked.status).toBe(1);
    expect(checked.output).toContain('REPLICA IDENTITY FULL');
  });

  it('no table that matches', async () => {
    expect((await run(configFor(await database()), 'source_table_missing')).output).toContain('public.*');
  });

  it('a publication that misses a table and may not be changed', async () => {
    const url = await database(
      'create table a (id int primary key)',
      'create table b (id int primary key)',
      `do $$ begin create role plain_${count} login replication; end $$`,
      `grant select on a, b to plain_${count}`,
    );
    const role = (await roleNames(url)).at(-1)!;
    const asRole = new URL(url);
    asRole.username = role;
    const config = configFor(asRole.toString());
    const prefix = /prefix: (\w+)/.exec(config)![1]!;
    await execute(url, `create publication ${prefix}_wms for table a with (publish_via_partition_root = true)`);
    const { output } = await run(config, 'source_publication');
    expect(output).toContain(String.raw`ADD TABLE \"public\".\"b\"`);
  });

  it('no free slot', async () => {
    const url = await database(
      'create table a (id int primary key)',
      "select pg_create_logical_replication_slot('taken1', 'pgoutput')",
      "select pg_create_logical_replication_slot('taken2', 'pgoutput')",
    );
    try {
      expect((await run(configFor(url), 'source_no_free_slot')).output).toContain('max_replication_slots');
      expect((await waybill(configFor(url), ['check'])).output).toContain('max_replication_slots');
    } finally {
      await execute(url, "select pg_drop_replication_slot('taken1')", "select pg_drop_replication_slot('taken2')");
    }
  });

  it('wal_level that is not logical', async () => {
    const replica = await startPostgres({ settings: { wal_level: 'replica' } });
    try {
      await check(configFor(replica.url), 'source_not_logical');
    } finally {
      await replica.dispose();
    }
  });
});

async function roleNames(url: string): Promise<string[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query<{ rolname: string }>(
    "select rolname from pg_roles where rolname like 'plain_%' order by oid",
  );
  await client.end();
  return rows.map((row) => row.rolname);
}

describe('NATS', () => {
  it('is not there', async () => {
    const { status, output } = await waybill(configFor(server.url, '', 'nats://127.0.0.1:1'), ['snapshot', 'wms']);
    expect(status).toBe(3);
    expect(output).toContain('nats_unreachable');
  });

  it('has no JetStream', async () => {
    const plain = await startNats({ jetstream: false });
    try {
      const { status, output } = await waybill(configFor(server.url, '', plain.url), ['snapshot', 'wms']);
      expect(status).toBe(3);
      expect(output).toContain('nats_no_jetstream');
      expect(output).toContain('nats-server -js');
    } finally {
      await plain.dispose();
    }
  });

  it('has a max_payload that is too small', async () => {
    const small = await startNats({ config: { maxPayload: 16_384 } });
    try {
      const url = await database('create table a (id int primary key)');
      expect((await run(configFor(url, '', small.url), 'nats_payload_too_small')).output).toContain('max_payload');
    } finally {
      await small.dispose();
    }
  });

  it('holds an unreadable frame: the flow halts before it and nothing is skipped', async () => {
    const url = await database('create table a (id int primary key)', 'insert into a values (1)');
    const target = await database();
    const text = configFor(
      url,
      `targets: { v: { kind: postgres, url: "${target}" } }\nflows: { f: { mirror: wms, to: v, schema: copy } }`,
    );
    const config = parseConfig(text, {});
    const arrived = async (): Promise<boolean> => {
      const client = new Client({ connectionString: target });
      await client.connect();
      try {
        return (await client.query('select 1 from copy.a where id = 1')).rowCount === 1;
      } finally {
        await client.end();
      }
    };
    const file = join(folder, `${++count}.yaml`);
    await writeFile(file, text);
    const child = spawn(PROGRAM, ['run', '--listen', '127.0.0.1:0', '--config', file], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let log = '';
    child.stderr.on('data', (data: Buffer) => (log += data.toString()));
    await waitFor('the first row', arrived);
    const connection = await connectNats(config.nats, 'test');
    await jetstream(connection.connection).publish(`${config.nats.prefix}.cdc.wms`, 'not a frame');
    await connection.close();
    await waitFor('the flow to halt', async () => log.includes('"code":"frame_unreadable"'));
    const gone = once(child, 'exit');
    child.kill('SIGTERM');
    await gone;
    expect(log).toContain('it has no Waybill-Format header');
  });
});
