/**
 * The demo: private servers, a warehouse on Postgres and an ERP on MySQL with live workloads, one visibility database
 * that `waybill run` replicates both into, and a retailer whose shop, 3PL and ERP it makes agree; a view of what
 * happens. With `--seconds N` it stops by itself, compares all sides in full and exits with 0 only when they are equal.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { startNats } from '../nats.ts';
import { startPostgres } from '../postgres.ts';
import { createPurchasing, createWms, type Branch } from './branch.ts';
import { Cleanup, settleAll } from './cleanup.ts';
import { configuration, CONSOLE_TOKEN, freePort } from './configuration.ts';
import { startErpServer, type ErpChoice } from './erp-server.ts';
import type { Observer } from './observer.ts';
import type { Journey } from './retailer/journey.ts';
import { proveRetailer } from './retailer/proof.ts';
import { Retailer } from './retailer/retailer.ts';
import { createTerminal, type SourceSample, type Terminal } from './terminal.ts';
import { startWaybill } from './waybill-process.ts';
import type { WorkloadTotals } from './workers.ts';

const FIRST_LOAD_DEADLINE_MS = 120_000;
const CATCH_UP_DEADLINE_MS = 300_000;

interface Settings {
  /** undefined: until Ctrl-C */
  readonly seconds: number | undefined;
  readonly ratePerSecond: number;
  readonly seed: number;
  /** undefined: MySQL, or MariaDB where that cannot be had */
  readonly erp: ErpChoice | undefined;
  readonly retailer: boolean;
}

/** How often the retailer's products and prices are passed on: what is once a night elsewhere. */
const NIGHTLY = '5s';
/** Of the transactions of the warehouse: so many are orders of the retailer's customers. */
const SHOP_SHARE = 1 / 20;

async function demonstrate(settings: Settings, interrupted: AbortSignal, cleanup: Cleanup): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), 'waybill-demo-'));
  cleanup.add(async () => await rm(folder, { recursive: true, force: true }));

  console.log('Starting the databases of the warehouse, of purchasing (the ERP) and of visibility, and NATS');
  const log = (line: string): void => console.log(`  ${line}`);
  const started = async <T extends { dispose(): Promise<void> } | undefined>(server: Promise<T>): Promise<T> => {
    const running = await server;
    cleanup.add(async () => await running?.dispose());
    return running;
  };
  const [wmsServer, erpServer, targetServer, nats] = await settleAll([
    started(startPostgres({ log })),
    started(startErpServer(settings.erp, log)),
    started(startPostgres({ log })),
    started(startNats({ log })),
  ]);
  interrupted.throwIfAborted();
  const targetUrl = await targetServer.createDatabase('visibility');
  const branches = await settleAll([
    createWms(wmsServer, targetUrl),
    ...(erpServer === undefined ? [] : [createPurchasing(erpServer, targetUrl, settings.seed)]),
  ]);
  for (const { observer } of branches) cleanup.add(async () => await observer.close());
  const erp = branches.find(({ name }) => name === 'erp');
  const retailer = settings.retailer
    ? await Retailer.create({ server: wmsServer, visibility: targetUrl, erp, nightly: NIGHTLY })
    : undefined;
  cleanup.add(async () => await retailer?.close());

  const listen = `127.0.0.1:${await freePort()}`;
  const configFile = join(folder, 'waybill.yaml');
  const logFile = join(folder, 'waybill.log');
  await writeFile(configFile, configuration({ natsUrl: nats.url, branches, retailer, targetUrl, listen }));
  const waybill = startWaybill(configFile, logFile);
  cleanup.add(async () => await waybill.stop());

  const links = [
    `console       http://${listen}/ (to act from it: token ${CONSOLE_TOKEN})`,
    `metrics       http://${listen}/metrics`,
    `status        http://${listen}/status`,
    ...branches.map(({ name, url }) => `${name.padEnd(14)}${url}`),
    ...(retailer === undefined
      ? []
      : [`shop          ${retailer.urls.shop}`, `3PL           ${retailer.urls.threepl}`]),
    `visibility    ${targetUrl} (schemas ${[...branches.map(({ schema }) => schema), ...(retailer === undefined ? [] : ['canonical'])].join(', ')})`,
    `NATS          ${nats.url}`,
    `configuration ${configFile}`,
    `log           ${logFile}`,
  ];
  for (const link of links) console.log(link);
  console.log(settings.seconds === undefined ? 'Ctrl-C ends it.' : `It ends after ${settings.seconds} s.`);

  const stop = new AbortController();
  const signal = AbortSignal.any([interrupted, stop.signal]);
  try {
    const prove = async (): Promise<boolean> =>
      retailer === undefined ||
      (await proveRetailer({
        retailer,
        targetServer,
        natsUrl: nats.url,
        folder,
        configFile,
        signal,
        erp: erp === undefined ? {} : { [erp.name]: erp.source },
      }));
    const story = tellStory({ settings, signal, branches, links, retailer, prove });
    // The race has two runners, both short-lived or already rejected when it ends.
    return await Promise.race([story, waybill.failed]);
  } finally {
    stop.abort();
  }
}

/** A branch with what its workload has done so far. */
interface Act extends Branch {
  readonly seen: { committed: number; rolledBack: number };
}

async function tellStory(stage: {
  settings: Settings;
  signal: AbortSignal;
  branches: readonly Branch[];
  links: readonly string[];
  retailer: Retailer | undefined;
  prove(): Promise<boolean>;
}): Promise<boolean> {
  const { settings, signal, branches, retailer } = stage;
  await Promise.all(branches.map(async ({ observer }) => await waitForFirstLoad(observer, signal)));
  console.log(`The first load is done; the workload${branches.length > 1 ? 's begin' : ' begins'}.`);

  const terminal = createTerminal(process.stdout, stage.links);
  const timeUp = settings.seconds === undefined ? signal : AbortSignal.timeout(settings.seconds * 1000);
  const failure = new AbortController();
  const ending = AbortSignal.any([signal, timeUp, failure.signal]);
  const acts = branches.map((branch): Act => ({ ...branch, seen: { committed: 0, rolledBack: 0 } }));
  const watched = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (thrown) {
      failure.abort();
      throw thrown;
    }
  };
  const { seed, ratePerSecond } = settings;
  const workloads = acts.map(
    async ({ work, seen }) =>
      await watched(
        work({
          signal: ending,
          ratePerSecond,
          seed,
          onTransaction: ({ committed }) => (seen[committed ? 'committed' : 'rolledBack'] += 1),
        }),
      ),
  );
  const trade = watched(
    retailer?.work({ signal: ending, seed, ratePerSecond: ratePerSecond * SHOP_SHARE }) ?? Promise.resolve([]),
  );
  // A failure of one of them is seen where they are awaited, below.
  const settled = settleAll([settleAll(workloads), trade]);
  settled.catch(() => undefined);
  const broken = await watch(terminal, acts, retailer, ending);
  const [totals] = await settled;
  signal.throwIfAborted();
  let equal = true;
  for (const [index, branch] of branches.entries())
    equal = (await giveVerdict(branch, totals[index]!, signal)) && equal;
  equal = (await stage.prove()) && equal;
  return equal && broken === 0;
}

/** Shows a sample a second and looks whether the target keeps the invariants; gives how often it did not. */
async function watch(
  terminal: Terminal,
  acts: readonly Act[],
  retailer: Retailer | undefined,
  signal: AbortSignal,
): Promise<number> {
  const beganMs = performance.now();
  let invariantChecks = 0;
  let broken = 0;
  while (!signal.aborted) {
    invariantChecks += 1;
    const sources = await Promise.all(
      acts.map(async ({ name, title, observer, seen }): Promise<SourceSample> => {
        const invariantProblems = await observer.checkTarget();
        return { ...(await observer.observe()), ...seen, name, title, invariantChecks, invariantProblems };
      }),
    );
    const journey = await newestJourney(retailer);
    terminal.show({ elapsedMs: performance.now() - beganMs, sources, journey });
    for (const { name, invariantProblems } of sources) {
      if (invariantProblems.length > 0) broken += 1;
      for (const problem of invariantProblems) terminal.say(`  BROKEN in ${name}: ${problem}`);
    }
    await delay(1000, undefined, { signal }).catch(() => undefined);
  }
  return broken;
}

async function newestJourney(retailer: Retailer | undefined): Promise<Journey | undefined> {
  return (await retailer?.journeys(10))?.find(({ finished, tracking }) => finished && tracking !== undefined);
}

async function waitForFirstLoad(observer: Observer, signal: AbortSignal): Promise<void> {
  const deadlineMs = performance.now() + FIRST_LOAD_DEADLINE_MS;
  for (;;) {
    signal.throwIfAborted();
    const { counts, behind } = await observer.observe();
    if (behind !== undefined && counts.every(({ source, target }) => source === target)) return;
    if (performance.now() > deadlineMs) throw new Error('the first load did not end in time');
    await delay(100);
  }
}

async function giveVerdict(branch: Branch, totals: WorkloadTotals, signal: AbortSignal): Promise<boolean> {
  const { name, observer, tableCount } = branch;
  console.log(
    `\n${name}: the workload has ended: ${totals.committed} transactions committed, ${totals.rolledBack} rolled back, ${totals.rows} rows changed.`,
  );
  const beganMs = performance.now();
  await observer.waitUntilCaughtUp(AbortSignal.any([signal, AbortSignal.timeout(CATCH_UP_DEADLINE_MS)]));
  console.log(`${name}: the target caught up in ${(performance.now() - beganMs).toFixed(0)} ms.`);
  const differences = await observer.compare();
  for (const { table, kind, key } of differences) console.log(`  ${table}: ${kind}: ${key}`);
  const problems = await observer.checkTarget();
  for (const problem of problems) console.log(`  invariant: ${problem}`);
  if (differences.length > 0 || problems.length > 0) return false;
  const { counts } = await observer.observe();
  const rows = counts.reduce((sum, { source }) => sum + source, 0);
  console.log(`${name}: both sides are equal: ${tableCount} tables, ${rows} rows, every column.`);
  return true;
}

const USAGE =
  'usage: npm run demo -- [--seconds N] [--rate TRANSACTIONS_PER_SECOND] [--seed N] [--erp mysql|mariadb|none] [--retailer yes|no]';

/** Undefined: asked for help. */
function readSettings(args: readonly string[]): Settings | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seconds: { type: 'string' },
      rate: { type: 'string' },
      seed: { type: 'string' },
      erp: { type: 'string' },
      retailer: { type: 'string', default: 'yes' },
      help: { type: 'boolean' },
    },
  });
  if (values.help === true) return undefined;
  const positive = (name: 'seconds' | 'rate' | 'seed', fallback: number): number => {
    const value = values[name] === undefined ? fallback : Number(values[name]);
    if (!(value > 0)) throw new TypeError(`--${name} must be a number above 0`);
    return value;
  };
  const { erp } = values;
  if (erp !== undefined && erp !== 'mysql' && erp !== 'mariadb' && erp !== 'none')
    throw new TypeError('--erp must be mysql, mariadb or none');
  if (values.retailer !== 'yes' && values.retailer !== 'no') throw new TypeError('--retailer must be yes or no');
  return {
    erp,
    retailer: values.retailer === 'yes',
    seconds: values.seconds === undefined ? undefined : positive('seconds', 0),
    ratePerSecond: positive('rate', 100),
    seed: Math.floor(positive('seed', 1)),
  };
}

async function main(): Promise<number> {
  let settings: Settings | undefined;
  try {
    settings = readSettings(process.argv.slice(2));
  } catch (thrown) {
    console.error(thrown instanceof Error ? thrown.message : String(thrown));
    console.error(USAGE);
    return 2;
  }
  if (settings === undefined) {
    console.log(USAGE);
    return 0;
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
