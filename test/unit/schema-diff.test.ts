import { describe, expect, it } from 'vitest';
import { spareName } from '../../apply/schema-diff.ts';

describe('a name for a column that stays behind', () => {
  it.each(['qty', '在庫数量の合計'.repeat(5), '🚚'.repeat(20), 'é'.repeat(63)])(
    'of %s is whole in every database',
    (name) => {
      const taken = new Set<string>();
      for (let n = 0; n < 12; n++) {
        const spare = spareName(name, (each) => taken.has(each));
        expect(Buffer.byteLength(spare)).toBeLessThanOrEqual(63);
        expect(spare).toMatch(/^.+_dropped(?:_\d+)?$/u);
        expect(name.startsWith(spare.slice(0, spare.indexOf('_dropped')))).toBe(true);
        taken.add(spare);
      }
      expect(taken.size).toBe(12);
    },
  );
});
