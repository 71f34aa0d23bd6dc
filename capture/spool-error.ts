import { messageOf, ReplicationError } from '../core/errors.ts';

const FULL = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);

/** Classifies what a file threw in which rows are kept until it is known that they stand. */
export function spoolError(cause: unknown, doing: string): ReplicationError {
  const { code } = (cause ?? {}) as { code?: unknown };
  const isFull = typeof code === 'string' && FULL.has(code);
  return new ReplicationError(isFull ? 'spool_full' : 'spool_failed', `${doing}: ${messageOf(cause)}`, { cause });
}
