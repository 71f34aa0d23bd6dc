/** What a resolver knows of one record. */
import type { Lineage } from '../canonical/envelope.ts';
import type { Dated } from '../moment.ts';
import type { Contribution } from './contribution.ts';
import { SharedCounter } from './counter.ts';

export interface Entry extends Dated {
  /** Key of the record as one text. */
  readonly key: string;
  /** Those of one source in the order of its blocks, of which the first counts. Few: one for each block of each source. */
  contributions: Contribution[];
  /** By number of the group; absent until a counter of one is needed. */
  counters: Map<number, SharedCounter> | undefined;
  /** As it was given last; undefined while the record is not there. Changed in place: whoever keeps it copies it. */
  given: (string | null)[] | undefined;
  /** Of the newest change among the values that count. */
  lineage: Lineage | undefined;
  /** Who knows it; undefined once it has been forgotten. */
  keeper: object | undefined;
  /** While a flush is taken: the last change of it that touches the record. */
  touched: Lineage | undefined;
}

/** The entry as it is now. Lineages are shared: they are never changed in place. */
export function copyEntry({ contributions, counters, given, ...entry }: Entry): Entry {
  return {
    ...entry,
    given: given?.slice(),
    contributions: contributions.map((item) => ({
      ...item,
      values: item.values.slice(),
      lineage: item.lineage.slice(),
      claims: item.claims === undefined ? undefined : new Map(item.claims),
    })),
    counters:
      counters === undefined
        ? undefined
        : new Map([...counters].map(([group, counter]) => [group, SharedCounter.restore(counter.save())])),
  };
}
