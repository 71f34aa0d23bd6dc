/** /healthz, /readyz and /status of a real process: ready means that positions move, and why not is said. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { StageFacts } from '../../monitoring/health.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { Pipeline } from '../support/pipeline.ts';
import { Stage } from '../support/stage.ts';
import { waitFor } from '../support/wait.ts';

let source: PostgresServer;
let target: PostgresServer;
let nats: NatsServer;
let folder: string;
let pipeline: Pipeline;
let stage: Stage;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'waybill-health-'));
  [source, target, nats] = await Promise.all([startPostgres(), startPostgres(), startNats()]);
  pipeline = await Pipeline.open(
    source,
    nats,
    'create table a (id int primary key); insert into a values (1)',
    {},
    target,
  );
  const configFile = join(folder, 'waybill.yaml');
  const logFile = join(folder, 'log');
  await writeFile(configFile, pipeline.yaml);
  await writeFile(logFile, '');
  stage = new Stage({
    configFile,
    only: 'capture:wms,apply:mirror',
    logFile,
    leaseTtlMs: 1500,
    env: { WAYBILL_STALL_MS: '1500' },
  });
});
afterEach(() => stage.end('SIGKILL'));
afterAll(async () => {
  await pipeline?.close();
  await Promise.all([source?.dispose(), target?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

async function get(path: string, method = 'GET'): Promise<{ status: number; body: string }> {
  const response = await fetch(`${stage.url()}${path}`, { method, signal: AbortSignal.timeout(2000) });
  return { status: response.status, body: await response.text() };
}

async function facts(): Promise<{ capture: StageFacts; apply: StageFacts }> {
  const { stages } = JSON.parse((await get('/status')).body) as { stages: StageFacts[] };
  return {
    capture: stages.find(({ kind }) => kind === 'capture')!,
    apply: stages.find(({ kind }) => kind === 'apply')!,
  };
}

const ready = async (): Promise<boolean> => (await get('/readyz')).status === 200;
const arrived = (id: number) => async (): Promise<boolean> =>
  (await pipeline.target.query('select from public.a where id = $1', [id])).rowCount === 1;
/** Waits until /readyz refuses with a line of this form, and gives it. */
const refusal = (pattern: RegExp): Promise<string> =>
  waitFor(`${pattern} at /readyz`, async () => {
    const { status, body } = await get('/readyz');
    return status === 503 && pattern.test(body) && body;
  });

describe('a process whose positions move', () => {
  it('is ready, and tells of each stage where it is', async () => {
    stage.start();
    await waitFor('readiness', ready);
    await waitFor('the first row', arrived(1));
    const before = (await facts()).apply.position;
    await pipeline.source.query('insert into a values (2)');
    await waitFor('the next row', arrived(2));
    const { capture, apply } = await waitFor('both to be idle', async () => {
      const now = await facts();
      return now.capture.lag.kind === 'idle' && now.apply.lag.kind === 'idle' && now.apply.state === 'idle' && now;
    });
    expect(capture).toMatchObject({
      name: 'wms',
      ready: true,
      state: expect.stringMatching(/streaming|idle/) as unknown,
    });
    expect(capture.retainedLogBytes).toBeGreaterThan(0);
    expect(apply).toMatchObject({ name: 'mirror', ready: true, pendingFrames: 0 });
    expect(apply.position).toMatch(/^pg1\//);
    expect(apply.position).not.toBe(before);
    expect(await get('/healthz')).toEqual({ status: 200, body: 'ok\n' });
    expect(await get('/readyz')).toEqual({ status: 200, body: 'ready\n' });
  });

  it('answers nothing else', async () => {
    stage.start();
    await waitFor('an answer', async () => (await get('/healthz')).status === 200);
    expect((await get('/no/such/page')).status).toBe(404);
    expect((await get('/readyz', 'POST')).status).toBe(405);
    expect((await get('/readyz', 'HEAD')).body).toBe('');
  });
});

describe('a process that lives and does not work is not ready, and says why', () => {
  it('a write that never ends, though all was idle before it', async () => {
    stage.start();
    await waitFor('idleness', async () => (await facts()).apply.state === 'idle' && (await ready()));
    await pipeline.target.query('begin; lock table public.a in access exclusive mode');
    await pipeline.source.query('insert into a values (3)');
    const body = await refusal(/no progress for/);
    expect(body).toMatch(
      /^apply:mirror no progress for \d+ s, at pg1\/\S+, the oldest change that waits is \d+ s old; is a session/,
    );
    expect(body, 'the capture goes on').not.toContain('capture:wms');
    expect((await get('/healthz')).status, 'the process lives').toBe(200);
    for (const series of [
      'waybill_stage_stalled_seconds{stage="apply",name="mirror"}',
      'waybill_apply_lag_seconds{flow="mirror",target="vis"}',
    ])
      await waitFor(`${series} to grow`, async () => {
        const line = (await get('/metrics')).body.split('\n').find((each) => each.startsWith(series));
        return Number(line?.slice(series.length)) > 2;
      });
    await pipeline.target.query('commit');
    await waitFor('the row', arrived(3));
    await waitFor('readiness again', ready);
  });

  it('a target that is away, and comes back', async () => {
    stage.start();
    await waitFor('readiness', ready);
    await target.kill();
    await refusal(/^apply:mirror waiting: target_unreachable: /);
    expect((await facts()).capture.ready).toBe(true);
    await target.start();
    await waitFor('readiness again', ready);
  });

  it('a source that is away, and comes back', async () => {
    stage.start();
    await waitFor('readiness', ready);
    await source.kill();
    await refusal(/^capture:wms starting: source_unreachable: /);
    expect((await facts()).capture.lag, 'nobody knows what it has meanwhile').toEqual({ kind: 'unknown' });
    await source.start();
    await waitFor('readiness again', ready);
  });

  it('a flow that halts, with its code, while the capture goes on', async () => {
    const client = new Client({ connectionString: pipeline.config.targets['vis']!.url });
    await client.connect();
    // A position of another kind of source: there is no going on from it.
    await client.query(`update waybill.position set position = 'my1/3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5/0'`);
    await client.end();
    stage.start();
    // What is not ready comes in the order of the stages: once the capture has begun, the flow alone is left.
    const body = await refusal(/^apply:mirror blocked: source_identity_mismatch: /);
    expect(body).not.toContain('capture:wms');
    expect(await facts()).toMatchObject({ apply: { state: 'blocked', ready: false }, capture: { ready: true } });
  });
});
