/** What is wrong with NATS and its streams, on the real command line: each with its code and its remedy, and nothing lost. */
import { jetstream } from '@nats-io/jetstream';
import { headers } from '@nats-io/transport-node';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runMirrorFlow } from '../../apply/mirror-flow.ts';
import { createPostgresStore } from '../../apply/postgres/store.ts';
import { runPostgresCapture } from '../../capture/postgres/capture.ts';
import { parseConfig, type Config, type PostgresSourceConfig } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { createLogger } from '../../core/logger.ts';
import { connectNats, KeptNats, type Nats } from '../../core/nats.ts';
import { Metrics } from '../../monitoring/metrics.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { suspend } from '../../sandbox/process.ts';
import { CommandLine } from '../support/command-line.ts';
import { waitFor } from '../support/wait.ts';

let server: PostgresServer;
let nats: NatsServer;
let cli: CommandLine;

beforeAll(async () => {
  [server, nats, cli] = await Promise.all([
    startPostgres({ settings: { max_replication_slots: '30' } }),
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

async function countOf(url: string, table: string): Promise<number> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<{ n: number }>(`select count(*)::int as n from ${table}`)).rows[0]!.n;
  } finally {
    await client.end();
  }
}

interface Path {
  readonly source: string;
  readonly target: string;
  readonly text: string;
  readonly config: Config;
  readonly stream: string;
}

/** A source with one row, a flow and a target. */
async function path(natsText = `servers: ["${nats.url}"]`): Promise<Path> {
  const prefix = `p${cli.next()}`;
  const source = await server.createDatabase(`${prefix}_source`);
  const target = await server.createDatabase(`${prefix}_target`);
  await execute(source, 'create table a (id int primary key)', 'insert into a values (1)');
  const text = `version: 1
nats: { ${natsText}, prefix: ${prefix}, stream: { sync_interval: 0s, max_bytes: 64MB } }
sources: { wms: { kind: postgres, url: "${source}", heartbeat: 1s } }
targets: { v: { kind: postgres, url: "${target}" } }
flows: { f: { mirror: wms, to: v, schema: copy } }
`;
  return { source, target, text, config: parseConfig(text, {}), stream: `${prefix}_cdc_wms` };
}

async function withNats<T>({ config }: Path, work: (nats: Nats) => Promise<T>): Promise<T> {
  const connection = await connectNats(config.nats, 'test');
  try {
    return await work(connection);
  } finally {
    await connection.close();
  }
}

const runCapture = (text: string): Promise<unknown> =>
  cli.waybill(text, ['run', '--listen', '127.0.0.1:0', '--only', 'capture:wms'], (log) => log.includes('table read'));

describe('the broker', () => {
  it('is connected to anew where the client has closed the connection for good', async () => {
    const kept = new KeptNats((await path()).config.nats, 'test');
    try {
      const first = await kept.get();
      expect(await kept.get()).toBe(first);
      await first.connection.close();
      const second = await kept.get();
      expect(second).not.toBe(first);
      await second.connection.flush();
    } finally {
      await kept.close();
    }
  });

  it('refuses the password', async () => {
    const guarded = await startNats({
      config: {
        lines: [
          'accounts: { A: { jetstream: enabled, users: [{ user: anyone, password: x }, { user: keeper, password: right }] } }',
          'no_auth_user: anyone',
        ],
      },
    });
    try {
      const { text } = await path(`servers: ["${guarded.url}"], user: keeper, password: wrong-hunter2`);
      const snapshot = await cli.waybill(text, ['snapshot', 'wms']);
      expect(snapshot.status).toBe(3);
      expect(snapshot.output).toContain('nats_auth');
      const { output } = await cli.run(text, 'nats_auth', 'capture:wms');
      expect(snapshot.output + output).not.toContain('hunter2');
      expect((await cli.waybill(text, ['check'])).output).toContain('nats: nats_auth');
      const right = await path(`servers: ["${guarded.url}"], user: keeper, password: right`);
      expect((await cli.waybill(right.text, ['check'])).output).toContain('nats: JetStream answers');
    } finally {
      await guarded.dispose();
    }
  });

  it('has no room for the stream: it is waited for', async () => {
    const small = await startNats({ config: { maxFileStore: 16 << 20 } });
    try {
      const { text } = await path(`servers: ["${small.url}"]`);
      const { status, output } = await cli.run(text, 'nats_storage', 'capture:wms');
      expect(status, 'it goes on trying until it is told to leave').toBe(0);
      expect(output).toContain('cannot create stream');
    } finally {
      await small.dispose();
    }
  });

  it('hangs: no stage says that it is idle, which it cannot know', async () => {
    const hanging = await startNats();
    const { config } = await path(`servers: ["${hanging.url}"]`);
    const stop = new AbortController();
    const metrics = new Metrics();
    const shared = {
      nats: config.nats,
      holder: 'test',
      leaseTtlMs: 1500,
      log: createLogger('silent'),
      signal: stop.signal,
    };
    const stages = Promise.all([
      runPostgresCapture({
        name: 'wms',
        // Nothing is written and nothing to be published while the broker hangs.
        settings: { ...(config.sources['wms'] as PostgresSourceConfig), heartbeat: 600_000 },
        ...shared,
        report: metrics.captureReport('wms'),
      }),
      runMirrorFlow({
        name: 'f',
        settings: config.flows['f']!,
        store: createPostgresStore(config.targets['v']!),
        ...shared,
        report: metrics.flowReport('f', 'v', `${config.nats.prefix}_cdc_wms`),
      }),
    ]);
    const lags = async (): Promise<(number | undefined)[]> => {
      const samples = await metrics.samples();
      return ['waybill_capture_lag_seconds', 'waybill_apply_lag_seconds'].map(
        (name) => samples.find((sample) => sample.name === name)?.value,
      );
    };
    const states = (): string[] => metrics.stages.map((stage) => stage.facts().state);
    const idle = async (): Promise<boolean> => (await lags()).every((lag) => lag === 0);
    try {
      await waitFor('both to be idle', idle);
      await suspend(hanging.pid!);
      await waitFor('neither to be idle', async () => (await lags()).every((lag) => lag !== 0));
      let claims = 0;
      await waitFor('both to have noticed', async () => {
        if ((await lags()).includes(0)) claims += 1;
        return String(states()) === 'starting,waiting';
      });
      expect(claims).toBe(0);
      process.kill(hanging.pid!, 'SIGCONT');
      await waitFor('both to be idle again', idle);
    } finally {
      process.kill(hanging.pid!, 'SIGCONT');
      stop.abort();
      await stages;
      await hanging.dispose();
    }
  });

  it('is there and does not answer', async () => {
    const hanging = await startNats();
    try {
      const { text } = await path(`servers: ["${hanging.url}"]`);
      await suspend(hanging.pid!);
      try {
        const { status, output } = await cli.waybill(text, ['snapshot', 'wms']);
        expect(status).toBe(3);
        expect(output).toContain('nats_timeout');
      } finally {
        process.kill(hanging.pid!, 'SIGCONT');
      }
    } finally {
      await hanging.dispose();
    }
  });
});

describe('the stream', () => {
  it('is not there yet: the flow waits for its capture, and tail says so', async () => {
    const { text } = await path();
    const { status, output } = await cli.run(text, 'stream_missing', 'apply:f');
    expect(status, output).toBe(0);
    const tail = await cli.waybill(text, ['tail', 'wms']);
    expect(tail.status).toBe(1);
    expect(tail.output).toMatch(/^error stream_missing: .*\nremedy: The stream is made by the capture/);
  });

  it('belongs to somebody else', async () => {
    const it = await path();
    await withNats(it, ({ manager }) => manager.streams.add({ name: it.stream, subjects: [`other.${it.stream}`] }));
    const { status, output } = await cli.run(it.text, 'stream_foreign', 'capture:wms');
    expect(status, output).toBe(1);
  });

  it('has lost frames that a flow needs: it halts until all is read again, and then has all', async () => {
    const it = await path();
    await runCapture(it.text);
    await withNats(it, async ({ manager }) => {
      const { state } = await manager.streams.info(it.stream);
      await manager.streams.purge(it.stream, { seq: state.last_seq });
    });
    await cli.run(it.text, 'stream_gap', 'apply:f');
    expect((await cli.waybill(it.text, ['snapshot', 'wms', '--reset'])).status).toBe(0);
    const again = cli.waybill(it.text, ['run', '--listen', '127.0.0.1:0']);
    await execute(it.source, 'insert into a values (2)');
    await waitFor('both rows', async () => (await countOf(it.target, 'copy.a')) === 2);
    cli.drain();
    expect((await again).status).toBe(0);
  });

  it('was emptied while nobody ran: all is read again on request, and then the flow has all', async () => {
    const it = await path();
    const first = cli.waybill(it.text, ['run', '--listen', '127.0.0.1:0']);
    await waitFor('the row', async () => (await countOf(it.target, 'copy.a').catch(() => 0)) === 1);
    cli.drain();
    await first;
    await withNats(it, ({ manager }) => manager.streams.purge(it.stream));
    await execute(it.source, 'delete from a', 'insert into a values (2)');
    // The flow had taken all of it, and misses nothing so far.
    const flow = await cli.waybill(it.text, ['run', '--listen', '127.0.0.1:0', '--only', 'apply:f'], (log) =>
      /flow started|stream_gap/.test(log),
    );
    expect(flow.output).not.toContain('stream_gap');
    await cli.run(it.text, 'stream_gap', 'capture:wms');
    expect((await cli.waybill(it.text, ['snapshot', 'wms', '--reset'])).status).toBe(0);
    const again = cli.waybill(it.text, ['run', '--listen', '127.0.0.1:0']);
    await execute(it.source, 'insert into a values (3)');
    await waitFor('both rows', async () => (await countOf(it.target, 'copy.a where id > 1')) === 2);
    await waitFor('the old row to go', async () => (await countOf(it.target, 'copy.a')) === 2);
    cli.drain();
    expect((await again).status).toBe(0);
  });

  it('ends before the place where the target stands: it is waited for', async () => {
    const it = await path();
    await cli.waybill(
      it.text,
      ['run', '--listen', '127.0.0.1:0'],
      (log) => log.includes('table read') && log.includes('flow started'),
    );
    await execute(
      it.target,
      `update waybill.position set position = 'pg1/00000000FFFFFFFF/000000000000', stream_seq = 1000000`,
    );
    const { status, output } = await cli.run(it.text, 'stream_behind', 'apply:f');
    expect(status, output).toBe(0);
  });

  it('holds what is no frame: with the remedy that is printed both sides are equal again, in every flow', async () => {
    const it = await path();
    const text = it.text.replace('schema: copy } }', 'schema: copy }, g: { mirror: wms, to: v, schema: other } }');
    const first = cli.waybill(text, ['run', '--listen', '127.0.0.1:0']);
    const counts = async (): Promise<string> =>
      (await Promise.all(['copy.a', 'other.a'].map((table) => countOf(it.target, table).catch(() => -1)))).join();
    await waitFor('the row in both', async () => (await counts()) === '1,1');
    cli.drain();
    await first;
    const seq = await withNats(it, async ({ connection }) => {
      const ack = await jetstream(connection).publish(`${it.config.nats.prefix}.cdc.wms`, 'what is this');
      return ack.seq;
    });
    for (const stage of ['capture:wms', 'apply:f', 'apply:g']) {
      const { output } = await cli.run(text, 'frame_unreadable', stage);
      expect(output).toContain('waybill snapshot SOURCE --reset');
    }
    await execute(it.source, 'delete from a', 'insert into a values (2), (3)');
    await withNats(it, ({ manager }) => manager.streams.deleteMessage(it.stream, seq));
    expect((await cli.waybill(text, ['snapshot', 'wms', '--reset'])).status).toBe(0);
    const again = cli.waybill(text, ['run', '--listen', '127.0.0.1:0']);
    await waitFor('the rows in both', async () => (await counts()) === '2,2');
    cli.drain();
    expect((await again).status).toBe(0);
  });

  it('holds a frame of a newer version: the flow halts before it', async () => {
    const it = await path();
    await runCapture(it.text);
    await withNats(it, async ({ connection }) => {
      const newer = headers();
      newer.set('Waybill-Format', '99');
      await jetstream(connection).publish(`${it.config.nats.prefix}.cdc.wms`, '{}', { headers: newer });
    });
    const { status, output } = await cli.run(it.text, 'frame_version', 'apply:f');
    expect(status, output).toBe(1);
  });
});

describe('the lease', () => {
  it('is taken by another process: this one stands by, and goes on when it is free', async () => {
    const it = await path();
    let taken: Promise<unknown> | undefined;
    const take = (): Promise<unknown> =>
      withNats(it, async (connection) => {
        const bucket = await openBucket(connection, it.config.nats);
        await bucket.put('lease.capture.wms', JSON.stringify({ v: 1, holder: 'another', epoch: 99 }));
      });
    const { status, output } = await cli.waybill(
      it.text,
      ['run', '--listen', '127.0.0.1:0', '--only', 'capture:wms'],
      (log) => {
        if (log.includes('table read')) taken ??= take();
        return log.includes('"code":"lease_lost"') && log.includes('standing by');
      },
    );
    await taken;
    expect(status, output).toBe(0);
    expect(output).toContain('"holder":"another"');
  });
});
