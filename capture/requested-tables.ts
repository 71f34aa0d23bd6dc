/** What a request makes of the tables of a progress. Whoever waits for a request finds it in the tables that answer it. */
import { isUnasked, type SnapshotRequest, type TableProgress } from './snapshot-request.ts';

export interface TableName {
  readonly schema: string;
  readonly name: string;
}

/** Keys that are to be read again, in the progress at once: it is one message. */
const MOST_KEY_BYTES = 256 * 1024;
/** Keys of rows that were moved, of all tables: with more their table is read anew. */
const MOST_MOVED_BYTES = 64 * 1024;
/** Ranges that were read stay for so long, for those who wait for them. */
const RANGES_KEPT = 8;

/** Whether a request cannot be begun yet. */
export function mustWait(tables: readonly TableProgress[], request: SnapshotRequest): boolean {
  const open = tables.filter(({ state }) => state !== 'done');
  // Of one table one reading at a time: what was not seen between begin and end of one tells nothing of the other.
  if (request.span !== undefined && open.some((table) => request.tables?.includes(nameOf(table)) === true)) return true;
  const keyBytes = open.reduce((sum, { keys }) => sum + bytesOf(keys), 0);
  return request.keys !== undefined && keyBytes > 0 && keyBytes + bytesOf(request.keys) > MOST_KEY_BYTES;
}

/** The tables with what a request asks for of `wanted`. */
export function withRequest(
  tables: readonly TableProgress[],
  request: SnapshotRequest,
  wanted: readonly TableName[],
): TableProgress[] {
  if (isPartial(request)) return withPart(tables, request, wanted);
  return withWhole(tables, wanted, { request: request.id, hurries: request.tables !== undefined });
}

/**
 * The tables with some that are read from the beginning because the log does not bring all of them. `narrower`: columns that
 * are the same for certain may have lost values by their types; `unsure`: which column is which was guessed.
 */
export function readAnew(
  tables: readonly TableProgress[],
  wanted: readonly TableName[],
  because?: 'narrower' | 'unsure',
): TableProgress[] {
  return withWhole(tables, wanted, {
    needed: true,
    hurries: false,
    ...(because === undefined ? {} : { [because]: true }),
  });
}

/**
 * The tables with a row that is to be read by its key, since an update moved it there; undefined where the table is not being
 * read, 'too many' where it is to be read anew instead.
 */
export function withMovedRow(
  tables: readonly TableProgress[],
  name: TableName,
  key: readonly string[],
): TableProgress[] | 'too many' | undefined {
  const open = tables.filter((table) => nameOf(table) === nameOf(name) && table.state !== 'done');
  // Of one that nobody has begun everything is read. A row that was moved once may be moved again before it is read.
  if (!open.some((table) => isMoved(table) || (table.keys === undefined && table.reading !== undefined)))
    return undefined;
  const bytes = tables.reduce((sum, table) => sum + (isMoved(table) ? bytesOf(table.keys) : 0), bytesOf(key));
  if (bytes > MOST_MOVED_BYTES) return 'too many';
  const waiting = open.find((table) => isMoved(table) && table.state === 'pending');
  const entry: TableProgress = { ...unread(name), needed: true, keys: [...(waiting?.keys ?? []), key] };
  return [...tables.filter((table) => table !== waiting && !(isMoved(table) && table.state === 'done')), entry];
}

/** Whether single rows of a table are read because their keys changed. */
function isMoved({ keys, needed }: TableProgress): boolean {
  return keys !== undefined && needed === true;
}

function withPart(
  tables: readonly TableProgress[],
  { id, keys, span }: SnapshotRequest,
  wanted: readonly TableName[],
): TableProgress[] {
  const ranges = tables.filter((table) => table.span !== undefined && table.state === 'done');
  const old = new Set(ranges.slice(0, Math.max(0, ranges.length - RANGES_KEPT)));
  return [
    ...tables.filter((table) => table.state !== 'done' || (table.keys === undefined && !old.has(table))),
    ...wanted.map((name): TableProgress => ({
      ...unread(name),
      request: id,
      ...(keys === undefined ? {} : { keys }),
      ...(span === undefined ? {} : { span }),
    })),
  ];
}

/**
 * Tables are replaced: whoever reads what was there before finds that it is no longer among the tables. Those of which
 * nothing was read yet are left in their place, and answer this as well, unless somebody named them and waits.
 */
function withWhole(
  tables: readonly TableProgress[],
  wanted: readonly TableName[],
  why: {
    readonly request?: string;
    readonly needed?: true;
    readonly narrower?: true;
    readonly unsure?: true;
    readonly hurries: boolean;
  },
): TableProgress[] {
  const names = new Set(wanted.map(nameOf));
  const renewed = new Map(wanted.map((name): [string, TableProgress] => [nameOf(name), unread(name)]));
  for (const table of tables)
    if (!why.hurries && names.has(nameOf(table)) && isUntouched(table)) renewed.set(nameOf(table), table);
  const asked = new Set<TableProgress>();
  for (const table of tables) {
    const entry = renewed.get(nameOf(table));
    if (entry === undefined) continue;
    const isOpen = table.state !== 'done';
    if (isOpen && table.needed === true) entry.needed = true;
    if (isOpen && table.first === true) entry.first = true;
    if (isOpen && table.narrower === true) entry.narrower = true;
    if (isOpen && table.unsure === true) entry.unsure = true;
    if (isOpen && isAsked(table)) asked.add(entry);
    // Who had read what is read once more needs it as it is then.
    if (isOpen || why.needed === true) answer(entry, [...(table.also ?? []), table.request]);
  }
  for (const entry of renewed.values()) {
    answer(entry, [why.request]);
    if (why.needed === true) entry.needed = true;
    if (why.narrower === true) entry.narrower = true;
    if (why.unsure === true) entry.unsure = true;
    if (entry.needed === true && (why.request !== undefined || asked.has(entry))) entry.asked = true;
  }
  const left = tables.filter((table) => !names.has(nameOf(table)) || renewed.get(nameOf(table)) === table);
  return [...left, ...[...renewed.values()].filter((entry) => !left.includes(entry))];
}

/** Whether somebody asked for the reading of a whole table. */
function isAsked(table: TableProgress): boolean {
  return !isPartial(table) && table.request !== undefined && !isUnasked(table);
}

/** Adds requests that a table answers. */
function answer(entry: TableProgress, requests: readonly (string | undefined)[]): void {
  const known = [...(entry.also ?? []), entry.request];
  const all = [...new Set([...known, ...requests].filter((id) => id !== undefined))];
  const last = all.pop();
  if (last !== undefined) entry.request = last;
  if (all.length > 0) entry.also = all;
}

/** Whether a table waits to be read whole, and nothing of it has been looked at yet. */
function isUntouched(table: TableProgress): boolean {
  return !isPartial(table) && table.part === undefined && table.state === 'pending' && table.reading === undefined;
}

/** A table that is to be read from its beginning. */
export function unread({ schema, name }: TableName): TableProgress {
  return { schema, name, state: 'pending', cursor: null, rows: 0 };
}

export function nameOf({ schema, name }: TableName): string {
  return `${schema}.${name}`;
}

/** Whether only some rows of a table are read, beside what is known of the table as a whole. */
function isPartial({ keys, span }: Pick<TableProgress, 'keys' | 'span'>): boolean {
  return keys !== undefined || span !== undefined;
}

function bytesOf(keys: unknown): number {
  return keys === undefined ? 0 : Buffer.byteLength(JSON.stringify(keys));
}
