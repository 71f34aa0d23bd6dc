import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { TransactionEntry } from '../../core/frame.ts';
import { gtidPosition, readName, type GtidPosition } from '../../core/gtid-position.ts';
import { GtidCursor } from '../../core/gtid-set.ts';
import { formatGtid, type Gtid } from '../../core/gtid.ts';
import { MariadbGtidSet } from '../../core/mariadb-gtid-set.ts';
import { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';
import {
  comparePositions,
  entryLiesBefore,
  entryPosition,
  formatPosition,
  orderPositions,
  ORIGIN,
  parsePosition,
  pgPosition,
  positionAfter,
} from '../../core/position.ts';

const UUIDS = ['3e11fa47-71ca-11e1-9e33-c80aa9429562', '3e11fa47-71ca-11e1-9e33-c80aa9429563:tag'];

type Step =
  | { readonly kind: 'group'; readonly source: number; readonly rows: number; readonly cutAt: number }
  | { readonly kind: 'read' };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant('group' as const),
    source: fc.nat(1),
    rows: fc.integer({ min: 1, max: 9 }),
    cutAt: fc.nat(9),
  }),
  fc.constant({ kind: 'read' as const }),
);

interface Place {
  readonly position: GtidPosition;
  /** The entry whose rows end here. */
  readonly entry: TransactionEntry;
}

/** What a stream holds after each part of a random history of groups and reads. */
function history(kind: 'mysql' | 'mariadb', steps: readonly Step[]): Place[] {
  const cursor = new GtidCursor(kind === 'mysql' ? MysqlGtidSet.EMPTY : MariadbGtidSet.EMPTY);
  const counters = [0, 0];
  let reads = 0;
  const places: Place[] = [];
  for (const one of steps) {
    if (one.kind === 'read') {
      reads += 1;
      const name = readName(reads);
      places.push({
        position: gtidPosition(cursor.toSet(), reads),
        entry: [0, name, name, 0, 1, 'whole', 0],
      });
      continue;
    }
    const gno = (counters[one.source] = counters[one.source]! + 1);
    const gtid: Gtid =
      kind === 'mysql'
        ? { kind, source: UUIDS[one.source]!, gno }
        : { kind, domain: one.source, server: 1 + (gno % 3), seq: gno };
    const name = formatGtid(gtid);
    const cut = one.cutAt > 0 && one.cutAt < one.rows ? one.cutAt : 0;
    if (cut > 0)
      places.push({
        position: gtidPosition(cursor.toSet(), reads, { gtid, ordinal: cut }),
        entry: [0, name, name, 0, cut, 'first', 0],
      });
    cursor.add(gtid);
    places.push({
      position: gtidPosition(cursor.toSet(), reads),
      entry: [0, name, name, 0, one.rows - cut, cut > 0 ? 'last' : 'whole', cut],
    });
  }
  return places;
}

describe.each(['mysql', 'mariadb'] as const)('positions of %s', (kind) => {
  it('survive their text, and order as the stream does', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 12 }), (steps) => {
        const places = history(kind, steps);
        for (const [i, { position: a }] of places.entries()) {
          expect(parsePosition(formatPosition(a))).toEqual(a);
          expect(comparePositions(ORIGIN, a)).toBe(-1);
          for (const [j, { position: b }] of places.entries())
            expect(comparePositions(a, b)).toBe(Math.sign(i - j) as -1 | 0 | 1);
        }
      }),
    );
  });

  it('say of every part of a frame whether it lies before', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 12 }), (steps) => {
        const places = history(kind, steps);
        for (const [i, { position }] of places.entries())
          for (const [j, { entry }] of places.entries()) expect(entryLiesBefore(entry, position)).toBe(j <= i);
      }),
    );
  });

  it('are what one comes to by the transactions of a frame', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 12 }), fc.nat(11), (steps, from) => {
        const places = history(kind, steps);
        const start = places[Math.min(from, places.length - 1)]!;
        const rest = places.slice(places.indexOf(start) + 1);
        for (const [index, { entry, position }] of rest.entries())
          if (entry[5] !== 'first')
            expect(
              positionAfter(
                start.position,
                rest.map((place) => place.entry),
                index,
              ),
            ).toEqual(position);
      }),
    );
  });
});

describe('positions of two histories', () => {
  const set = (text: string): GtidPosition => gtidPosition(MysqlGtidSet.parse(text)!);
  const [a, b] = [set(`${UUIDS[0]}:1-5`), set(`${UUIDS[0]}:1-3:7`)];

  it('have no order, which is an error of its own', () => {
    expect(orderPositions(a, b)).toBeUndefined();
    expect(() => comparePositions(a, b)).toThrow(expect.objectContaining({ code: 'source_diverged' }) as Error);
  });

  it('have no order inside of different transactions', () => {
    const open = (gno: number): GtidPosition =>
      gtidPosition(a.gtids, 0, { gtid: { kind: 'mysql', source: UUIDS[0]!, gno }, ordinal: 3 });
    expect(orderPositions(open(6), open(7))).toBeUndefined();
    expect(orderPositions(open(6), set(`${UUIDS[0]}:1-6`))).toBe(-1);
    expect(orderPositions(open(6), set(`${UUIDS[0]}:1-5:8`))).toBeUndefined();
  });

  it('of different kinds are refused', () => {
    expect(() => comparePositions(a, pgPosition(5n))).toThrow(
      expect.objectContaining({ code: 'source_identity_mismatch' }) as Error,
    );
    expect(() => comparePositions(a, gtidPosition(MariadbGtidSet.parse('0-1-5')!))).toThrow(
      expect.objectContaining({ code: 'source_identity_mismatch' }) as Error,
    );
  });

  it('find the place of a row between them', () => {
    const place = entryPosition([0, `${UUIDS[0]}:6`, '', 0, 1, 'whole', 0], 1);
    expect(comparePositions(a, place)).toBe(-1);
    expect(comparePositions(place, set(`${UUIDS[0]}:1-6`))).toBe(-1);
  });

  it.each(['my1/x/0', 'my1//', 'my1//0/0-1-5/3', 'ma1/0-1-5/0/u:1/2', 'my1//0/x'])('%s is no position', (text) => {
    expect(parsePosition(text)).toBeUndefined();
  });
});
