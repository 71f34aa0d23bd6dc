/** A live order-fulfilment workload: orders are placed, reserved, picked, shipped, tracked, cancelled and archived. */
import { Client, DatabaseError } from 'pg';
import type { Random } from './random.ts';
import * as transactions from './transactions.ts';
import type { TransactionBody } from './transactions.ts';
import {
  chooseByWeight,
  runWorkers,
  type TransactionOutcome,
  type WorkloadOptions,
  type WorkloadTotals,
} from './workers.ts';

export { checkInvariant, type Problem, type TransactionBody } from './transactions.ts';

export type TransactionKind =
  'place' | 'reserve' | 'pick' | 'ship' | 'track' | 'cancel' | 'restock' | 'reprice' | 'relabel' | 'archive';

const BODIES: Readonly<Record<TransactionKind, TransactionBody>> = {
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
/** Share of transactions that do their work and are then rolled back. */
const ROLLBACK_SHARE = 0.05;

/**
 * Runs until the signal aborts, and gives what it did. Survives restarts of the source; any statement that fails for
 * another reason than a deadlock is thrown.
 */
export async function runWorkload(options: WorkloadOptions<TransactionKind>): Promise<WorkloadTotals> {
  return await runPostgresWork({ bodies: BODIES, weights: WEIGHTS, otherwise: 'place' }, options);
}

/** What is done in a Postgres database, and how often each kind is tried. */
export interface PostgresWork<Kind extends string> {
  readonly bodies: Readonly<Record<Kind, TransactionBody>>;
  readonly weights: readonly (readonly [Kind, number])[];
  /** What is done where a kind has nothing to do; nothing if left out. */
  readonly otherwise?: Kind;
}

/** `runWorkload` for other work. */
export async function runPostgresWork<Kind extends string>(
  work: PostgresWork<Kind>,
  options: WorkloadOptions<Kind>,
): Promise<WorkloadTotals> {
  const close = async (client: Client): Promise<void> => await client.end();
  const runOne = async (client: Client, random: Random): Promise<TransactionOutcome<Kind>> =>
    await runTransaction(work, client, random);
  return await runWorkers({ connect, close, runOne, isConnectionLoss }, options);
}

async function connect(url: string): Promise<Client> {
  const client = new Client({ connectionString: url, application_name: 'demo workload' });
  // Whatever the client is asked after its connection broke rejects, which is enough.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

async function runTransaction<Kind extends string>(
  { bodies, weights, otherwise }: PostgresWork<Kind>,
  client: Client,
  random: Random,
): Promise<TransactionOutcome<Kind>> {
  let kind = chooseByWeight(weights, random);
  const rollBack = random.chance(ROLLBACK_SHARE);
  try {
    await client.query('begin');
    let rows = await bodies[kind](client, random);
    if (rows === 0 && otherwise !== undefined) {
      kind = otherwise;
      rows = await bodies[kind](client, random);
    }
    await client.query(rollBack ? 'rollback' : 'commit');
    return { kind, committed: !rollBack, rows };
  } catch (thrown) {
    if (!isDeadlock(thrown)) throw thrown;
    await client.query('rollback');
    return { kind, committed: false, rows: 0 };
  }
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
