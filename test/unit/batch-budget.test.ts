import { describe, expect, it } from 'vitest';
import { BatchBudget } from '../../apply/batch-budget.ts';

const MB = 1 << 20;

describe('the bytes of a batch', () => {
  it('begin small, and grow as long as later rows stand for earlier ones', () => {
    const budget = new BatchBudget(16 * MB);
    expect(budget.bytes).toBe(4 * MB);
    for (const expected of [8, 16, 16]) {
      budget.note({ bytes: budget.bytes, ms: 900, netShare: 0.3 });
      expect(budget.bytes).toBe(expected * MB);
    }
  });

  it('grow for rows that are all written only as far as they are written within a moment', () => {
    const budget = new BatchBudget(16 * MB);
    budget.note({ bytes: 4 * MB, ms: 125, netShare: 1 });
    expect(budget.bytes).toBe(8 * MB);
    budget.note({ bytes: 8 * MB, ms: 200, netShare: 1 });
    expect(budget.bytes).toBe(10 * MB);
    budget.note({ bytes: 10 * MB, ms: 500, netShare: 1 });
    expect(budget.bytes).toBe(5 * MB);
    budget.note({ bytes: 5 * MB, ms: 5000, netShare: 1 });
    expect(budget.bytes).toBe(4 * MB);
  });

  it('stay as they are behind batches that are far from full', () => {
    const budget = new BatchBudget(16 * MB);
    budget.note({ bytes: 1000, ms: 3, netShare: 1 });
    budget.note({ bytes: 1000, ms: 3, netShare: 0.5 });
    budget.note({ bytes: 1000, ms: 3, netShare: undefined });
    expect(budget.bytes).toBe(4 * MB);
  });

  it('never exceed what memory allows', () => {
    const budget = new BatchBudget(2 * MB);
    expect(budget.bytes).toBe(2 * MB);
    budget.note({ bytes: 2 * MB, ms: 10, netShare: 0.1 });
    budget.note({ bytes: 2 * MB, ms: 10_000, netShare: 1 });
    expect(budget.bytes).toBe(2 * MB);
  });
});
