/** A live order-fulfilment workload: orders are placed, reserved, picked, shipped, tracked, cancelled and archived. */
import { setTimeout as delay } from 'node:timers/promises';
import { Client, DatabaseError } from 'pg';
import { createRandom, type Random } from './random.ts';
import * as transactions from './transactions.ts';

export { checkInvariant, type Problem } from './transactions.ts';

export type TransactionKind =
  'place' | 'reserve' | 'pick' | 'ship' | 'track' | 'cancel' | 'restock' | 'reprice' | 'relabel' | 'archive';

/** A transaction that has ended. */
export interface TransactionOutcome {
  readonly kind: TransactionKind;
  /** False for one that was rolled back, on purpose or because of a deadlock. */
  readonly committed: boolean;
  readonly rows: number;
}

export interface WorkloadOptions {
  readonly url: string;
  /** Ends the workload after the transactions under way. */
  readonly signal: AbortSignal;
  /** Transactions per second over all connections; Infinity for as fast as the source allows. */
  readonly ratePerSecond: number;
  readonly seed: number;
  /** Connections that work at once; 3 if left out. */
  readonly connections?: number;
  readonly onTransaction?: (outcome: TransactionOutcome) => void;
}

export interface WorkloadTotals {
  committed: number;
  rolledBack: number;
  rows: number;
  /** Connections lost and made again; the source may be restarted under the workload. */
  reconnects: number;
}

const BODIES: Readonly<Record<TransactionKind, typeof transactions.place>> = {
  place: transactions.place,
  reserve: transactions.reserve,
  pick: transactions.pickGoods,
  ship: transactions.ship,
  track: transactions.track,
  cancel: transactions.cancel,
  restock: transactions.restock,
  reprice: transactions.reprice,
  relabel: transactions.relabel,
  archive: transactions.archive,
};

/** How often each kind is tried. Kinds for which there is nothing to do place an order instead. */
const WEIGHTS: readonly (readonly [TransactionKind, number])[] = [
  ['place', 20],
  ['reserve', 20],
  ['pick', 18],
  ['ship', 18],
  ['track', 40],
  ['cancel', 2],
  ['restock', 5],
  ['reprice', 4],
  ['relabel', 2],
  ['archive', 12],
];
const TOTAL_WEIGHT = WEIGHTS.reduce((sum, [, weight]) => sum + weight, 0);
/** Share of transactions that do their work and are then rolled back. */
const ROLLBACK_SHARE = 0.05;

/**
 * Runs until the signal aborts, and gives what it did. Survives restarts of the source; any statement that fails for
 * another reason than a deadlock is thrown.
 */
export async function runWorkload(options: WorkloadOptions): Promise<WorkloadTotals> {
  const totals: WorkloadTotals = { committed: 0, rolledBack: 0, rows: 0, reconnects: 0 };
  const connections = options.connections ?? 3;
  const failed = new AbortController();
  const signal = AbortSignal.any([options.signal, failed.signal]);
  const workers = Array.from({ length: connections }, async (_, index) => {
    try {
      await work({ ...options, signal }, createRandom(options.seed * 1009 + index), connections, totals);
    } catch (thrown) {
      failed.abort();
      throw thrown;
    }
  });
  await Promise.allSettled(workers);
  await Promise.all(workers);
  return totals;
}

async function work(
  options: WorkloadOptions,
  random: Random,
  connections: number,
  totals: WorkloadTotals,
): Promise<void> {
  const { signal } = options;
  const intervalMs = (1000 * connections) / options.ratePerSecond;
  let dueMs = performance.now() + random.next() * intervalMs;
  let client: Client | undefined;
  try {
    while (!signal.aborted) {
      const waitMs = dueMs - performance.now();
      if (waitMs > 1) await pause(waitMs, signal);
      if (signal.aborted) break;
      // What was missed during an outage is not made up for.
      dueMs = Math.max(dueMs + intervalMs, performance.now() - 1000);
      try {
        client ??= await connect(options.url);
        const outcome = await runOne(client, random);
        totals[outcome.committed ? 'committed' : 'rolledBack'] += 1;
        if (outcome.committed) totals.rows += outcome.rows;
        options.onTransaction?.(outcome);
      } catch (thrown) {
        if (!isConnectionLoss(thrown)) throw thrown;
        await client?.end().catch(() => undefined);
        client = undefined;
        totals.reconnects += 1;
        await pause(250, signal);
      }
    }
  } finally {
    await client?.end().catch(() => undefined);
  }
}

async function connect(url: string): Promise<Client> {
  const client = new Client({ connectionString: url, application_name: 'demo workload' });
  // Whatever the client is asked after its connection broke rejects, which is enough.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

async function runOne(client: Client, random: Random): Promise<TransactionOutcome> {
  let kind = chooseKind(random);
  const rollBack = random.chance(ROLLBACK_SHARE);
  try {
    await client.query('begin');
    let rows = await BODIES[kind](client, random);
    if (rows === 0) {
      kind = 'place';
      rows = await BODIES.place(client, random);
    }
    await client.query(rollBack ? 'rollback' : 'commit');
    return { kind, committed: !rollBack, rows };
  } catch (thrown) {
    if (!isDeadlock(thrown)) throw thrown;
    await client.query('rollback');
    return { kind, committed: false, rows: 0 };
  }
}

function chooseKind(random: Random): TransactionKind {
  let at = random.next() * TOTAL_WEIGHT;
  for (const [kind, weight] of WEIGHTS) {
    at -= weight;
    if (at < 0) return kind;
  }
  return 'place';
}

function sqlState(thrown: unknown): string | undefined {
  return thrown instanceof DatabaseError ? thrown.code : undefined;
}

/** deadlock_detected, serialization_failure */
function isDeadlock(thrown: unknown): boolean {
  return ['40P01', '40001'].includes(sqlState(thrown) ?? '');
}

/** The classes "connection exception" and "operator intervention", and every error that is not the server's. */
function isConnectionLoss(thrown: unknown): boolean {
  if (thrown instanceof TypeError || thrown instanceof RangeError) return false;
  const state = sqlState(thrown);
  return state === undefined || state.startsWith('08') || state.startsWith('57P');
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => undefined);
}
