/** Merge functions: commutative, associative and idempotent, so the order in which sources arrive does not matter. */
import { compareTexts } from '../mapping/evaluate.ts';

/** A source's newest values of a group, and when it wrote them. */
export interface Candidate {
  readonly source: string;
  readonly timeUs: number;
  readonly values: readonly (string | null)[];
}

/** Last writer wins: by commit time, then by the name of the source. */
export function lastWriter<C extends Candidate>(candidates: readonly C[]): C | undefined {
  return best(candidates, (a, b) => a.timeUs - b.timeUs);
}

/** The candidate whose (only) value is the largest or the smallest; absent values lose. */
export function extreme<C extends Candidate>(candidates: readonly C[], sign: 1 | -1): C | undefined {
  return best(present(candidates), (a, b) => sign * compareTexts(a.values[0]!, b.values[0]!));
}

/** The candidate whose word stands last in `order`; words that do not stand there lose. */
export function highestRank<C extends Candidate>(candidates: readonly C[], order: readonly string[]): C | undefined {
  return best(present(candidates), (a, b) => order.indexOf(a.values[0]!) - order.indexOf(b.values[0]!));
}

/** The members of all lists, each once, sorted; null when there are none. */
export function unionOf(candidates: readonly Candidate[]): string | null {
  const members = new Map<string, unknown>();
  for (const { values } of candidates) {
    const list: unknown = values[0] === null ? [] : JSON.parse(values[0]!);
    for (const member of Array.isArray(list) ? (list as unknown[]) : [list])
      members.set(JSON.stringify(member), member);
  }
  if (members.size === 0) return null;
  return JSON.stringify([...members.keys()].toSorted().map((key) => members.get(key)));
}

function present<C extends Candidate>(candidates: readonly C[]): C[] {
  return candidates.filter(({ values }) => values[0] !== null);
}

/** The greatest by `compare`; of equals the one whose source has the greatest name. */
function best<C extends Candidate>(candidates: readonly C[], compare: (a: C, b: C) => number): C | undefined {
  let found: C | undefined;
  for (const candidate of candidates) {
    const order = found === undefined ? 1 : compare(candidate, found);
    if (order > 0 || (order === 0 && candidate.source > found!.source)) found = candidate;
  }
  return found;
}
