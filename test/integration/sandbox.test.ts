import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { Client } from 'pg';
import { afterEach, describe, expect, it } from 'vitest';
import { PortTakenError } from '../../sandbox/errors.ts';
import { startNats, type NatsOptions, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresOptions, type PostgresServer } from '../../sandbox/postgres.ts';
import { childrenOf, isRunning, poll } from '../../sandbox/process.ts';

const timeoutMs = 240_000;
const elsewhere = 'its process and folder are not on this machine';
const opened: { dispose(): Promise<void> }[] = [];

afterEach(async () => {
  for (const server of opened.splice(0)) await server.dispose();
}, timeoutMs);

async function postgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const server = await startPostgres(options);
  opened.push(server);
  return server;
}

async function nats(options: NatsOptions = {}): Promise<NatsServer> {
  const server = await startNats(options);
  opened.push(server);
  return server;
}

/** The first column of all rows of each statement's result, the last statement's. */
async function query(url: string, ...statements: string[]): Promise<unknown[]> {
  const client = new Client(url);
  // What the client was asked rejects when its connection breaks, which is enough.
  client.on('error', () => undefined);
  await client.connect();
  try {
    let rows: unknown[][] = [];
    for (const text of statements) rows = (await client.query({ text, rowMode: 'array' })).rows;
    return rows.map((row) => row[0]);
  } finally {
    await client.end();
  }
}

describe.each([14, 15, 18] as const)('PostgreSQL %i', (version) => {
  it(
    'decodes logically and keeps its data through a kill, a stop and a start',
    async () => {
      const lines: string[] = [];
      const server = await postgres({ version, log: (line) => lines.push(line) });
      expect(lines).toEqual([`PostgreSQL ${server.version} on ${server.host}:${server.port}: ${server.origin}`]);
      expect(server.version.startsWith(`${version}.`)).toBe(true);
      expect(await query(server.url, 'show wal_level')).toEqual(['logical']);

      const url = await server.createDatabase('odd "name"/%');
      expect(url).toBe(server.urlFor('odd "name"/%'));
      await query(url, 'create table kept as select 1 as n');
      const slot = "select slot_name from pg_create_logical_replication_slot('s', 'pgoutput')";
      expect(await query(url, slot)).toEqual(['s']);
      const { port } = server;

      await server.kill();
      await expect(query(url, 'select 1')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
      await server.start();
      expect(await query(url, 'insert into kept values (2)', 'select n from kept order by n')).toEqual([1, 2]);

      for (const mode of ['fast', 'immediate'] as const) {
        await server.stop(mode);
        await expect(query(url, 'select 1')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
        await server.start();
        expect(await query(url, 'select n from kept order by n')).toEqual([1, 2]);
      }
      expect(await query(url, 'select slot_name from pg_replication_slots')).toEqual(['s']);
      expect(server.port).toBe(port);
    },
    timeoutMs,
  );
});

describe('PostgreSQL', () => {
  it(
    'takes settings over its own, which ALTER SYSTEM can change',
    async () => {
      const server = await postgres({ settings: { max_replication_slots: '3', application_name: "it's" } });
      expect(await query(server.url, 'show max_replication_slots')).toEqual(['3']);
      expect(await query(server.url, "select boot_val from pg_settings where name = 'fsync'")).toEqual(['on']);
      expect(await query(server.url, 'show fsync')).toEqual(['off']);
      await query(server.url, 'alter system set max_replication_slots = 4');
      await server.stop();
      await server.start();
      expect(await query(server.url, 'show max_replication_slots')).toEqual(['4']);
    },
    timeoutMs,
  );

  it(
    'kills a backend that is busy with a computation too',
    async ({ skip }) => {
      const server = await postgres();
      if (server.pid === undefined) skip(elsewhere);
      // An interruptible loop, which nevertheless never asks whether the postmaster is alive.
      const busy = query(server.url, 'do $$ begin loop perform 1; end loop; end $$').catch((error: unknown) => error);
      const activity = "select pid from pg_stat_activity where state = 'active' and query like 'do %'";
      const backend = await poll(
        async () => {
          const [pid] = await query(server.url, activity);
          if (typeof pid !== 'number') throw new Error('it is not active yet');
          return pid;
        },
        { what: 'the busy backend', deadlineMs: 60_000 },
      );
      await server.kill();
      expect(await isRunning(backend)).toBe(false);
      expect(await busy).toBeInstanceOf(Error);
      await server.start();
      expect(await query(server.url, 'select 1')).toEqual([1]);
    },
    timeoutMs,
  );

  it(
    'leaves no process and no folder after dispose, and starts no more',
    async ({ skip }) => {
      const server = await postgres();
      const pid = server.pid ?? skip(elsewhere);
      const dataDir = server.dataDir ?? skip(elsewhere);
      const children = await childrenOf(pid);
      expect(children.length).toBeGreaterThan(3);
      expect(existsSync(dataDir)).toBe(true);
      await Promise.all([server.dispose(), server.dispose()]);
      await server.dispose();
      for (const process of [pid, ...children]) expect(await isRunning(process)).toBe(false);
      expect(existsSync(dirname(dataDir))).toBe(false);
      expect(server.pid).toBeUndefined();
      await expect(server.start()).rejects.toThrow('disposed');
    },
    timeoutMs,
  );

  it(
    'says so when its port is taken, and when its settings are wrong',
    async () => {
      const server = await nats();
      await expect(startPostgres({ port: server.port })).rejects.toBeInstanceOf(PortTakenError);
      await expect(startPostgres({ settings: { wal_level: 'sometimes' } })).rejects.toThrow(/wal_level.*sometimes/);
    },
    timeoutMs,
  );

  it(
    'uses the server of the environment, and drops only what it created there',
    async () => {
      const server = await postgres();
      const variable = 'WAYBILL_SANDBOX_TEST_URL';
      process.env[variable] = server.url;
      try {
        const foreign = await postgres({ env: variable });
        expect(foreign).toMatchObject({ url: server.url, port: server.port, origin: variable });
        await server.createDatabase('theirs');
        await query(await foreign.createDatabase('ours'), 'select 1');
        await expect(foreign.stop()).rejects.toThrow(variable);
        await foreign.dispose();
        const databases = 'select datname from pg_database where not datistemplate order by 1';
        expect(await query(server.url, databases)).toEqual(['postgres', 'theirs']);
      } finally {
        delete process.env[variable];
      }
    },
    timeoutMs,
  );
});

async function stored(url: string): Promise<string[]> {
  const connection = await connect({ servers: url });
  try {
    const manager = await jetstreamManager(connection);
    const { state } = await manager.streams.info('KEPT');
    const texts: string[] = [];
    for (let seq = state.first_seq; seq <= state.last_seq; seq++) {
      texts.push((await manager.streams.getMessage('KEPT', { seq }))?.string() ?? '');
    }
    return texts;
  } finally {
    await connection.close();
  }
}

async function publish(url: string, text: string): Promise<void> {
  const connection = await connect({ servers: url });
  try {
    await (await jetstreamManager(connection)).streams.add({ name: 'KEPT', subjects: ['kept.>'] });
    await jetstream(connection).publish('kept.one', text);
  } finally {
    await connection.close();
  }
}

describe('NATS', () => {
  it(
    'keeps its streams through a kill, a stop and a start',
    async () => {
      const server = await nats({ config: { syncInterval: 'always' } });
      const { port } = server;
      await publish(server.url, 'first');
      await server.kill();
      await expect(connect({ servers: server.url, reconnect: false })).rejects.toThrow(/refused/i);
      await server.start();
      expect(await stored(server.url)).toEqual(['first']);
      await publish(server.url, 'second');
      await server.stop();
      await server.start();
      expect(await stored(server.url)).toEqual(['first', 'second']);
      expect(server.port).toBe(port);
    },
    timeoutMs,
  );

  it(
    'takes a payload limit, and leaves JetStream off if told so',
    async () => {
      const server = await nats({ jetstream: false, config: { maxPayload: 4096 } });
      const connection = await connect({ servers: server.url });
      expect(connection.info?.max_payload).toBe(4096);
      expect(connection.info?.jetstream).toBeFalsy();
      await connection.close();
      expect(server.storeDir).toBeUndefined();
    },
    timeoutMs,
  );

  it(
    'leaves no process and no folder after dispose',
    async ({ skip }) => {
      const server = await nats();
      const pid = server.pid ?? skip(elsewhere);
      const storeDir = server.storeDir ?? skip(elsewhere);
      expect(await isRunning(pid)).toBe(true);
      await server.dispose();
      expect(await isRunning(pid)).toBe(false);
      expect(existsSync(dirname(storeDir))).toBe(false);
    },
    timeoutMs,
  );
});

describe('a process that dies by SIGKILL', () => {
  it(
    'takes its servers and their folders with it',
    async ({ skip }) => {
      const module = (name: string): string =>
        JSON.stringify(new URL(`../../sandbox/${name}.ts`, import.meta.url).href);
      const program = `
        const { startPostgres } = await import(${module('postgres')});
        const { startNats } = await import(${module('nats')});
        const [postgres, nats] = await Promise.all([startPostgres(), startNats()]);
        console.log(JSON.stringify({ pids: [postgres.pid, nats.pid], folders: [postgres.dataDir, nats.storeDir] }));
      `;
      // Its servers do not keep a process alive; a timer does.
      const text = `${program}\nsetInterval(() => undefined, 1000);`;
      const owner = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', text], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let line = '';
      for await (line of createInterface(owner.stdout)) break;
      expect(line, 'it names its servers before it ends').not.toBe('');
      const { pids, folders } = JSON.parse(line) as { pids: (number | null)[]; folders: (string | null)[] };
      owner.kill('SIGKILL');
      for (const [i, pid] of pids.entries()) {
        const folder = folders[i] ?? skip(elsewhere);
        const server = pid ?? skip(elsewhere);
        const gone = async (): Promise<void> => {
          if ((await isRunning(server)) || existsSync(dirname(folder)))
            throw new Error(`${server}, ${folder} are there`);
        };
        await poll(gone, { what: 'the end of what the dead process left', deadlineMs: 60_000 });
      }
    },
    timeoutMs,
  );
});
