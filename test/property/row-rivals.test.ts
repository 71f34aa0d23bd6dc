/** Who keeps whom from a row: rings and groups are what going over all ways gives. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RowRivals } from '../../apply/outbound/row-rivals.ts';

const KEYS = Array.from({ length: 10 }, (_, n) => `k${n}`);
const edges = fc.array(fc.tuple(fc.nat(9), fc.nat(9)), { maxLength: 24 });

function rivalsOf(pairs: readonly (readonly [number, number])[]): RowRivals {
  const rivals = new RowRivals();
  for (const [key, rival] of pairs) rivals.note(`k${key}`, `k${rival}`);
  return rivals;
}

/** All that there is a way to from each key, over `ways`. */
function reached(ways: readonly (readonly [string, string])[]): Map<string, Set<string>> {
  const all = new Map(KEYS.map((key) => [key, new Set([key])]));
  for (let before = -1, size = 0; size !== before;) {
    for (const [from, to] of ways) for (const set of all.values()) if (set.has(from)) set.add(to);
    before = size;
    size = [...all.values()].reduce((sum, set) => sum + set.size, 0);
  }
  return all;
}

const sorted = (groups: readonly (readonly string[])[]): string[] =>
  groups.map((group) => group.toSorted().join()).toSorted();

describe('rings', () => {
  it('are those who want rows of each other and of nobody else, from where one looks', () => {
    const some = fc.subarray(KEYS);
    fc.assert(
      fc.property(edges, some, some, (pairs, waiting, from) => {
        const waits = new Set(waiting);
        const named = pairs.map(([key, rival]) => [`k${key}`, `k${rival}`] as const);
        const ways = reached(named.filter(([key]) => waits.has(key)));
        const rings = new Set<string>();
        for (const key of from.flatMap((start) => [...ways.get(start)!])) {
          const ring = KEYS.filter((other) => ways.get(key)!.has(other) && ways.get(other)!.has(key));
          if (ring.length > 1 && ways.get(key)!.size === ring.length) rings.add(ring.toSorted().join());
        }
        expect(sorted(rivalsOf(pairs).ringsFrom(from, waits))).toEqual([...rings].toSorted());
      }),
      { numRuns: 3000 },
    );
  });

  it('are found at the end of a way of any length', () => {
    const rivals = new RowRivals();
    const keys = Array.from({ length: 100_000 }, (_, n) => `k${n}`);
    for (let n = 1; n < keys.length; n++) rivals.note(keys[n - 1]!, keys[n]!);
    rivals.note(keys.at(-1)!, keys.at(-3)!);
    expect(rivals.ringsFrom(keys.slice(0, 2), new Set(keys)).map((ring) => ring.length)).toEqual([3]);
    rivals.forget([keys.at(-2)!]);
    expect(rivals.ringsFrom(keys, new Set(keys))).toEqual([]);
  });
});

it('groups are those among whom somebody wants a row of another one, each in the order of the list', () => {
  fc.assert(
    fc.property(edges, fc.shuffledSubarray(KEYS), (pairs, list) => {
      const among = pairs
        .map(([key, rival]) => [`k${key}`, `k${rival}`] as const)
        .filter(([key, rival]) => list.includes(key) && list.includes(rival));
      const ways = reached(among.flatMap(([a, b]) => [[a, b] as const, [b, a] as const]));
      const meant = new Set(list.map((key) => list.filter((other) => ways.get(key)!.has(other)).join()));
      expect(
        rivalsOf(pairs)
          .groupsOf(list)
          .map((group) => group.join()),
      ).toEqual([...meant]);
    }),
    { numRuns: 3000 },
  );
});
