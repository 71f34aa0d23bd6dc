/**
 * Which columns those of a relation message are. They come in the order of their ids (attnum), and ids are never used twice, but
 * the message tells names and types alone: the version before it and the catalog, which may be ahead of the log, tell the ids.
 */
import { classifyTypeChange } from '../../core/type-widening.ts';
import type { CapturedTable, ColumnType } from './catalog.ts';
import type { RelationMessage } from './pgoutput.ts';

export interface Alignment {
  readonly ids: readonly (number | undefined)[];
  /** False where columns could have been renamed or replaced without a way to tell. */
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

/** `types` are those of the message; `known` is the version before, `catalog` the table as it is by now. */
export function alignColumns(
  relation: RelationMessage,
  known: CapturedTable | undefined,
  catalog: CapturedTable | undefined,
  types: readonly (ColumnType | undefined)[],
): Alignment {
  const versions = new Versions(known, catalog);
  const named = versions.byNames(relation.columns.map(({ name }) => name));
  const isPlain = relation.columns.every((column, index) => versions.mayBe(column, types[index], named.ids[index]));
  if (isPlain) return named;
  // Where the message has all columns that there can be, their order tells.
  if (versions.candidates.length === relation.columns.length) return { ids: versions.candidates, sure: true };
  return { ids: versions.likeliest(relation.columns, types), sure: false };
}

/** The version before and the catalog, their columns by id. */
class Versions {
  readonly #sides: readonly (CapturedTable | undefined)[];
  /** Positions of the columns on each side. */
  readonly #indexes: readonly ReadonlyMap<number, number>[];
  readonly #lastKnown: number;
  /** All ids that a column can have, in their order. */
  readonly candidates: readonly number[];

  constructor(known: CapturedTable | undefined, catalog: CapturedTable | undefined) {
    this.#sides = [known, catalog];
    this.#indexes = this.#sides.map(
      (side) => new Map(side?.schema.columns.map(({ id }, index) => [id ?? 0, index] as const)),
    );
    this.#lastKnown = Math.max(0, ...this.#indexes[0]!.keys());
    const width = Math.max(this.#lastKnown, catalog?.written?.width ?? 0, ...this.#indexes[1]!.keys());
    this.candidates = Array.from({ length: width }, (_, index) => index + 1);
  }

  /** By names alone; undefined where a name tells nothing. */
  byNames(names: readonly string[]): Alignment {
    const [known, catalog] = this.#sides.map((side) => side?.schema.columns);
    for (const columns of [known, catalog])
      if (columns?.length === names.length && columns.every((column, index) => column.name === names[index]))
        return { ids: columns.map((column) => column.id), sure: columns === catalog || !this.#sharesNames() };
    const [before, now] = [known, catalog].map((columns) => new Map(columns?.map(({ name, id }) => [name, id])));
    const ids = names.map((name) => {
      const [a, b] = [before!.get(name), now!.get(name)];
      // A name that stands for another column by now says nothing.
      return a !== undefined && b !== undefined && a !== b ? undefined : (a ?? b);
    });
    const isInOrder = ids.every((id, index) => index === 0 || id === undefined || id > (ids[index - 1] ?? 0));
    return isInOrder ? { ids, sure: true } : { ids: names.map(() => undefined), sure: false };
  }

  /** Whether a name stands for one column in one version and for another in the other. */
  #sharesNames(): boolean {
    const [known, catalog] = this.#sides;
    const ids = new Map(known?.schema.columns.map((column) => [column.name, column.id]));
    return catalog?.schema.columns.some(({ name, id }) => ids.has(name) && ids.get(name) !== id) ?? false;
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
    const { candidates } = this;
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
