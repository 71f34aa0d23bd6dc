/** What changed between two versions of a source table. docs/schema-changes.md says what is done about each. */
import type { ColumnSchema, TableSchema } from '../core/frame.ts';

export interface Renamed {
  readonly from: string;
  readonly to: string;
}

export interface SchemaDiff {
  readonly added: readonly ColumnSchema[];
  readonly dropped: readonly ColumnSchema[];
  readonly renamed: readonly Renamed[];
  /** Columns that both versions have, whatever their names. */
  readonly kept: readonly { readonly before: ColumnSchema; readonly after: ColumnSchema }[];
  /** The key is another one, renamed columns aside. */
  readonly key: boolean;
  /** The source tells columns apart: each of `kept` is the same column for certain. */
  readonly certain: boolean;
}

/** Compares two versions of a table; columns are the same by their id, or by name where either has none. */
export function diffSchemas(before: TableSchema, after: TableSchema): SchemaDiff {
  const byId = before.id === after.id && hasIds(before) && hasIds(after);
  const identify = (column: ColumnSchema): number | string => (byId ? column.id! : column.name);
  const old = new Map(before.columns.map((column) => [identify(column), column]));
  const added: ColumnSchema[] = [];
  const kept: { before: ColumnSchema; after: ColumnSchema }[] = [];
  for (const column of after.columns) {
    const known = old.get(identify(column));
    if (known === undefined) added.push(column);
    else {
      kept.push({ before: known, after: column });
      old.delete(identify(column));
    }
  }
  const renamed = kept
    .filter((pair) => pair.before.name !== pair.after.name)
    .map((pair) => ({ from: pair.before.name, to: pair.after.name }));
  const newNames = new Map(kept.map((pair) => [pair.before.name, pair.after.name]));
  const oldKey = before.key.map((name) => newNames.get(name));
  const key = oldKey.length !== after.key.length || after.key.some((name, index) => oldKey[index] !== name);
  return { added, dropped: [...old.values()], renamed, kept, key, certain: byId };
}

function hasIds(table: TableSchema): boolean {
  return table.columns.every((column) => column.id !== undefined);
}

/** Whether nothing changed that a target has a form for. */
export function isEmptyDiff(diff: SchemaDiff): boolean {
  return (
    diff.added.length === 0 &&
    diff.dropped.length === 0 &&
    diff.renamed.length === 0 &&
    !diff.key &&
    diff.kept.every(
      ({ before, after }) =>
        before.type === after.type &&
        before.portable === after.portable &&
        before.notNull === after.notNull &&
        before.default === after.default &&
        before.collation === after.collation,
    )
  );
}

/** The change in a few words, without values. */
export function describeDiff({ added, dropped, renamed, kept, key }: SchemaDiff): string {
  const types = kept.filter((pair) => pair.before.type !== pair.after.type);
  const others = kept.filter(
    ({ before, after }) =>
      before.type === after.type && (before.notNull !== after.notNull || before.default !== after.default),
  );
  return [
    ...added.map((column) => `column ${column.name} is new`),
    ...dropped.map((column) => `column ${column.name} was dropped`),
    ...renamed.map(({ from, to }) => `column ${from} is now ${to}`),
    ...types.map((pair) => `column ${pair.after.name} was ${pair.before.type} and is ${pair.after.type}`),
    ...others.map((pair) => `column ${pair.after.name} has another default or may be NULL`),
    ...(key ? ['it has another key'] : []),
  ].join('; ');
}

/** Bytes of a name that are kept where something is added to it: Postgres cuts names off at 63, and says nothing. */
const KEPT_BYTES = 48;

/** A name that none of `taken` is, for a column that stays behind when its name is needed. */
export function spareName(name: string, taken: (name: string) => boolean): string {
  let kept = '';
  for (const character of name) {
    if (Buffer.byteLength(kept + character) > KEPT_BYTES) break;
    kept += character;
  }
  for (let n = 1; ; n++) {
    const spare = `${kept}_dropped${n === 1 ? '' : `_${n}`}`;
    if (!taken(spare)) return spare;
  }
}

/** Renames in an order in which no name is in the way; cycles go through a name that nothing has. */
export function orderRenames(renames: readonly Renamed[]): Renamed[] {
  const ordered: Renamed[] = [];
  let open = [...renames];
  while (open.length > 0) {
    const free = open.filter((rename) => !open.some((other) => other !== rename && other.from === rename.to));
    if (free.length > 0) {
      ordered.push(...free);
      open = open.filter((rename) => !free.includes(rename));
      continue;
    }
    const [first, ...rest] = open;
    const parked = `waybill_parked_${ordered.length}`;
    ordered.push({ from: first!.from, to: parked });
    open = [...rest, { from: parked, to: first!.to }];
  }
  return ordered;
}
