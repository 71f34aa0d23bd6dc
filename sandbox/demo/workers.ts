/** Connections that do transactions at a given rate until they are told to stop: what the demo's workloads share. */
import { setTimeout as delay } from 'node:timers/promises';
import { createRandom, type Random } from './random.ts';

/** A transaction that has ended. */
export interface TransactionOutcome<Kind extends string> {
  readonly kind: Kind;
  /** False for one that was rolled back, on purpose or because of a deadlock. */
  readonly committed: boolean;
  readonly rows: number;
}

export interface WorkloadOptions<Kind extends string> {
  /** Of the source; asked anew for each connection where it is a function. */
  readonly url: string | (() => string);
  /** Ends the workload after the transactions under way. */
  readonly signal: AbortSignal;
  /** Transactions per second over all connections; Infinity for as fast as the source allows. */
  readonly ratePerSecond: number;
  readonly seed: number;
  /** Connections that work at once; 3 if left out. */
  readonly connections?: number;
  readonly onTransaction?: (outcome: TransactionOutcome<Kind>) => void;
}

export interface WorkloadTotals {
  committed: number;
  rolledBack: number;
  rows: number;
  /** Connections lost and made again; the source may be restarted under the workload. */
  reconnects: number;
}

/** What differs between the kinds of database. */
export interface Work<Connection, Kind extends string> {
  connect(url: string): Promise<Connection>;
  close(connection: Connection): Promise<unknown>;
  /** Begins a transaction of some kind and ends it. */
  runOne(connection: Connection, random: Random): Promise<TransactionOutcome<Kind>>;
  /** Whether an error says that the connection is gone, or that there was none to be had. */
  isConnectionLoss(thrown: unknown): boolean;
}

/**
 * Runs until the signal aborts, and gives what it did. Survives restarts of the source; every error that is no loss of
 * connection is thrown.
 */
export async function runWorkers<Connection, Kind extends string>(
  work: Work<Connection, Kind>,
  options: WorkloadOptions<Kind>,
): Promise<WorkloadTotals> {
  const totals: WorkloadTotals = { committed: 0, rolledBack: 0, rows: 0, reconnects: 0 };
  const connections = options.connections ?? 3;
  const failed = new AbortController();
  const signal = AbortSignal.any([options.signal, failed.signal]);
  const workers = Array.from({ length: connections }, async (_, index) => {
    try {
      const random = createRandom(options.seed * 1009 + index);
      await runWorker(work, { ...options, signal, connections }, random, totals);
    } catch (thrown) {
      failed.abort();
      throw thrown;
    }
  });
  await Promise.allSettled(workers);
  await Promise.all(workers);
  return totals;
}

async function runWorker<Connection, Kind extends string>(
  work: Work<Connection, Kind>,
  options: WorkloadOptions<Kind> & { readonly connections: number },
  random: Random,
  totals: WorkloadTotals,
): Promise<void> {
  const { signal } = options;
  const intervalMs = (1000 * options.connections) / options.ratePerSecond;
  let dueMs = performance.now() + random.next() * intervalMs;
  let connection: Connection | undefined;
  const close = async (): Promise<void> => {
    // It may be broken already, and all that is asked of it is to go.
    if (connection !== undefined) await work.close(connection).catch(() => undefined);
    connection = undefined;
  };
  try {
    while (!signal.aborted) {
      const waitMs = dueMs - performance.now();
      if (waitMs > 1) await pause(waitMs, signal);
      if (signal.aborted) break;
      // What was missed during an outage is not made up for.
      dueMs = Math.max(dueMs + intervalMs, performance.now() - 1000);
      try {
        connection ??= await work.connect(typeof options.url === 'string' ? options.url : options.url());
        const outcome = await work.runOne(connection, random);
        totals[outcome.committed ? 'committed' : 'rolledBack'] += 1;
        if (outcome.committed) totals.rows += outcome.rows;
        options.onTransaction?.(outcome);
      } catch (thrown) {
        if (!work.isConnectionLoss(thrown)) throw thrown;
        await close();
        totals.reconnects += 1;
        await pause(250, signal);
      }
    }
  } finally {
    await close();
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => undefined);
}

/** Chooses one of the kinds, each as often as its weight says. */
export function chooseByWeight<Kind>(weights: readonly (readonly [Kind, number])[], random: Random): Kind {
  let at = random.next() * weights.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [kind, weight] of weights) {
    at -= weight;
    if (at < 0) return kind;
  }
  return weights[0]![0];
}
