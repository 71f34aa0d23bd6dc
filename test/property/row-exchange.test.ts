/** Records that exchange rows: who gets which is what going over all of them until nothing changes would give. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { RowExchange, type RivalAt, type RowRequest } from '../../apply/outbound/row-exchange.ts';

interface Scene {
  readonly owners: ReadonlyMap<string, string>;
  readonly requests: ReadonlyMap<number, RowRequest>;
  /** By places: the row, and names that it had before. */
  readonly ids: ReadonlyMap<number, readonly string[]>;
  readonly failed: ReadonlySet<string>;
}

function rivals({ requests, ids }: Scene): RivalAt {
  const places = new Map([...requests].map(([place, { key }]) => [key, place]));
  return (place, owners, leaves) => {
    const { key } = requests.get(place)!;
    for (const id of ids.get(place)!) {
      const owner = owners.get(id);
      if (owner === undefined || owner === key) continue;
      const own = places.get(owner);
      // One that is not among them is no part of it, and keeps what it has.
      if (own === undefined || ids.get(own)!.includes(id) || !leaves(owner)) return owner;
    }
    return undefined;
  };
}

/** What is meant, by going over all of them again and again. */
function repeated(scene: Scene): { others: Map<number, string>; handedOn: Set<string> } {
  const rivalAt = rivals(scene);
  const staying = new Set(scene.failed);
  for (;;) {
    const now = new Map(scene.owners);
    const others = new Map<number, string>();
    const handedOn = new Set<string>();
    for (const [place, { key, rows }] of scene.requests) {
      const left: string[] = [];
      const other = rivalAt(place, now, (owner) => !staying.has(owner) && left.push(owner) > 0);
      if (other !== undefined) {
        others.set(place, other);
        continue;
      }
      for (const row of rows) now.set(row, key);
      for (const owner of left) handedOn.add(owner);
    }
    const more = [...others.keys()].map((place) => scene.requests.get(place)!.key).filter((key) => !staying.has(key));
    if (more.length === 0) return { others, handedOn };
    for (const key of more) staying.add(key);
  }
}

const record = fc.record({
  had: fc.option(fc.nat(9), { nil: undefined }),
  wants: fc.nat(9),
  former: fc.option(fc.nat(9), { nil: undefined }),
  fails: fc.boolean(),
});

function sceneOf(
  records: readonly { had: number | undefined; wants: number; former: number | undefined; fails: boolean }[],
  outsiders: readonly number[],
): Scene {
  const owners = new Map(outsiders.map((row) => [`r${row}`, `outside${row}`]));
  const requests = new Map<number, RowRequest>();
  const ids = new Map<number, readonly string[]>();
  const failed = new Set<string>();
  for (const [place, { had, wants, former, fails }] of records.entries()) {
    const key = `k${place}`;
    if (had !== undefined && !owners.has(`r${had}`)) owners.set(`r${had}`, key);
    if (had !== undefined && former !== undefined) owners.set(`former${former}`, key);
    if (fails) {
      failed.add(key);
      continue;
    }
    const row = `r${wants}`;
    if (owners.get(row) === key) continue;
    requests.set(place, { key, rows: [row] });
    ids.set(place, [row, ...(former === undefined ? [] : [`former${former}`])]);
  }
  return { owners, requests, ids, failed };
}

it('gives rows to whom going over all of them until nothing changes gives them', () => {
  fc.assert(
    fc.property(fc.array(record, { maxLength: 12 }), fc.array(fc.nat(9), { maxLength: 3 }), (records, outsiders) => {
      const scene = sceneOf(records, outsiders);
      const exchange = new RowExchange(scene.owners, scene.failed, rivals(scene));
      exchange.decide(scene.requests);
      const meant = repeated(scene);
      expect(new Set(exchange.others.keys())).toEqual(new Set(meant.others.keys()));
      expect(exchange.handedOn).toEqual(meant.handedOn);
      // Who is said to have the row of another one does.
      const owners = new Map(scene.owners);
      for (const [place, { key, rows }] of scene.requests)
        if (!exchange.others.has(place)) for (const row of rows) owners.set(row, key);
      for (const [place, other] of exchange.others)
        expect(scene.ids.get(place)!.map((id) => owners.get(id))).toContain(other);
    }),
    { numRuns: 3000 },
  );
});

it.each([
  ['another one holds', 2000],
  ['is free', 0],
])('asks little more than once for each of a chain of records whose end %s', (_, held) => {
  const owners = new Map(Array.from({ length: 2000 }, (_each, n) => [`r${n}`, `k${n}`]));
  if (held > 0) owners.set('r2000', 'outside');
  const requests = new Map<number, RowRequest>();
  for (let n = 0; n < 2000; n++) requests.set(n, { key: `k${n}`, rows: [`r${n + 1}`] });
  const ids = new Map([...requests].map(([place, { rows }]) => [place, rows]));
  const rivalAt = rivals({ owners, requests, ids, failed: new Set() });
  let asked = 0;
  const exchange = new RowExchange(owners, new Set(), (...args) => {
    asked += 1;
    return rivalAt(...args);
  });
  exchange.decide(requests);
  expect(exchange.others.size).toBe(held);
  expect(asked).toBeLessThanOrEqual(4000);
});
