/**
 * What Waybill writes into a system that it captures too is marked, so that it is not taken for a change of that system's
 * own: in Postgres by a replication origin, in MySQL and MariaDB by a row in a table of its own that the same transaction
 * touches. Captures carry the mark in the frame, mirrors apply the rows like all others, and the transform tells them apart.
 */
const PREFIX = 'waybill ';
const MARKER = 'origin_';

/** Prefix of the logical message that stands for a replication origin; its content is the origin's name. */
export const ORIGIN_MESSAGE = 'waybill:origin';

/** The name of the replication origin of a flow; also what frames carry. `installation` is core/stale-sessions.ts's id. */
export function originName(flow: string, installation: string): string {
  return `${PREFIX}${flow} ${installation}`;
}

/** The table of database `waybill` whose rows mark transactions of an installation. */
export function markerTable(installation: string): string {
  return `${MARKER}${installation}`;
}

/** What frames carry of a transaction that touches this table; undefined where it is no marker. */
export function originOfMarker(schema: string, table: string): string | undefined {
  if (schema !== 'waybill' || !table.startsWith(MARKER)) return undefined;
  return `${PREFIX}${table.slice(MARKER.length)}`;
}

/** Whether any installation of Waybill wrote under this name. */
export function isWaybillOrigin(name: string): boolean {
  return name.startsWith(PREFIX);
}

/** Whether this installation wrote a transaction of which a frame carries `origin`. */
export function isOwnOrigin(origin: string | undefined, installation: string): boolean {
  return origin !== undefined && isWaybillOrigin(origin) && origin.endsWith(` ${installation}`);
}
