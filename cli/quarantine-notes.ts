/** What lines of audit say of decisions about quarantined changes, by a command or from the console. */
import type { TargetDesk } from '../apply/target-kind.ts';

/** Entries that a line names; of more it gives the number. */
export const NAMED = 200;

/** What waits in a flow, by reason: for before and after. */
export async function waiting(desk: TargetDesk, flow: string): Promise<Record<string, number>> {
  return Object.fromEntries((await desk.countReasons(flow)).map(({ reason, count }) => [reason, count]));
}

export function named(ids: readonly string[] | 'all'): unknown {
  return ids === 'all' || ids.length <= NAMED ? ids : [...ids.slice(0, NAMED), `and ${ids.length - NAMED} more`];
}

/** Of changes that were refused once more. */
export function refused(
  failed: readonly { readonly id: string; readonly reason: string; readonly sqlState: string | null }[],
): unknown {
  return failed.slice(0, NAMED).map(({ id, reason, sqlState }) => ({ id, reason, sqlState }));
}
