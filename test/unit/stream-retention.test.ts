/** How long a stream keeps what a flow has not taken. */
import { expect, it } from 'vitest';
import { METRIC } from '../../monitoring/metric-names.ts';
import { Metrics } from '../../monitoring/metrics.ts';
import { RetentionEstimate, type StreamReading } from '../../monitoring/stream-retention.ts';

const DAY_MS = 86_400_000;
const stream = (changes: Partial<StreamReading>): StreamReading => ({
  firstSeq: 1,
  lastSeq: 100,
  bytes: 100_000,
  maxAgeMs: 7 * DAY_MS,
  maxBytes: 1_000_000,
  resetSeq: 0,
  ...changes,
});

it('is by the age of the first frame that waits', () => {
  const estimate = new RetentionEstimate();
  expect(estimate.observe(0, stream({}), 100, 0), 'nothing waits').toBeUndefined();
  expect(estimate.observe(0, stream({}), 99, DAY_MS)).toBe((6 * DAY_MS) / 1000);
  expect(estimate.observe(0, stream({}), 99, 8 * DAY_MS), 'it is dropped at the next look of the broker').toBe(0);
  expect(estimate.observe(0, stream({ maxAgeMs: 0 }), 99, 8 * DAY_MS), 'frames do not expire').toBeUndefined();
});

it('is by the size of what waits, where that grows', () => {
  const estimate = new RetentionEstimate();
  const without = { maxAgeMs: 0 };
  expect(estimate.observe(0, stream(without), 0, 0)).toBeUndefined();
  // 100 frames of 1 kB more in 50 s: 2 kB in a second, and room for 800 kB.
  expect(estimate.observe(50_000, stream({ ...without, lastSeq: 200, bytes: 200_000 }), 0, 50_000)).toBe(400);
  expect(
    estimate.observe(50_000, stream({ ...without, lastSeq: 200, bytes: 200_000, maxBytes: -1 }), 0, 50_000),
  ).toBeUndefined();
  const keepsUp = new RetentionEstimate();
  for (let i = 0; i < 10; i++)
    expect(
      keepsUp.observe(
        i * 10_000,
        stream({ ...without, firstSeq: i * 900 + 1, lastSeq: (i + 1) * 900 }),
        (i + 1) * 900 - 5,
        0,
      ),
    ).toBeUndefined();
});

it('is none once a frame is gone, unless everything is read again behind it', () => {
  const estimate = new RetentionEstimate();
  expect(estimate.observe(0, stream({ firstSeq: 50 }), 40, 0)).toBe(0);
  expect(estimate.observe(0, stream({ firstSeq: 50 }), 49, 0)).toBe(604_800);
  expect(estimate.observe(0, stream({ firstSeq: 50, resetSeq: 60 }), 40, DAY_MS)).toBe((6 * DAY_MS) / 1000);
});

it('is left to the process that reads the stream', async () => {
  const metrics = new Metrics();
  const report = metrics.flowReport('mirror', 'vis', 'S');
  report.reached(7);
  const nats = {
    manager: {
      streams: {
        info: async () => ({
          state: { first_seq: 1, last_seq: 9, bytes: 900 },
          config: { max_age: 60e9, max_bytes: -1 },
          ts: '2026-01-01T00:00:30Z',
        }),
        getMessage: async () => ({ time: new Date('2026-01-01T00:00:10Z') }),
      },
    },
  } as unknown as Parameters<typeof metrics.consumers.look>[0];
  const shown = async (): Promise<number[]> =>
    (await metrics.samples()).filter(({ name }) => name === METRIC.streamRetention[0]).map(({ value }) => value);
  await metrics.consumers.look(nats);
  expect(await shown()).toEqual([40]);
  report.state('standby');
  await metrics.consumers.look(nats);
  expect(await shown()).toEqual([]);
  report.reached(9);
  await metrics.consumers.look(nats);
  expect(await shown()).toEqual([]);
});
