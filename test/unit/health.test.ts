import { describe, expect, it } from 'vitest';
import { STALL_MS, StageHealth } from '../../monitoring/health.ts';

/** A stage whose clock the test moves. */
function stage(): { health: StageHealth; pass(ms: number): void } {
  let nowMs = 1000;
  return { health: new StageHealth('apply', 'copy', { now: () => nowMs }), pass: (ms) => void (nowMs += ms) };
}

describe('lag', () => {
  it('is unknown, idle or a number of seconds, and never a zero that was not measured', () => {
    const { health } = stage();
    expect(health.facts().lag).toEqual({ kind: 'unknown' });
    health.lag(0);
    expect(health.facts().lag).toEqual({ kind: 'idle' });
    health.lag(2.5);
    expect(health.facts().lag).toEqual({ kind: 'lagging', seconds: 2.5 });
    health.lag(undefined);
    expect(health.facts().lag).toEqual({ kind: 'unknown' });
  });

  it('grows while a stage that hangs says nothing', () => {
    const { health, pass } = stage();
    health.lag(2);
    pass(2000);
    expect(health.facts().lag).toEqual({ kind: 'lagging', seconds: 2 });
    pass(8000);
    expect(health.facts().lag).toEqual({ kind: 'lagging', seconds: 12 });
  });

  it('is unknown again when a stage that was idle says nothing any more', () => {
    const { health, pass } = stage();
    health.lag(0);
    pass(2000);
    expect(health.facts().lag).toEqual({ kind: 'idle' });
    pass(1000);
    expect(health.facts().lag).toEqual({ kind: 'unknown' });
  });

  it('is not idle any more when the stage cannot work', () => {
    const { health } = stage();
    health.lag(0);
    health.state('waiting', 'target_unreachable');
    expect(health.facts().lag).toEqual({ kind: 'unknown' });
  });
});

describe('readiness', () => {
  it('is progress: standing still makes a stage unready only while something is outstanding', () => {
    const { health, pass } = stage();
    health.state('idle');
    health.lag(0);
    pass(10 * STALL_MS);
    expect(health.facts().ready, 'idle for ever').toBe(true);
    health.lag(30);
    expect(health.facts()).toMatchObject({
      ready: false,
      reason: expect.stringMatching(/^no progress for 600 s/) as unknown,
    });
    health.moved(1);
    pass(STALL_MS);
    expect(health.facts().ready, 'lagging, but moving').toBe(true);
    pass(1);
    expect(health.facts().ready).toBe(false);
    health.position('0/1');
    expect(health.facts().ready).toBe(true);
  });

  it('is lost by a write that never ends, whatever was known of the lag before it', () => {
    const { health, pass } = stage();
    health.position('pg1/1');
    health.lag(0);
    health.state('applying');
    pass(STALL_MS + 1000);
    const { ready, reason } = health.facts();
    expect(ready).toBe(false);
    expect(reason).toMatch(/^no progress for 61 s, at pg1\/1; is a session of the target locked/);
    expect(health.stalledSeconds()).toBe(61);
  });

  it('is refused in every state that does not do the work, with the reason', () => {
    for (const state of ['starting', 'slot_missing', 'slot_lost', 'blocked', 'stopped', 'waiting']) {
      const { health } = stage();
      health.state(state, 'because');
      expect(health.facts()).toMatchObject({ ready: false, reason: `${state}: because`, detail: 'because' });
    }
    for (const state of ['standby', 'snapshot', 'streaming', 'applying', 'idle']) {
      const { health } = stage();
      health.state(state);
      expect(health.facts().ready, state).toBe(true);
      expect(health.facts()).not.toHaveProperty('reason');
    }
  });
});

describe('rows per second', () => {
  it('is the mean of the last five seconds', () => {
    const { health, pass } = stage();
    health.moved(5000);
    expect(health.facts()).toMatchObject({ rows: 5000, rowsPerSecond: 1000 });
    pass(4000);
    health.moved(5000);
    expect(health.facts()).toMatchObject({ rows: 10_000, rowsPerSecond: 2000 });
    pass(2000);
    expect(health.facts().rowsPerSecond).toBe(1000);
    pass(5000);
    expect(health.facts()).toMatchObject({ rows: 10_000, rowsPerSecond: 0 });
  });
});
