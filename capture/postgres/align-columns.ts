/**
 * Which columns those of a relation message are. They come in the order of their ids (attnum), and ids are never used twice, but
 * the message tells names and types alone: the version before it and the catalog, which may be ahead of the log, tell the ids.
 */
import { classifyTypeChange } from '../../core/type-widening.ts';
import type { CapturedTable, ColumnType } from './catalog.ts';
import type { RelationMessage } from './pgoutput.ts';

export interface Alignment {
  readonly ids: readonly (number | undefined)[];
  /** False where they could be others: columns may have been renamed or replaced without a way to tell. */
  readonly sure: boolean;
}

/** What tells for a column to be the one of an id, and against it. */
const SAME_NAME = 4;
const SAME_TYPE = 3;
const WIDER_TYPE = 2;
const NARROWER_TYPE = -5;
const UNKNOWN_TYPE = 1;
/** It was there before the version before, and is in neither. */
const LONG_GONE = -1;
/** Both versions have it, and the message not: only where what is known is ahead of the log. */
const PASSED_OVER = -6;

type Column = RelationMessage['columns'][number];

/** What a message is compared with. */
export interface Around {
  /** The version before it; `isAhead` where it was stored by a process that had come further in the log. */
  readonly known: CapturedTable | undefined;
  readonly isAhead: boolean;
  /** The table as it is by now, perhaps after further changes; undefined: not there any more. */
  readonly catalog: CapturedTable | undefined;
  /** How many columns it has had by now, with those that are dropped. */
  readonly width: number;
  /** False where the catalog may still be as before the message. */
  readonly hasCome: boolean;
}

/** `types` are those of the message. */
export function alignColumns(
  relation: RelationMessage,
  around: Around,
  types: readonly (ColumnType | undefined)[],
): Alignment {
  const versions = new Versions(around);
  const only = around.hasCome
    ? onlyWay(relation.columns.length, around)
    : !around.isAhead && versions.isKnown(relation)
      ? versions.knownIds
      : undefined;
  if (only !== undefined) return { ids: only, sure: true };
  const named = versions.byNames(relation.columns.map(({ name }) => name));
  const isLikely = relation.columns.every((column, index) => versions.mayBe(column, types[index], named[index]));
  return { ids: isLikely ? named : versions.likeliest(relation.columns, types), sure: false };
}

/** Ids of the first columns of a message, from the last one back. */
interface Way {
  readonly id: number;
  readonly before: Way | undefined;
}

/**
 * The ids of so many columns where only one choice of them can be true; undefined where there are more, or none. Ids that the
 * version before has left behind never come again, and what the catalog has was there ever since it was added. Names and
 * types tell nothing: within a moment a column may have got the name of another.
 */
function onlyWay(count: number, { known, isAhead, catalog, width }: Around): number[] | undefined {
  if (catalog === undefined) return undefined;
  const tellsAll = !isAhead && idsOf(known).every((id) => id > 0);
  const before = new Set(tellsAll ? idsOf(known) : []);
  const lastBefore = tellsAll ? widthOf(known) : 0;
  const now = new Set(idsOf(catalog));
  // By how many of the columns have their ids; `several` where there is more than one way to that.
  let ways: ({ readonly way: Way | undefined; readonly several: boolean } | undefined)[] = [
    { way: undefined, several: false },
  ];
  for (let id = 1; id <= Math.max(width, ...now); id++) {
    const isOld = id <= lastBefore;
    // A column that both versions lack may have been a generated one, of which messages do not tell.
    const mayBePassed = !now.has(id) || (isOld && !before.has(id));
    const mayBeTaken = now.has(id) || !isOld || before.has(id);
    const next: typeof ways = [];
    const add = (at: number, way: Way | undefined, several: boolean): void => {
      next[at] = next[at] === undefined ? { way, several } : { ...next[at], several: true };
    };
    for (const [taken, state] of ways.entries()) {
      if (state === undefined) continue;
      if (taken < count && mayBeTaken) add(taken + 1, { id, before: state.way }, state.several);
      // Behind the last one of the message are those that were added later.
      if (mayBePassed || (taken === count && !isOld)) add(taken, state.way, state.several);
    }
    ways = next;
  }
  const end = ways[count];
  if (end === undefined || end.several) return undefined;
  const ids: number[] = [];
  for (let { way } = end; way !== undefined; way = way.before) ids.unshift(way.id);
  return ids;
}

function idsOf(table: CapturedTable | undefined): number[] {
  return (table?.schema.columns ?? []).map(({ id }) => id ?? 0);
}

/** How many columns a version had had at its place in the log, as far as is known. */
export function widthOf(table: CapturedTable | undefined): number {
  return table?.width ?? Math.max(0, ...idsOf(table));
}

/** The version before and the catalog, their columns by id. */
class Versions {
  readonly #sides: readonly (CapturedTable | undefined)[];
  /** Positions of the columns on each side. */
  readonly #indexes: readonly ReadonlyMap<number, number>[];
  readonly #lastKnown: number;
  /** All ids that a column can have, in their order. */
  readonly #candidates: readonly number[];

  constructor({ known, catalog, width }: Around) {
    this.#sides = [known, catalog];
    this.#indexes = this.#sides.map((side) => new Map(idsOf(side).map((id, index) => [id, index] as const)));
    this.#lastKnown = Math.max(0, ...this.#indexes[0]!.keys());
    const last = Math.max(this.#lastKnown, width, ...this.#indexes[1]!.keys());
    this.#candidates = Array.from({ length: last }, (_, index) => index + 1);
  }

  get knownIds(): (number | undefined)[] {
    return this.#sides[0]?.schema.columns.map(({ id }) => id) ?? [];
  }

  /** Whether a message has the very columns of the version before. */
  isKnown({ columns }: RelationMessage): boolean {
    const known = this.#sides[0];
    return (
      known?.schema.columns.length === columns.length &&
      columns.every(({ name, typeOid, typmod }, index) => {
        const [oid, modifier] = known.types[index]!;
        return known.schema.columns[index]!.name === name && oid === typeOid && modifier === typmod;
      })
    );
  }

  /** By names alone; undefined where a name tells nothing. */
  byNames(names: readonly string[]): (number | undefined)[] {
    const [known, catalog] = this.#sides.map((side) => side?.schema.columns);
    for (const columns of [known, catalog])
      if (columns?.length === names.length && columns.every((column, index) => column.name === names[index]))
        return columns.map((column) => column.id);
    const [before, now] = [known, catalog].map((columns) => new Map(columns?.map(({ name, id }) => [name, id])));
    const ids = names.map((name) => {
      const [a, b] = [before!.get(name), now!.get(name)];
      // A name that stands for another column by now says nothing.
      return a !== undefined && b !== undefined && a !== b ? undefined : (a ?? b);
    });
    const isInOrder = ids.every((id, index) => index === 0 || id === undefined || id > (ids[index - 1] ?? 0));
    return isInOrder ? ids : names.map(() => undefined);
  }

  /** Whether there is no doubt that a column is the one of this id, which its name told. */
  mayBe(column: Column, type: ColumnType | undefined, id: number | undefined): boolean {
    if (id === undefined) return false;
    const names = this.#names(id);
    return names.every((name) => name === column.name) || this.#typeScore(column, type, id) > 0;
  }

  #names(id: number): (string | undefined)[] {
    return this.#sides.map((side, at) => side?.schema.columns[this.#indexes[at]!.get(id) ?? -1]?.name);
  }

  /** How well the type of a column of the message fits to come after the version before, and before the catalog. */
  #typeScore({ typeOid, typmod }: Column, type: ColumnType | undefined, id: number): number {
    const scores = this.#sides.flatMap((side, at) => {
      const index = this.#indexes[at]!.get(id);
      if (side === undefined || index === undefined) return [];
      const [oid, modifier] = side.types[index]!;
      if (oid === typeOid && modifier === typmod) return [SAME_TYPE];
      if (type === undefined) return [UNKNOWN_TYPE];
      const other = side.schema.columns[index]!.type;
      const [from, to] = at === 0 ? [other, type.type] : [type.type, other];
      return [classifyTypeChange(from, to) === 'narrower' ? NARROWER_TYPE : WIDER_TYPE];
    });
    return scores.length === 0 ? 0 : Math.max(...scores);
  }

  #score(column: Column, type: ColumnType | undefined, id: number): number {
    if (!this.#indexes.some((indexes) => indexes.has(id))) return id < this.#lastKnown ? LONG_GONE : 0;
    return (this.#names(id).includes(column.name) ? SAME_NAME : 0) + this.#typeScore(column, type, id);
  }

  /** The ids in their order for which most tells. */
  likeliest(columns: readonly Column[], types: readonly (ColumnType | undefined)[]): (number | undefined)[] {
    const candidates = this.#candidates;
    const spare = candidates.length - columns.length;
    if (spare < 0) return columns.map(() => undefined);
    // Of the first columns, and with so many ids passed over: the best sum, and whether the last id was passed over for it.
    const best: { readonly sum: number; readonly passed: boolean }[][] = [];
    for (let count = 0; count <= columns.length; count++) {
      const row: { sum: number; passed: boolean }[] = [];
      best.push(row);
      for (let passed = 0; passed <= spare; passed++) {
        const id = candidates[count + passed - 1]!;
        const isInBoth = this.#indexes.every((indexes) => indexes.has(id));
        const over = passed === 0 ? -Infinity : row[passed - 1]!.sum + (isInBoth ? PASSED_OVER : 0);
        const last = count - 1;
        const taken = count === 0 ? -Infinity : best[last]![passed]!.sum + this.#score(columns[last]!, types[last], id);
        row.push(
          count + passed === 0 ? { sum: 0, passed: false } : { sum: Math.max(over, taken), passed: over > taken },
        );
      }
    }
    const ids: number[] = [];
    for (let count = columns.length, passed = spare; count > 0;)
      if (best[count]![passed]!.passed) passed -= 1;
      else ids[(count -= 1)] = candidates[count + passed]!;
    return ids;
  }
}
