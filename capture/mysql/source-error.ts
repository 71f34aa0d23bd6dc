/** Classifies what MySQL and MariaDB sources answer, by error number; error 1236 of a binlog dump by its text. */
import { messageOf, ReplicationError, type ErrorCode } from '../../core/errors.ts';
import { isLoginRefusal } from '../../core/mysql-login.ts';

/** Numbers of both servers (mysql-server share/messages_to_clients.txt, MariaDB sql/share/errmsg-utf8.txt). */
const CODES: Readonly<Record<number, ErrorCode>> = {
  // 1040 too many connections, 1053 shutdown, 1077-1079, 1152-1161 network, 1184, 1317 interrupted, 1927/3169 killed.
  1040: 'source_unreachable',
  1053: 'source_unreachable',
  1077: 'source_unreachable',
  1078: 'source_unreachable',
  1079: 'source_unreachable',
  1152: 'source_unreachable',
  1153: 'source_unreachable',
  1158: 'source_unreachable',
  1159: 'source_unreachable',
  1160: 'source_unreachable',
  1161: 'source_unreachable',
  1184: 'source_unreachable',
  1203: 'source_unreachable',
  1226: 'source_unreachable',
  1317: 'source_unreachable',
  1927: 'source_unreachable',
  3169: 'source_unreachable',
  4031: 'source_unreachable',
  1044: 'source_auth',
  1045: 'source_auth',
  1049: 'source_auth',
  1130: 'source_auth',
  1131: 'source_auth',
  1132: 'source_auth',
  1133: 'source_auth',
  1251: 'source_auth',
  1275: 'source_auth',
  1698: 'source_auth',
  1820: 'source_auth',
  1862: 'source_auth',
  3118: 'source_auth',
  // TLS is demanded.
  3159: 'source_auth',
  4151: 'source_auth',
  1142: 'source_privilege',
  1143: 'source_privilege',
  1227: 'source_privilege',
  1370: 'source_privilege',
  // A second replica with the same id (MariaDB).
  4052: 'source_server_id_clash',
  // Binary log not open.
  1373: 'source_log_purged',
  1381: 'source_binlog_settings',
};

/**
 * What error 1236 (fatal error when reading the log) means: the server gives one number to all of them, and tells them
 * apart in its text only, which is English whatever `lc_messages` is.
 */
const FATAL_READING_LOG = 1236;
const DUMP_FAILURES: readonly (readonly [RegExp, ErrorCode])[] = [
  [/purged|too old|could not find first log file/i, 'source_log_purged'],
  [/same server_uuid|same server.id/i, 'source_server_id_clash'],
  [/more GTIDs than the source|more GTIDs than the master/i, 'source_diverged'],
  [/not in the master's binlog|missing the GTID|diverged/i, 'source_diverged'],
  [/gtid_mode|server_id was not set|binary log is not open|max_allowed_packet/i, 'source_binlog_settings'],
];

/** Makes an error of whatever the driver threw or the server answered while `doing` something. */
export function sourceError(thrown: unknown, doing: string): ReplicationError {
  if (thrown instanceof ReplicationError) return thrown;
  const { errno, sqlState } = (thrown ?? {}) as { errno?: unknown; sqlState?: unknown };
  const number = typeof errno === 'number' && errno > 0 ? errno : undefined;
  const text = messageOf(thrown);
  let code: ErrorCode = isLoginRefusal(thrown) ? 'source_auth' : 'source_unreachable';
  if (number === FATAL_READING_LOG)
    code = DUMP_FAILURES.find(([pattern]) => pattern.test(text))?.[1] ?? 'source_protocol';
  else if (number !== undefined) code = CODES[number] ?? 'source_query';
  const suffix =
    number === undefined
      ? ''
      : ` (${number}${typeof sqlState === 'string' && sqlState !== '' ? `, SQLSTATE ${sqlState}` : ''})`;
  return new ReplicationError(code, `${doing}: ${text}${suffix}`, { cause: thrown });
}

/** A statement's table is gone, lost a column, or has another definition than the transaction began with. */
const ALTERED: readonly unknown[] = [1146, 1054, 1412];

/** No such table, no such database. */
const GONE: readonly unknown[] = [1146, 1049];

/** Whether a statement failed since its table was altered after the statement had been made. */
export function failedForDdl(thrown: unknown): boolean {
  return hasNumber(thrown, ALTERED);
}

/** Whether a statement failed since there is no such table. */
export function failedForAbsence(thrown: unknown): boolean {
  return hasNumber(thrown, GONE);
}

function hasNumber(thrown: unknown, numbers: readonly unknown[]): boolean {
  if (!(thrown instanceof Error)) return false;
  return numbers.includes((thrown as { errno?: unknown }).errno) || hasNumber(thrown.cause, numbers);
}
