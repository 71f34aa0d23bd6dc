import { DatabaseError } from 'pg';
import { messageOf, ReplicationError, type ErrorCode } from '../../core/errors.ts';
import { ValueMisfit } from '../value-misfit.ts';

/** SQLSTATEs and their classes, the longest match first. PostgreSQL documentation, appendix A. */
const CODES: readonly (readonly [prefix: string, code: ErrorCode])[] = [
  ['WB001', 'target_fenced'],
  ['WB002', 'target_conflict'],
  ['3D000', 'target_auth'],
  ['42501', 'target_privilege'],
  ['40001', 'target_conflict'],
  ['40P01', 'target_conflict'],
  ['55P03', 'target_conflict'],
  ['53100', 'target_full'],
  ['53300', 'target_unreachable'],
  ['25006', 'target_unreachable'], // read-only: a standby, or a server in recovery
  ['21000', 'target_row'], // two spellings of one key in one statement
  ['54000', 'target_row'],
  ['44000', 'target_row'],
  ['42P01', 'target_shape'],
  ['42703', 'target_shape'],
  ['42704', 'target_shape'],
  ['42804', 'target_shape'],
  ['42P10', 'target_shape'],
  ['428C9', 'target_shape'],
  ['3F000', 'target_shape'],
  ['08', 'target_unreachable'],
  ['57P', 'target_unreachable'],
  ['28', 'target_auth'],
  ['22', 'target_row'],
  ['23', 'target_row'],
];

/** The SQLSTATE of what pg threw, if the server sent one. */
export function sqlStateOf(thrown: unknown): string | undefined {
  if (thrown instanceof ReplicationError) return sqlStateOf(thrown.cause);
  if (thrown instanceof ValueMisfit) return thrown.sqlState;
  return thrown instanceof DatabaseError ? thrown.code : undefined;
}

/** The classes that PostgreSQL itself has. With any other, somebody's own function raised it, for the row in its hands. */
const SERVER_CLASSES =
  /^(?:00|01|02|03|08|09|0A|0B|0F|0L|0P|0Z|10|20|21|22|23|24|25|26|27|28|2B|2D|2F|34|38|39|3B|3D|3F|40|42|44|53|54|55|57|58|72|F0|HV|P0|WB|XX)/;

function isRaised(sqlState: string): boolean {
  return /^(?:P0001|P0002|P0003|P0004)$/.test(sqlState) || (sqlState.length === 5 && !SERVER_CLASSES.test(sqlState));
}

export function codeForSqlState(sqlState: string): ErrorCode {
  if (isRaised(sqlState)) return 'target_row';
  return CODES.find(([prefix]) => sqlState.startsWith(prefix))?.[1] ?? 'target_query';
}

/** Classifies what pg threw, by SQLSTATE and errno. Only the message is kept: `detail` may hold a row's values. */
export function targetError(thrown: unknown, doing: string): ReplicationError {
  if (thrown instanceof ReplicationError) return thrown;
  if (thrown instanceof ValueMisfit)
    return new ReplicationError('target_row', `${doing}: ${thrown.message}`, { cause: thrown });
  if (thrown instanceof DatabaseError) {
    const sqlState = thrown.code ?? '';
    return new ReplicationError(codeForSqlState(sqlState), `${doing}: ${thrown.message} (SQLSTATE ${sqlState})`, {
      cause: thrown,
      context: {
        sqlState,
        ...(thrown.table === undefined ? {} : { table: `${thrown.schema ?? ''}.${thrown.table}` }),
        ...(thrown.constraint === undefined ? {} : { constraint: thrown.constraint }),
      },
    });
  }
  const defect =
    thrown instanceof TypeError ||
    thrown instanceof RangeError ||
    thrown instanceof ReferenceError ||
    thrown instanceof SyntaxError;
  // Whatever else pg throws without a SQLSTATE is its connection: ECONNREFUSED, a reset, an unexpected end.
  return new ReplicationError(defect ? 'internal' : 'target_unreachable', `${doing}: ${messageOf(thrown)}`, {
    cause: thrown,
  });
}

/** True when the failure belongs to a row, so that replaying row by row finds which. */
export function isRowError(thrown: unknown): boolean {
  const sqlState = sqlStateOf(thrown);
  return sqlState !== undefined && codeForSqlState(sqlState) === 'target_row';
}

/** What the quarantine calls a failure. */
export function rowFailureReason(sqlState: string): string {
  if (sqlState.startsWith('23')) return 'constraint';
  if (sqlState.startsWith('22')) return 'value';
  return isRaised(sqlState) ? 'raised' : 'refused';
}
