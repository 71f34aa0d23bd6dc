import { describe, expect, it } from 'vitest';
import { PgSnapshot } from '../../core/pg-snapshot.ts';

describe('a snapshot of Postgres', () => {
  it.each([
    ['10:20:10,12', [10, 12, 20, 21, 2_000_000_000], [9, 11, 13, 19, 4_294_967_290]],
    ['20:20:', [20, 21], [19, 3]],
    // The second round of ids.
    ['4294967306:4294967316:4294967306', [10, 20, 25], [9, 11, 19, 4_294_967_290]],
    ['4294967290:4294967300:4294967295', [4_294_967_295, 4, 5], [4_294_967_290, 4_294_967_294, 3]],
    // Ids of no transaction, beside one that is far away.
    ['3000000000:3000000000:', [3_000_000_000, 4_000_000_000, 3, 100], [0, 1, 2, 2_999_999_999]],
  ])('%s does not see %j, and sees %j', (text, unseen, seen) => {
    const snapshot = PgSnapshot.parse(text);
    expect(unseen.filter((xid) => !snapshot.has(xid))).toEqual([]);
    expect(seen.filter((xid) => snapshot.has(xid))).toEqual([]);
  });
});
