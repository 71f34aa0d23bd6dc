import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compareGtidSets, GtidCursor } from '../../core/gtid-set.ts';
import type { MariadbGtid, MysqlGtid } from '../../core/gtid.ts';
import { MariadbGtidSet } from '../../core/mariadb-gtid-set.ts';
import { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';

const UUIDS = ['00000000-0000-0000-0000-00000000000a', 'f1bf8af1-e844-11f1-ba6d-02fc00000001'] as const;
const SOURCES = [UUIDS[0], UUIDS[1], `${UUIDS[0]}:a`, `${UUIDS[1]}:tag_1`] as const;

const mysqlGtid = fc.record({
  kind: fc.constant('mysql' as const),
  source: fc.constantFrom(...SOURCES),
  gno: fc.integer({ min: 1, max: 30 }),
});
const mysqlGtids = fc.array(mysqlGtid, { maxLength: 40 });
const mariadbGtid = fc.record({
  kind: fc.constant('mariadb' as const),
  domain: fc.integer({ min: 0, max: 3 }),
  server: fc.constantFrom(1, 2),
  seq: fc.integer({ min: 1, max: 20 }),
});
const mariadbGtids = fc.array(mariadbGtid, { maxLength: 12 });

/** The model: a set of texts. */
function model(gtids: readonly MysqlGtid[]): Set<string> {
  return new Set(gtids.map(({ source, gno }) => `${source}:${gno}`));
}

function build(gtids: readonly MysqlGtid[]): MysqlGtidSet {
  return gtids.reduce((set, gtid) => set.add(gtid), MysqlGtidSet.EMPTY);
}

function members(set: MysqlGtidSet): Set<string> {
  const all = new Set<string>();
  for (const source of SOURCES)
    for (let gno = 1; gno <= 30; gno++) if (set.contains({ kind: 'mysql', source, gno })) all.add(`${source}:${gno}`);
  return all;
}

describe('a GTID set of MySQL', () => {
  it('has the members that were added, and as many', () => {
    fc.assert(
      fc.property(mysqlGtids, (gtids) => {
        const set = build(gtids);
        expect(members(set)).toEqual(model(gtids));
        expect(set.size).toBe(model(gtids).size);
      }),
    );
  });

  it('has one text, whatever the order of adding, which reads back', () => {
    fc.assert(
      fc.property(mysqlGtids, (gtids) => {
        const set = build(gtids);
        expect(build(gtids.toReversed()).toString()).toBe(set.toString());
        expect(MysqlGtidSet.parse(set.toString())!.equals(set)).toBe(true);
        expect(MysqlGtidSet.parse(set.toString().toUpperCase().replaceAll(',', ',\n '))!.toString()).toBe(
          set.toString(),
        );
      }),
    );
  });

  it('survives its binary form', () => {
    fc.assert(
      fc.property(mysqlGtids, (gtids) => {
        const set = build(gtids);
        expect(MysqlGtidSet.decode(set.encode()).toString()).toBe(set.toString());
      }),
    );
  });

  it('follows the algebra of sets', () => {
    fc.assert(
      fc.property(mysqlGtids, mysqlGtids, (left, right) => {
        const [a, b] = [build(left), build(right)];
        const [ma, mb] = [model(left), model(right)];
        expect(members(a.union(b))).toEqual(new Set([...ma, ...mb]));
        expect(members(a.subtract(b))).toEqual(new Set([...ma].filter((member) => !mb.has(member))));
        expect(a.isSubset(b)).toBe([...ma].every((member) => mb.has(member)));
        expect(a.union(b).equals(b.union(a))).toBe(true);
        expect(a.subtract(b).union(b).equals(a.union(b))).toBe(true);
        expect(a.isSubset(a.union(b))).toBe(true);
        const [inside, around] = [a.isSubset(b), b.isSubset(a)];
        const order = inside && around ? 'equal' : inside ? 'subset' : around ? 'superset' : 'concurrent';
        expect(compareGtidSets(a, b)).toBe(order);
      }),
    );
  });

  it('is not changed by what is made of it', () => {
    fc.assert(
      fc.property(mysqlGtids, mysqlGtid, (gtids, more) => {
        const set = build(gtids);
        const text = set.toString();
        set.add(more);
        set.union(build([more]));
        const cursor = new GtidCursor(set);
        cursor.add(more);
        expect(set.toString()).toBe(text);
        expect(cursor.toSet().toString()).toBe(set.add(more).toString());
      }),
    );
  });

  it('grows along a log by a cursor as by adding', () => {
    fc.assert(
      fc.property(mysqlGtids, mysqlGtids, (start, gtids) => {
        const cursor = new GtidCursor(build(start));
        for (const gtid of gtids) cursor.add(gtid);
        expect(cursor.toSet().toString()).toBe(build([...start, ...gtids]).toString());
        expect(cursor.toSet()).toBe(cursor.toSet());
      }),
    );
  });
});

describe('a position of MariaDB', () => {
  const of = (gtids: readonly MariadbGtid[]): MariadbGtidSet =>
    gtids.reduce((set, gtid) => set.add(gtid), MariadbGtidSet.EMPTY);
  const highest = (gtids: readonly MariadbGtid[], domain: number): number =>
    Math.max(0, ...gtids.filter((gtid) => gtid.domain === domain).map(({ seq }) => seq));

  it('is the highest number of each domain', () => {
    fc.assert(
      fc.property(mariadbGtids, (gtids) => {
        const set = of(gtids);
        for (let domain = 0; domain <= 3; domain++) expect(set.last(domain)?.seq ?? 0).toBe(highest(gtids, domain));
        expect(MariadbGtidSet.parse(set.toString())!.toString()).toBe(set.toString());
        for (const gtid of gtids) expect(set.contains(gtid)).toBe(true);
      }),
    );
  });

  it('follows the same algebra', () => {
    fc.assert(
      fc.property(mariadbGtids, mariadbGtids, (left, right) => {
        const [a, b] = [of(left), of(right)];
        const domains = [0, 1, 2, 3];
        const inside = domains.every((domain) => highest(left, domain) <= highest(right, domain));
        const around = domains.every((domain) => highest(right, domain) <= highest(left, domain));
        const order = inside && around ? 'equal' : inside ? 'subset' : around ? 'superset' : 'concurrent';
        expect(compareGtidSets(a, b)).toBe(order);
        expect(a.union(b).compare(of([...left, ...right]))).toBe('equal');
        expect(a.isSubset(a.union(b))).toBe(true);
        expect(a.subtract(b).domains).toEqual(domains.filter((d) => highest(left, d) > highest(right, d)));
        const cursor = new GtidCursor(a);
        for (const gtid of right) cursor.add(gtid);
        expect(cursor.toSet().toString()).toBe(of([...left, ...right]).toString());
      }),
    );
  });
});
