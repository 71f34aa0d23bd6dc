/** A live order-fulfilment workload: orders are placed, reserved, picked, shipped, tracked, cancelled and archived. */
import { Client, DatabaseError } from 'pg';
import type { Random } from './random.ts';
import * as transactions from './transactions.ts';
import {
  chooseByWeight,
  runWorkers,
  type TransactionOutcome,
  type WorkloadOptions,
  type WorkloadTotals,
} from './workers.ts';

export { checkInvariant, type Problem } from './transactions.ts';

export type TransactionKind =
  'place' | 'reserve' | 'pick' | 'ship' | 'track' | 'cancel' | 'restock' | 'reprice' | 'relabel' | 'archive';

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
/** Share of transactions that do their work and are then rolled back. */
const ROLLBACK_SHARE = 0.05;

/**
 * Runs until the signal aborts, and gives what it did. Survives restarts of the source; any statement that fails for
 * another reason than a deadlock is thrown.
 */
export async function runWorkload(options: WorkloadOptions<TransactionKind>): Promise<WorkloadTotals> {
  const close = async (client: Client): Promise<void> => await client.end();
  return await runWorkers({ connect, close, runOne, isConnectionLoss }, options);
}

async function connect(url: string): Promise<Client> {
  const client = new Client({ connectionString: url, application_name: 'demo workload' });
  // Whatever the client is asked after its connection broke rejects, which is enough.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

async function runOne(client: Client, random: Random): Promise<TransactionOutcome<TransactionKind>> {
  let kind = chooseByWeight(WEIGHTS, random);
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
