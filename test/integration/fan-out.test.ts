/** Records as messages of their own: the newest of each on its subject, over kills and second writers. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jetstream } from '@nats-io/jetstream';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { StatusBoard } from '../../cli/status/board.ts';
import type { FlowLine } from '../../cli/status/report.ts';
import { readFanOutPlace } from '../../apply/nats/fan-out-store.ts';
import { canonicalStreamName } from '../../core/canonical-stream.ts';
import { readTail } from '../../core/cdc-stream.ts';
import { openBucket } from '../../core/lease.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { RECORD_OP, recordsStreamName, recordSubject } from '../../core/record-messages.ts';
import { createRandom } from '../../sandbox/demo/random.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { readRequest, requestAnew } from '../../transform/request.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { CommandLine } from '../support/command-line.ts';
import { waitFor } from '../support/wait.ts';

const MAP = `version: 1
name: items
entities:
  product:
    from: items
    where: { not: { in: [sku, [hidden]] } }
    fields: { sku: sku, name: label, base_uom: { const: EA }, net_weight: weight, weight_uom: { if: { gt: [weight, 0] }, then: { const: KGM } } }
`;
let postgres: PostgresServer;
let nats: NatsServer;
let folder: string;
let source: pg.Client;
let admin: Nats;
let flow: CanonicalPipeline;

beforeAll(async () => {
  [postgres, nats, folder] = await Promise.all([startPostgres(), startNats(), mkdtemp(join(tmpdir(), 'waybill-fan-'))]);
  const url = await postgres.createDatabase('pim');
  source = new pg.Client({ connectionString: url });
  await source.connect();
  await source.query('create table items (sku text primary key, label text, weight numeric)');
  const map = join(folder, 'map.yaml');
  await writeFile(map, MAP);
  flow = await CanonicalPipeline.open({
    nats,
    sources: { pim: { kind: 'postgres', url } },
    targetUrl: await postgres.createDatabase('vis'),
    flows: { products: { canonical: 'product', from: { pim: { map } }, delivery: 'realtime', fan_out: true } },
  });
  admin = await connectNats(flow.config.nats, 'test');
  flow.start('capture:pim', 'transform:products', 'apply:products', 'fanout:products');
}, 120_000);
afterAll(async () => {
  await flow?.close();
  await admin?.close();
  await source?.end();
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

const stream = (): string => recordsStreamName(flow.config.nats.prefix, 'product');
const subjectOf = (sku: string): string => recordSubject(flow.config.nats.prefix, 'product', ['default', sku]);

interface Told {
  readonly op: string;
  readonly record: Record<string, unknown> | undefined;
}

/** The newest message of a record; undefined where there is none. */
async function told(sku: string): Promise<Told | undefined> {
  const message = await admin.manager.streams.getMessage(stream(), { last_by_subj: subjectOf(sku) }).catch(() => null);
  if (message === null) return undefined;
  return { op: message.header.get(RECORD_OP), record: message.data.length === 0 ? undefined : message.json() };
}

/** What a subscriber who comes now gets: records by sku, without those that are gone. */
async function all(): Promise<string[]> {
  const records: string[] = [];
  const { state } = await admin.manager.streams.info(stream());
  const consumer = await jetstream(admin.connection).consumers.get(stream());
  const messages = await consumer.consume();
  for await (const message of messages) {
    if (message.subject.split('.').length > 3 && message.data.length > 0) {
      const { sku, name } = message.json<{ sku: string; name: string }>();
      records.push(`${sku}=${name}`);
    }
    if (message.seq >= state.last_seq) break;
  }
  await messages.close();
  return records.sort();
}

async function agrees(): Promise<void> {
  const wrong = async (): Promise<string[]> => {
    if (flow.failure !== undefined) throw flow.failure;
    const { rows } = await source.query<{ record: string }>(
      `select sku || '=' || label as record from items where sku <> 'hidden'`,
    );
    const [wanted, seen] = [new Set(rows.map(({ record }) => record)), new Set(await all())];
    return [
      ...[...wanted].filter((record) => !seen.has(record)).map((record) => `missing ${record}`),
      ...[...seen].filter((record) => !wanted.has(record)).map((record) => `extra ${record}`),
    ];
  };
  let last: string[] = [];
  await waitFor(
    'the messages to be what the table has',
    async () => {
      last = await wrong();
      return last.length === 0;
    },
    30_000,
  ).catch((cause: unknown) => {
    throw new Error(`${last.length} records are wrong: ${last.slice(0, 10).join()}`, { cause });
  });
}

it('each record is a message on a subject of its own, with numbers as they are written', async () => {
  await source.query(
    `insert into items values ('A', 'one', 1.50), ('b/1 x', 'two', null), ('é.*', 'three', 0.30000000000000000004)`,
  );
  await agrees();
  expect(subjectOf('b/1 x')).toMatch(/\.records\.product\.default\.b%2F1%20x$/);
  expect(subjectOf('é.*')).toMatch(/\.default\.%C3%A9%2E%2A$/);
  expect(await told('A')).toMatchObject({
    op: 'put',
    record: {
      tenant: 'default',
      sku: 'A',
      name: 'one',
      net_weight: '1.5',
      brand: null,
      lineage_source: 'pim',
      lineage_key: { sku: 'A' },
    },
  });
  expect((await told('é.*'))!.record).toMatchObject({ net_weight: '0.30000000000000000004' });
});

it('a change replaces the message, and the end of a record is a message too', async () => {
  await source.query(`update items set label = 'one more' where sku = 'A'; delete from items where sku = 'b/1 x'`);
  await agrees();
  expect(await told('A')).toMatchObject({ op: 'put', record: { name: 'one more' } });
  expect(await told('b/1 x')).toEqual({ op: 'delete', record: undefined });
  // A record that gets another key ends under the old one.
  await source.query(`update items set sku = 'C' where sku = 'A'`);
  await agrees();
  expect(await told('A')).toMatchObject({ op: 'delete' });
});

it('goes on where it stood, through restarts, large transactions and a second writer', async () => {
  const random = createRandom(3);
  await source.query(`insert into items select 'N-' || i, 'n' from generate_series(1, 2500) i`);
  for (let round = 0; round < 8; round++) {
    for (let change = 0; change < 20; change++)
      await source.query(
        random.chance(0.2)
          ? `delete from items where sku = 'N-${random.between(1, 60)}'`
          : `insert into items values ('N-${random.between(1, 60)}', 'r${round}.${change}') on conflict (sku) do update set label = excluded.label`,
      );
    if (round % 2 === 0) {
      await flow.stop('fanout:products');
      flow.start('fanout:products');
    } else {
      // Somebody else writes: whoever fans out notices, begins anew behind it, and in the end it is gone.
      await jetstream(admin.connection).publish(
        subjectOf(`N-${random.between(1, 60)}`),
        '{"sku":"N-0","name":"not ours"}',
      );
      await requestAnew(flow.config.nats, 'products');
    }
  }
  await agrees();
  expect(flow.failure).toBeUndefined();
});

/** Waits until what was asked for is done and written: while all is written anew, records that go leave nothing. */
async function settled(): Promise<void> {
  const { prefix } = flow.config.nats;
  const bucket = await openBucket(admin, flow.config.nats);
  await waitFor('requests to be answered', async () => (await readRequest(bucket, 'products')) === undefined);
  const { seq } = await readTail(admin, canonicalStreamName(prefix, 'product'));
  await waitFor('all to be written', async () => {
    const place = await readFanOutPlace(admin, prefix, 'product');
    return place !== undefined && place.seq >= seq && place.anew === undefined;
  });
}

it('written anew, records that are gone leave nothing, not even the word that they are', async () => {
  await settled();
  await source.query(`delete from items where sku = 'é.*'`);
  await agrees();
  expect(await told('é.*')).toEqual({ op: 'delete', record: undefined });
  const { state } = await admin.manager.streams.info(stream());
  await requestAnew(flow.config.nats, 'products');
  await waitFor(
    'all to be written anew',
    async () => (await admin.manager.streams.info(stream())).state.first_seq > state.last_seq,
  );
  await agrees();
  expect(await told('é.*')).toBeUndefined();
});

it('stands in status, with what it has not written yet and since when', async () => {
  const board = new StatusBoard(flow.config);
  const line = async (): Promise<FlowLine | undefined> =>
    (await board.look()).flows.find(({ name }) => name === 'products.fanout');
  try {
    await waitFor('all to be written', async () => (await line())?.pendingFrames === 0);
    const idle = await line();
    expect(idle).toMatchObject({ source: 'product', target: 'nats', state: 'running', lag: { kind: 'idle' } });
    expect(idle!.position).toBeDefined();
    expect(idle).not.toHaveProperty('quarantined');
    await flow.stop('fanout:products');
    await source.query(`insert into items values ('STATUS', 'waits')`);
    const waiting = await waitFor('a frame to wait', async () => {
      const found = await line();
      return found?.state === 'stopped' && found.pendingFrames! > 0 ? found : undefined;
    });
    expect(waiting.lag.kind).toBe('lagging');
    flow.start('fanout:products');
    await waitFor('it to be written', async () => (await line())?.pendingFrames === 0);
  } finally {
    board.close();
  }
});

it('is a stage of its own on the command line', async () => {
  await flow.stop('fanout:products');
  const cli = await CommandLine.open();
  try {
    await source.query(`insert into items values ('CLI', 'told by the command')`);
    const args = ['run', '--only', 'fanout:products', '--listen', '127.0.0.1:0'];
    const run = cli.waybill(flow.yaml, args);
    await agrees();
    cli.drain();
    const { status, output } = await run;
    expect(status, output).toBe(0);
  } finally {
    await cli.close();
  }
});
