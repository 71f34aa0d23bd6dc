/**
 * The demo: private servers, a warehouse with a live workload, `waybill run` between them, a view of what happens. With
 * `--seconds N` it stops by itself, compares both sides in full and exits with 0 only when they are equal.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { startNats } from '../nats.ts';
import { startPostgres } from '../postgres.ts';
import { compareDatabases } from './equality.ts';
import { createObserver, lsnText, type Observer } from './observer.ts';
import { createWarehouse, TABLES } from './schema.ts';
import { createTerminal, type Terminal } from './terminal.ts';
import { startWaybill } from './waybill-process.ts';
import type { WorkloadTotals } from './workers.ts';
import { runWorkload } from './workload.ts';

const TARGET_SCHEMA = 'wms';
const FIRST_LOAD_DEADLINE_MS = 120_000;
const CATCH_UP_DEADLINE_MS = 300_000;

interface Settings {
  /** undefined: until Ctrl-C */
  readonly seconds: number | undefined;
  readonly ratePerSecond: number;
  readonly seed: number;
}

/** What must be undone at the end, last first. */
class Cleanup {
  readonly #steps: (() => Promise<unknown>)[] = [];

  add(step: () => Promise<unknown>): void {
    this.#steps.push(step);
  }

  async run(): Promise<void> {
    for (const step of this.#steps.splice(0).toReversed())
      try {
        await step();
      } catch (thrown) {
        console.error(`clean-up: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
      }
  }
}

async function demonstrate(settings: Settings, interrupted: AbortSignal, cleanup: Cleanup): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), 'waybill-demo-'));
  cleanup.add(async () => await rm(folder, { recursive: true, force: true }));

  console.log('Starting PostgreSQL (source), PostgreSQL (target) and NATS');
  const log = (line: string): void => console.log(`  ${line}`);
  const started = async <T extends { dispose(): Promise<void> }>(server: Promise<T>): Promise<T> => {
    const running = await server;
    cleanup.add(async () => await running.dispose());
    return running;
  };
  const [sourceServer, targetServer, nats] = await settleAll([
    started(startPostgres({ log })),
    started(startPostgres({ log })),
    started(startNats({ log })),
  ]);
  interrupted.throwIfAborted();
  const sourceUrl = await sourceServer.createDatabase('wms');
  const targetUrl = await targetServer.createDatabase('visibility');
  await createWarehouse(sourceUrl);

  const listen = `127.0.0.1:${await freePort()}`;
  const configFile = join(folder, 'waybill.yaml');
  const logFile = join(folder, 'waybill.log');
  await writeFile(configFile, configuration({ natsUrl: nats.url, sourceUrl, targetUrl, listen }));
  const observer = await createObserver(sourceUrl, targetUrl, TARGET_SCHEMA);
  cleanup.add(async () => await observer.close());
  const waybill = startWaybill(configFile, logFile);
  cleanup.add(async () => await waybill.stop());

  const links = [
    `metrics       http://${listen}/metrics`,
    `status        http://${listen}/status`,
    `source        ${sourceUrl}`,
    `target        ${targetUrl} (schema ${TARGET_SCHEMA})`,
    `NATS          ${nats.url}`,
    `configuration ${configFile}`,
    `log           ${logFile}`,
  ];
  for (const link of links) console.log(link);
  console.log(settings.seconds === undefined ? 'Ctrl-C ends it.' : `It ends after ${settings.seconds} s.`);

  const stop = new AbortController();
  const signal = AbortSignal.any([interrupted, stop.signal]);
  try {
    const story = tellStory({ settings, signal, observer, sourceUrl, targetUrl, links });
    // The race has two runners, both short-lived or already rejected when it ends.
    return await Promise.race([story, waybill.failed]);
  } finally {
    stop.abort();
  }
}

async function tellStory(stage: {
  settings: Settings;
  signal: AbortSignal;
  observer: Observer;
  sourceUrl: string;
  targetUrl: string;
  links: readonly string[];
}): Promise<boolean> {
  const { settings, signal, observer, sourceUrl, targetUrl } = stage;
  await waitForFirstLoad(observer, signal);
  console.log('The first load is done; the workload begins.');

  const terminal = createTerminal(process.stdout, stage.links);
  const timeUp = settings.seconds === undefined ? signal : AbortSignal.timeout(settings.seconds * 1000);
  const ending = AbortSignal.any([signal, timeUp]);
  const seen = { committed: 0, rolledBack: 0 };
  const workload = runWorkload({
    url: sourceUrl,
    signal: ending,
    ratePerSecond: settings.ratePerSecond,
    seed: settings.seed,
    onTransaction: ({ committed }) => (seen[committed ? 'committed' : 'rolledBack'] += 1),
  });
  const failure = new AbortController();
  workload.catch(() => failure.abort());
  const broken = await watch(terminal, observer, seen, AbortSignal.any([ending, failure.signal]));
  const totals = await workload;
  signal.throwIfAborted();
  return (await giveVerdict(observer, { sourceUrl, targetUrl, signal, totals })) && broken === 0;
}

/** Shows a sample a second and looks whether the target keeps the invariant; gives how often it did not. */
async function watch(
  terminal: Terminal,
  observer: Observer,
  seen: { readonly committed: number; readonly rolledBack: number },
  signal: AbortSignal,
): Promise<number> {
  const beganMs = performance.now();
  let invariantChecks = 0;
  let broken = 0;
  while (!signal.aborted) {
    const invariantProblems = await observer.checkTarget();
    invariantChecks += 1;
    if (invariantProblems.length > 0) broken += 1;
    const { sourceLsn, targetLsn, ...observation } = await observer.observe();
    terminal.show({
      ...observation,
      ...seen,
      elapsedMs: performance.now() - beganMs,
      sourceLsn: lsnText(sourceLsn),
      targetLsn: lsnText(targetLsn),
      behindBytes: targetLsn === undefined ? undefined : Math.max(0, Number(sourceLsn - targetLsn)),
      invariantChecks,
      invariantProblems,
    });
    if (invariantProblems.length > 0) for (const problem of invariantProblems) terminal.say(`  BROKEN: ${problem}`);
    await delay(1000, undefined, { signal }).catch(() => undefined);
  }
  return broken;
}

async function waitForFirstLoad(observer: Observer, signal: AbortSignal): Promise<void> {
  const deadlineMs = performance.now() + FIRST_LOAD_DEADLINE_MS;
  for (;;) {
    signal.throwIfAborted();
    const { counts, targetLsn } = await observer.observe();
    if (targetLsn !== undefined && counts.every(({ source, target }) => source === target)) return;
    if (performance.now() > deadlineMs) throw new Error('the first load did not end in time');
    await delay(100);
  }
}

async function giveVerdict(
  observer: Observer,
  run: { sourceUrl: string; targetUrl: string; signal: AbortSignal; totals: WorkloadTotals },
): Promise<boolean> {
  const { totals } = run;
  console.log(
    `\nThe workload has ended: ${totals.committed} transactions committed, ${totals.rolledBack} rolled back, ${totals.rows} rows changed.`,
  );
  const beganMs = performance.now();
  await observer.waitUntilCaughtUp(AbortSignal.any([run.signal, AbortSignal.timeout(CATCH_UP_DEADLINE_MS)]));
  console.log(`The target caught up in ${(performance.now() - beganMs).toFixed(0)} ms.`);
  const differences = await compareDatabases(run.sourceUrl, run.targetUrl, TABLES, TARGET_SCHEMA);
  for (const { table, kind, key } of differences) console.log(`  ${table}: ${kind}: ${key}`);
  const problems = await observer.checkTarget();
  for (const problem of problems) console.log(`  invariant: ${problem}`);
  if (differences.length > 0 || problems.length > 0) return false;
  const { counts } = await observer.observe();
  const rows = counts.reduce((sum, { source }) => sum + source, 0);
  console.log(`Both sides are equal: ${TABLES.length} tables, ${rows} rows, every column.`);
  return true;
}

function configuration(at: { natsUrl: string; sourceUrl: string; targetUrl: string; listen: string }): string {
  return `version: 1
nats:
  servers: [${JSON.stringify(at.natsUrl)}]
  stream: { max_bytes: 1GB, sync_interval: 10s }
sources:
  wms:
    kind: postgres
    url: ${JSON.stringify(at.sourceUrl)}
    tables: ["public.*"]
targets:
  visibility:
    kind: postgres
    url: ${JSON.stringify(at.targetUrl)}
flows:
  wms_replica:
    mirror: wms
    to: visibility
    schema: ${TARGET_SCHEMA}
monitoring:
  listen: ${at.listen}
`;
}

/** Like Promise.all, but waits for all of them also when one fails, so that what has started can be stopped. */
async function settleAll<T extends readonly unknown[]>(promises: {
  readonly [K in keyof T]: Promise<T[K]>;
}): Promise<T> {
  await Promise.allSettled(promises);
  return (await Promise.all(promises)) as unknown as T;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no free port');
  return address.port;
}

function readSettings(args: readonly string[]): Settings {
  const { values } = parseArgs({
    args: [...args],
    options: { seconds: { type: 'string' }, rate: { type: 'string' }, seed: { type: 'string' } },
  });
  const positive = (name: 'seconds' | 'rate' | 'seed', fallback: number): number => {
    const value = values[name] === undefined ? fallback : Number(values[name]);
    if (!(value > 0)) throw new TypeError(`--${name} must be a number above 0`);
    return value;
  };
  return {
    seconds: values.seconds === undefined ? undefined : positive('seconds', 0),
    ratePerSecond: positive('rate', 100),
    seed: Math.floor(positive('seed', 1)),
  };
}

async function main(): Promise<number> {
  let settings: Settings;
  try {
    settings = readSettings(process.argv.slice(2));
  } catch (thrown) {
    console.error(thrown instanceof Error ? thrown.message : String(thrown));
    console.error('usage: npm run demo -- [--seconds N] [--rate TRANSACTIONS_PER_SECOND] [--seed N]');
    return 2;
  }
  const interrupt = new AbortController();
  const onSignal = (): void => {
    if (interrupt.signal.aborted) process.exit(130);
    console.log('\nStopping; once more to leave at once.');
    interrupt.abort();
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  const cleanup = new Cleanup();
  try {
    const equal = await demonstrate(settings, interrupt.signal, cleanup);
    console.log(equal ? 'VERDICT: equal' : 'VERDICT: DIFFERENT');
    return equal ? 0 : 1;
  } catch (thrown) {
    if (interrupt.signal.aborted) return settings.seconds === undefined ? 0 : 130;
    console.error(thrown instanceof Error ? thrown.message : String(thrown));
    console.log('VERDICT: not proven');
    return 1;
  } finally {
    await cleanup.run();
  }
}

process.exit(await main());
