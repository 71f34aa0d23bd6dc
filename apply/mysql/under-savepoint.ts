import { messageOf } from '../../core/errors.ts';
import type { RowFailure } from '../quarantine-entry.ts';
import type { MysqlSession } from './session.ts';
import { errnoOf, isRowError, rowFailureReason, sqlStateOf } from './target-error.ts';

/** Runs `work` under a savepoint; gives the failure when it failed because of a row, and then nothing is left of it. */
export async function underSavepoint(
  session: MysqlSession,
  work: () => Promise<void>,
): Promise<(RowFailure & { sqlState: string; message: string }) | undefined> {
  await session.run('SAVEPOINT one_row');
  try {
    await work();
    await session.run('RELEASE SAVEPOINT one_row');
    return undefined;
  } catch (thrown) {
    if (!isRowError(thrown)) throw thrown;
    await session.run('ROLLBACK TO SAVEPOINT one_row; RELEASE SAVEPOINT one_row');
    const sqlState = sqlStateOf(thrown)!;
    return { reason: rowFailureReason(sqlState, errnoOf(thrown)), sqlState, message: messageOf(thrown) };
  }
}
