/** A live purchasing workload: orders are drafted, sent, confirmed, received, cancelled and purged, and prices change. */
import { createConnection, type Connection } from 'mysql2/promise';
import * as transactions from './erp-transactions.ts';
import type { Random } from './random.ts';
import {
  chooseByWeight,
  runWorkers,
  type TransactionOutcome,
  type WorkloadOptions,
  type WorkloadTotals,
} from './workers.ts';

export type ErpTransactionKind = keyof typeof transactions;

/** How often each kind is tried. Kinds for which there is nothing to do draft an order instead. */
const WEIGHTS: readonly (readonly [ErpTransactionKind, number])[] = [
  ['draft', 20],
  ['send', 20],
  ['confirm', 18],
  ['receive', 26],
  ['cancel', 3],
  ['reprice', 25],
  ['maintain', 12],
  ['resource', 4],
  ['purge', 12],
  ['forget', 3],
];
/** Share of transactions that do their work and are then rolled back. */
const ROLLBACK_SHARE = 0.05;

/**
 * Runs until the signal aborts, and gives what it did. Survives restarts of the source; any statement that fails for
 * another reason than a deadlock is thrown.
 */
export async function runErpWorkload(options: WorkloadOptions<ErpTransactionKind>): Promise<WorkloadTotals> {
  return await runWorkers({ connect, close, runOne, isConnectionLoss }, options);
}

async function connect(url: string): Promise<Connection> {
  const connection = await createConnection({ uri: url, charset: 'utf8mb4', connectTimeout: 10_000 });
  // Whatever the connection is asked after it broke rejects, which is enough.
  connection.on('error', () => undefined);
  return connection;
}

async function close(connection: Connection): Promise<void> {
  connection.destroy();
}

async function runOne(connection: Connection, random: Random): Promise<TransactionOutcome<ErpTransactionKind>> {
  let kind = chooseByWeight(WEIGHTS, random);
  const rollBack = random.chance(ROLLBACK_SHARE);
  try {
    await connection.query('start transaction');
    let rows = await transactions[kind](connection, random);
    if (rows === 0) {
      kind = 'draft';
      rows = await transactions.draft(connection, random);
    }
    await connection.query(rollBack ? 'rollback' : 'commit');
    return { kind, committed: !rollBack, rows };
  } catch (thrown) {
    if (!isDeadlock(thrown)) throw thrown;
    await connection.query('rollback');
    return { kind, committed: false, rows: 0 };
  }
}

/** Of an error that the server reported; undefined for all others. */
function errorNumber(thrown: unknown): number | undefined {
  const number = thrown instanceof Error && 'errno' in thrown ? thrown.errno : undefined;
  return typeof number === 'number' && number > 0 ? number : undefined;
}

/** ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK and, of MariaDB, ER_CHECKREAD */
function isDeadlock(thrown: unknown): boolean {
  return [1205, 1213, 1020].includes(errorNumber(thrown) ?? 0);
}

/**
 * ER_SERVER_SHUTDOWN, ER_NORMAL_SHUTDOWN, ER_QUERY_INTERRUPTED, ER_CONNECTION_KILLED (of either flavour), and every error
 * that is not the server's.
 */
function isConnectionLoss(thrown: unknown): boolean {
  if (thrown instanceof TypeError || thrown instanceof RangeError) return false;
  const number = errorNumber(thrown);
  return number === undefined || [1053, 1077, 1317, 1927, 3169].includes(number);
}
