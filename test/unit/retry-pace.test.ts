import { describe, expect, it } from 'vitest';
import { RetryPace } from '../../apply/outbound/retry-pace.ts';

describe('records that wait', () => {
  it('are tried at first at once, later every five seconds, and at once again when something has helped', () => {
    const pace = new RetryPace();
    expect(pace.waitMs(1000)).toBeUndefined();
    pace.failed(1000);
    const pauses: number[] = [];
    let nowMs = 1000;
    for (let n = 0; n < 9; n++) {
      const waitMs = pace.waitMs(nowMs)!;
      pauses.push(waitMs);
      nowMs += waitMs;
      pace.tried(nowMs, nowMs, n === 7);
    }
    expect(pauses).toEqual([50, 100, 200, 400, 800, 1600, 3200, 5000, 50]);
    pace.done();
    expect(pace.waitMs(nowMs)).toBeUndefined();
  });

  it('are not put off by others that fail, however often', () => {
    const pace = new RetryPace();
    pace.failed(0);
    for (let nowMs = 18; nowMs < 1000; nowMs += 18) pace.failed(nowMs);
    expect(pace.waitMs(1000)).toBe(0);
  });

  it('are tried soon again when another one begins to wait', () => {
    const pace = new RetryPace();
    pace.failed(0);
    for (let n = 0; n < 10; n++) pace.tried(100, 100, false);
    expect(pace.waitMs(100)).toBe(5000);
    pace.failed(200);
    expect(pace.waitMs(200)).toBe(50);
  });

  it('take no more than half of the time, however many they are and however often others fail', () => {
    const pace = new RetryPace();
    pace.failed(0);
    pace.tried(50, 2050, true);
    pace.failed(2060);
    expect(pace.waitMs(2060)).toBe(1990);
  });
});
