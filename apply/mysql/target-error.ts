import { messageOf, ReplicationError, type ErrorCode } from '../../core/errors.ts';
import { isLoginRefusal } from '../../core/mysql-login.ts';
import { ValueMisfit } from '../value-misfit.ts';

/** What mysql2 throws for an error that the server sent. */
interface ServerError extends Error {
  readonly errno: number;
  readonly sqlState: string;
}

/** Error numbers of MySQL and MariaDB that their SQLSTATE does not place. MySQL Error Reference; MariaDB error codes. */
const CODES: Readonly<Record<number, ErrorCode>> = {
  1020: 'target_conflict', // changed since the snapshot (MariaDB innodb_snapshot_isolation)
  1021: 'target_full',
  1040: 'target_unreachable',
  1044: 'target_privilege',
  1045: 'target_auth',
  1049: 'target_auth',
  1050: 'target_conflict',
  1053: 'target_unreachable',
  1054: 'target_shape',
  1059: 'target_shape',
  1060: 'target_shape',
  1067: 'target_shape',
  1071: 'target_shape',
  1074: 'target_shape',
  1089: 'target_shape',
  1091: 'target_shape',
  1102: 'target_shape',
  1114: 'target_full',
  1117: 'target_shape',
  1118: 'target_shape',
  1130: 'target_auth',
  1142: 'target_privilege',
  1143: 'target_privilege',
  1146: 'target_shape',
  1153: 'target_row',
  1170: 'target_shape',
  1203: 'target_unreachable',
  1205: 'target_conflict',
  1213: 'target_conflict',
  1226: 'target_unreachable',
  1227: 'target_privilege',
  1251: 'target_auth',
  1275: 'target_auth',
  1290: 'target_unreachable', // read-only
  1317: 'target_conflict',
  1364: 'target_row',
  1370: 'target_privilege',
  1366: 'target_row',
  1369: 'target_row',
  1416: 'target_row',
  1526: 'target_row',
  1644: 'target_row', // SIGNAL of a trigger
  1690: 'target_row',
  1698: 'target_auth',
  1792: 'target_unreachable',
  1820: 'target_auth',
  1836: 'target_unreachable',
  1862: 'target_auth',
  1927: 'target_unreachable',
  1958: 'target_row',
  3101: 'target_conflict',
  3118: 'target_auth',
  3140: 'target_row',
  3150: 'target_row',
  3157: 'target_row',
  3159: 'target_auth', // TLS is demanded
  3169: 'target_unreachable',
  3643: 'target_row',
  3750: 'target_shape',
  3819: 'target_row',
  4025: 'target_row',
  4151: 'target_auth',
};

function isServerError(thrown: unknown): thrown is ServerError {
  return thrown instanceof Error && typeof (thrown as Partial<ServerError>).sqlState === 'string';
}

/** The error number of what mysql2 threw, if the server sent one. */
export function errnoOf(thrown: unknown): number | undefined {
  if (thrown instanceof ReplicationError) return errnoOf(thrown.cause);
  return isServerError(thrown) ? thrown.errno : undefined;
}

/** The SQLSTATE of a failure, if it has one. */
export function sqlStateOf(thrown: unknown): string | undefined {
  if (thrown instanceof ReplicationError) return sqlStateOf(thrown.cause);
  if (thrown instanceof ValueMisfit) return thrown.sqlState;
  return isServerError(thrown) ? thrown.sqlState : undefined;
}

function codeFor(errno: number, sqlState: string): ErrorCode {
  const code = CODES[errno];
  if (code !== undefined) return code;
  // 01: what is a warning where values may be bent is an error in strict mode. 45: SIGNAL with a number of somebody's own.
  if (/^(01|22|23|45)/.test(sqlState)) return 'target_row';
  if (sqlState.startsWith('08')) return 'target_unreachable';
  if (sqlState.startsWith('28')) return 'target_auth';
  return 'target_query';
}

/** Classifies what mysql2 threw, by error number and SQLSTATE. */
export function targetError(thrown: unknown, doing: string): ReplicationError {
  if (thrown instanceof ReplicationError) return thrown;
  if (thrown instanceof ValueMisfit)
    return new ReplicationError('target_row', `${doing}: ${thrown.message}`, { cause: thrown });
  if (isServerError(thrown)) {
    const { errno, sqlState } = thrown;
    return new ReplicationError(
      codeFor(errno, sqlState),
      `${doing}: ${thrown.message} (error ${errno}, SQLSTATE ${sqlState})`,
      {
        cause: thrown,
        context: { sqlState, errno },
      },
    );
  }
  if (isLoginRefusal(thrown))
    return new ReplicationError('target_auth', `${doing}: ${messageOf(thrown)}`, { cause: thrown });
  const defect =
    thrown instanceof TypeError ||
    thrown instanceof RangeError ||
    thrown instanceof ReferenceError ||
    thrown instanceof SyntaxError;
  // Whatever else mysql2 throws without a SQLSTATE is its connection.
  return new ReplicationError(defect ? 'internal' : 'target_unreachable', `${doing}: ${messageOf(thrown)}`, {
    cause: thrown,
  });
}

/** True when the failure belongs to a row, so that replaying row by row finds which. */
export function isRowError(thrown: unknown): boolean {
  if (thrown instanceof ReplicationError) return thrown.code === 'target_row';
  if (thrown instanceof ValueMisfit) return true;
  return isServerError(thrown) && codeFor(thrown.errno, thrown.sqlState) === 'target_row';
}

/** What the quarantine calls a failure. */
export function rowFailureReason(sqlState: string, errno: number | undefined): string {
  if (errno === 3819 || errno === 4025 || sqlState.startsWith('23')) return 'constraint';
  if (errno === 1644 || sqlState.startsWith('45')) return 'raised';
  return /^(01|22)/.test(sqlState) || errno === 1366 || errno === 3140 ? 'value' : 'refused';
}
