/** The exception inbox of a target, apart from the store that keeps it. */
import type { ColumnSchema, RowChange, TableSchema, Value } from '../core/frame.ts';
import { keyShape, touchedKeys, touchedRows, type KeyShape } from './row-key.ts';
import { diffSchemas } from './schema-diff.ts';

export interface RowFailure {
  readonly reason: string;
  readonly sqlState: string | null;
  readonly message: string | null;
}

export const HELD: RowFailure = { reason: 'held', sqlState: null, message: null };

/** What `waybill.quarantine.change` holds: enough to apply the change later without the stream. */
export interface QuarantinedChange {
  readonly change: RowChange;
  readonly table: TableSchema;
  readonly target: { readonly schema: string; readonly name: string };
  /** When it was committed, microseconds since 1970: where rows that go are marked. */
  readonly commitTimeUs?: number;
}

export interface QuarantineEntry {
  readonly id: string;
  readonly flow: string;
  readonly source: string;
  readonly schema: string;
  readonly table: string;
  /** JSON array of the key's values; null for a table without a key. */
  readonly key: string | null;
  /** Names of the key's columns, none where they are not known; null where it is none of a table. */
  readonly keyColumns: readonly string[] | null;
  readonly position: string;
  readonly ordinal: number;
  readonly op: string;
  readonly reason: string;
  readonly sqlState: string | null;
  readonly message: string | null;
  readonly createdAt: Date;
}

export interface QuarantineDetail extends QuarantineEntry {
  readonly change: QuarantinedChange;
}

export interface ReplayFailure extends RowFailure {
  readonly message: string;
}

export interface ReplayResult {
  readonly applied: number;
  readonly failed: readonly (ReplayFailure & { readonly id: string })[];
}

/** Which quarantined changes to replay. */
export interface ReplayChoice {
  readonly ids?: readonly (string | number)[];
  readonly all?: boolean;
}

/** A part of the inbox of a flow, oldest first. */
export interface QuarantineSlice {
  readonly offset: number;
  readonly limit: number;
  /** Only those with this reason. */
  readonly reason?: string;
}

export interface ReasonCount {
  readonly reason: string;
  readonly count: number;
}

/** The key of a row as a JSON array of its key values; null in a table without a key. */
export function keyJson({ plan, row }: { plan: KeyShape; row: RowChange }): string | null {
  if (plan.key.length === 0) return null;
  const image = row[2] ?? row[4]!;
  return JSON.stringify(
    plan.key.map((index) => (typeof image[index] === 'string' ? image[index] : (row[4]?.[index] ?? null))),
  );
}

/** A quarantined change by its id, and the keys that it touches, each with its table. */
export interface KeyedEntry {
  readonly id: string;
  readonly keys: readonly string[];
}

/**
 * `followed`: the change as the flow follows its table; undefined for one that tells no key by then, and stands by itself. In
 * a table without a key all values of a row stand for it: a delete must not go before the insert of what it deletes.
 */
export function keyedEntry(id: string, followed: QuarantinedChange | undefined): KeyedEntry {
  if (followed === undefined) return { id, keys: [] };
  const { table, change } = followed;
  const shape = keyShape(table);
  const keys = shape.key.length === 0 ? touchedRows(change) : touchedKeys(shape, change);
  return { id, keys: keys.map((key) => `${shape.id}\0${key}`) };
}

/** Bytes of changes that are read at a time. */
const PAGE_BYTES = 4 << 20;
/** Entries whose sizes are asked for at a time. */
export const PAGE_SIZES = 10_000;

/** Ids in pages whose changes have together so many bytes as are read at a time, or one that has more. Invariant 6. */
export async function* pagesOf(sizes: AsyncIterable<readonly [id: string, bytes: number]>): AsyncGenerator<string[]> {
  let page: string[] = [];
  let sum = 0;
  for await (const [id, bytes] of sizes) {
    if (page.length > 0 && sum + bytes > PAGE_BYTES) {
      yield page;
      page = [];
      sum = 0;
    }
    page.push(id);
    sum += bytes;
  }
  if (page.length > 0) yield page;
}

/**
 * A change as a version of its table has it by now: columns under the names that they have, without those that are gone, and
 * the key that the table has. Undefined where the change does not tell that: another key, also one that it had before, is
 * gone or need not be of one row.
 * `current` is what the flow follows; undefined where it follows none.
 */
export function asFollowed(
  quarantined: QuarantinedChange,
  current: TableSchema | undefined,
): QuarantinedChange | undefined {
  const { table, change } = quarantined;
  if (current === undefined || current.version === table.version) return quarantined;
  const { kept, key: isOtherKey } = diffSchemas(table, current);
  const now = new Map(kept.map(({ before, after }) => [before.name, after]));
  const places = table.columns.flatMap(({ name }, index) => (now.has(name) ? [index] : []));
  const columns = places.map((place) => now.get(table.columns[place]!.name)!);
  const image = (values: readonly Value[] | null | undefined): readonly Value[] | null | undefined =>
    values == null ? values : places.map((place) => values[place]!);
  const [op, index, after, kind, before] = change;
  const [nowAfter, nowBefore] = [image(after)!, image(before) ?? undefined];
  const images = op === 'd' ? [nowBefore] : nowBefore === undefined ? [nowAfter] : [nowAfter, nowBefore];
  if (isOtherKey && !givesKey(current.key, columns, images)) return undefined;
  const rest = before === undefined ? [] : [kind!, nowBefore!];
  return {
    ...quarantined,
    change: [op, index, nowAfter, ...rest] as unknown as RowChange,
    table: { ...table, version: current.version, key: current.key, columns },
  };
}

/** Why a change is not replayed of which `asFollowed` gives nothing. */
export function keyFailure({ table: { schema, name } }: QuarantinedChange): ReplayFailure {
  return {
    reason: 'key',
    sqlState: null,
    message:
      `table ${schema}.${name} has another key since, and this change does not tell it: discard the change;` +
      ' `waybill snapshot` reads the table anew, with what the source has of the row',
  };
}

/** Whether images have values for a key: those of a change from before the table had this key may not. */
function givesKey(
  key: readonly string[],
  columns: readonly ColumnSchema[],
  images: readonly (readonly Value[] | null | undefined)[],
): boolean {
  const places = key.map((name) => columns.findIndex((column) => column.name === name));
  return images.every((image) => places.every((place) => typeof image?.[place] === 'string'));
}

/** Tells the changes apart that need plans of their own: of one version, those that were stored before it lack columns, or have another key. */
export function planKey({ table, target }: QuarantinedChange): string {
  return JSON.stringify([target.schema, target.name, table.version, table.key, table.columns.map(({ name }) => name)]);
}

/** The chosen changes and all that share a key with one of them, also by way of a change of key. */
export function chooseEntries(rows: readonly KeyedEntry[], which: ReplayChoice): readonly KeyedEntry[] {
  if (which.all === true) return rows;
  const wanted = new Set((which.ids ?? []).map(String));
  const chosen = new Set(rows.filter((row) => wanted.has(row.id)));
  const keys = new Set([...chosen].flatMap((row) => row.keys));
  for (let grew = true; grew;) {
    grew = false;
    for (const row of rows) {
      if (chosen.has(row) || !row.keys.some((key) => keys.has(key))) continue;
      chosen.add(row);
      for (const key of row.keys) keys.add(key);
      grew = true;
    }
  }
  return rows.filter((row) => chosen.has(row));
}

/**
 * Tries the changes in order, the later ones of a key that failed not at all. What fails may be waiting for one that
 * comes later, so it goes round while that helps. `attempt` gives the failure, or undefined for a change that went in.
 */
export async function replayRounds(
  selected: readonly KeyedEntry[],
  attempt: (id: string) => Promise<ReplayFailure | undefined>,
): Promise<{ applied: string[]; failed: (ReplayFailure & { id: string })[] }> {
  const applied: string[] = [];
  const failed: (ReplayFailure & { id: string })[] = [];
  for (let pending = selected; pending.length > 0;) {
    const left: KeyedEntry[] = [];
    const blocked = new Set<string>();
    failed.length = 0;
    for (const entry of pending) {
      const { id, keys } = entry;
      const waits = keys.some((key) => blocked.has(key));
      const failure = waits ? undefined : await attempt(id);
      if (!waits && failure === undefined) {
        applied.push(id);
        continue;
      }
      left.push(entry);
      if (failure !== undefined) failed.push({ id, ...failure });
      for (const key of keys) blocked.add(key);
    }
    if (left.length === pending.length) break;
    pending = left;
  }
  return { applied, failed };
}
