/**
 * `deletes: soft`: rows that go at the source stay in the target, and a column of ours says since when they are gone. It
 * is NULL in rows that the source has. docs/runbook.md, "Deleted rows that stay".
 */

export const DELETED_AT = 'waybill_deleted_at';

/** A moment in microseconds since 1970 as `2026-03-01 08:15:02.500000`, in UTC. */
export function deletedAtText(timeUs: number): string {
  const text = new Date(Math.floor(timeUs / 1000)).toISOString();
  const micros = String(((timeUs % 1000) + 1000) % 1000).padStart(3, '0');
  return `${text.slice(0, 10)} ${text.slice(11, -1)}${micros}`;
}

/** Whether a column of a source has the name of ours. Names of MySQL do not differ by case, so that none of them may. */
export function isDeletedAt(name: string): boolean {
  return name.toLowerCase() === DELETED_AT;
}
