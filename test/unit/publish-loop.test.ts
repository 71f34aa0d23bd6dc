/** What a capture says of its lag. */
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { PendingFrame } from '../../capture/frame-filler.ts';
import { PublishLoop, type FrameSource } from '../../capture/publish-loop.ts';
import type { FramePublisher } from '../../core/frame-publisher.ts';
import { pgPosition, type PgPosition } from '../../core/position.ts';
import { Metrics } from '../../monitoring/metrics.ts';

beforeEach(() => void vi.useFakeTimers({ toFake: ['Date', 'performance'] }));
afterEach(() => void vi.useRealTimers());

interface Capture {
  readonly source: { outstanding: boolean; newestTimeUs: number };
  readonly metrics: Metrics;
  /** What the capture reports now, as /metrics says it. */
  lag(): Promise<number | undefined>;
  /** It begins to read the log, as after an error that passed. */
  begin(): void;
  /** A frame of a snapshot is stored. */
  store(): Promise<void>;
}

function capture(): Capture {
  const metrics = new Metrics();
  const report = metrics.captureReport('wms');
  const source = { outstanding: false, newestTimeUs: 0 };
  const frames: FrameSource<PgPosition> = Object.assign(source, {
    sealAtBoundary: () => undefined,
    recycle: () => {},
    takeCounts: () => [],
  });
  let loop: PublishLoop<PgPosition>;
  return {
    source,
    metrics,
    async lag() {
      loop.reportStatus({ running: false, detail: undefined, facts: undefined });
      return (await metrics.samples()).find(({ name }) => name === 'waybill_capture_lag_seconds')?.value;
    },
    begin() {
      const publisher = { publish: async () => {} } as unknown as FramePublisher;
      const nothing = (): void => {};
      const calls = { progressed: nothing, pause: nothing, goOn: nothing };
      loop = new PublishLoop({ publisher, source: frames, resume: pgPosition(1n), report, ...calls });
    },
    async store() {
      const end = pgPosition(2n);
      loop.enqueue({ end, rows: 1, transactions: 1, bytes: 1, timeUs: Date.now() * 1000 } as PendingFrame<PgPosition>);
      await loop.run(AbortSignal.abort());
    },
  };
}

it('is not known before the log has been read, and 0 when it brings nothing', async () => {
  const { lag, begin } = capture();
  begin();
  expect(await lag()).toBeUndefined();
  vi.advanceTimersByTime(1000);
  expect(await lag()).toBeUndefined();
  vi.advanceTimersByTime(1500);
  expect(await lag()).toBe(0);
});

it('goes on to grow when reading begins again, until the log tells more', async () => {
  const { source, lag, begin } = capture();
  begin();
  Object.assign(source, { outstanding: true, newestTimeUs: (Date.now() - 10_000) * 1000 });
  expect(await lag()).toBe(10);
  Object.assign(source, { outstanding: false, newestTimeUs: 0 });
  vi.advanceTimersByTime(5000);
  begin();
  expect(await lag()).toBe(15);
  Object.assign(source, { outstanding: true, newestTimeUs: (Date.now() - 15_000) * 1000 });
  vi.advanceTimersByTime(1000);
  expect(await lag()).toBe(16);
});

it('is 0 while a snapshot is read and nothing else is written, whatever it was before an error', async () => {
  const { source, lag, begin, store } = capture();
  begin();
  Object.assign(source, { outstanding: true, newestTimeUs: (Date.now() - 10_000) * 1000 });
  expect(await lag()).toBe(10);
  Object.assign(source, { outstanding: false, newestTimeUs: 0 });
  begin();
  for (let second = 0; second < 4; second++) {
    vi.advanceTimersByTime(1000);
    await store();
    const known = await lag();
    if (second >= 2) expect(known).toBe(0);
  }
});
