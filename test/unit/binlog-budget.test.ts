import { describe, expect, it } from 'vitest';
import { BinlogBudget, type LogFile } from '../../capture/mysql/retained-log.ts';

const files = (...bytes: number[]): LogFile[] =>
  bytes.map((size, i) => ({ name: `binlog.00000${i + 1}`, bytes: size }));
const reading = (readingFile: string, lagSeconds = 0): { readingFile: string; lagSeconds: number } => ({
  readingFile,
  lagSeconds,
});

describe('the budget of a binary log', () => {
  it('is the time that files are kept, less the age of what is unread', () => {
    const budget = new BinlogBudget();
    const expiry = { seconds: 3600, totalBytes: undefined };
    expect(budget.observe(0, files(100), expiry, reading('binlog.000001'))).toBe(3600);
    expect(budget.observe(1000, files(100), expiry, reading('binlog.000001', 600))).toBe(3000);
    expect(budget.observe(2000, files(100), expiry, reading('binlog.000001', 7200))).toBe(0);
  });

  it('is not known where nothing is ever removed', () => {
    const expiry = { seconds: undefined, totalBytes: undefined };
    const budget = new BinlogBudget();
    for (let s = 0; s < 60; s += 10)
      expect(budget.observe(s * 1000, files(100 + s), expiry, reading('binlog.000001'))).toBeUndefined();
  });

  it('counts down to the size that a log may have, at the rate at which it grows', () => {
    const budget = new BinlogBudget();
    const expiry = { seconds: undefined, totalBytes: 10_000 };
    expect(budget.observe(0, files(1000), expiry, reading('binlog.000001'))).toBeUndefined();
    // 1,500 bytes in 15 s, over a rotation and the removal of the first file.
    expect(budget.observe(10_000, files(1500, 500), expiry, reading('binlog.000001'))).toBe(80);
    expect(budget.observe(15_000, files(1500, 1000).slice(1), expiry, reading('binlog.000002'))).toBe(90);
  });

  it('is the sooner of age and size', () => {
    const budget = new BinlogBudget();
    const expiry = { seconds: 50, totalBytes: 10_000 };
    budget.observe(0, files(1000), expiry, reading('binlog.000001'));
    expect(budget.observe(10_000, files(2000), expiry, reading('binlog.000001'))).toBe(50);
  });
});
