import { messageOf, ReplicationError, type ErrorCode } from '../../core/errors.ts';

/** SQLSTATEs of a source that mean more than "try again" (PostgreSQL documentation, appendix A). */
const CODES: Readonly<Record<string, ErrorCode>> = {
  '28000': 'source_auth',
  '28P01': 'source_auth',
  '3D000': 'source_auth',
  '42501': 'source_privilege',
  '55006': 'source_slot_in_use',
  '55000': 'source_slot_lost',
};

/** Whether the source lacked room for what was asked: memory, disk, or what a limit allows (class 53). */
export function lacksRoom(error: ReplicationError): boolean {
  const { code } = (error.cause ?? {}) as { code?: unknown };
  return typeof code === 'string' && /^53[0-9A-Z]{3}$/.test(code);
}

/** too_many_connections: every walsender, or connection, that the source allows is in use. */
export function lacksConnections(error: ReplicationError): boolean {
  return (error.cause as { code?: unknown } | undefined)?.code === '53300';
}

/** Classifies what the Postgres driver threw while `doing` something, by SQLSTATE or errno. */
export function sourceError(
  thrown: unknown,
  doing: string,
  overrides: Readonly<Record<string, ErrorCode>> = {},
): ReplicationError {
  if (thrown instanceof ReplicationError) return thrown;
  const code = (thrown as { code?: unknown } | null)?.code;
  const state = typeof code === 'string' ? code : '';
  let kind: ErrorCode = overrides[state] ?? CODES[state] ?? 'source_unreachable';
  if (
    CODES[state] === undefined &&
    overrides[state] === undefined &&
    /^[0-9A-Z]{5}$/.test(state) &&
    !/^(08|57P)/.test(state)
  )
    kind = 'source_query';
  const suffix = /^[0-9A-Z]{5}$/.test(state) ? ` (SQLSTATE ${state})` : '';
  return new ReplicationError(kind, `${doing}: ${messageOf(thrown)}${suffix}`, { cause: thrown });
}

/** For what is asked of a replication slot: there is none of that name. Elsewhere any object may be missing. */
export const NO_SLOT: Readonly<Record<string, ErrorCode>> = { '42704': 'source_slot_missing' };
