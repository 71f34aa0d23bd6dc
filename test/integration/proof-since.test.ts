/** A flow that no comparison has proven yet is late one day, too: what is kept of that over restarts. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { parseConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { createLogger } from '../../core/logger.ts';
import type { FlowOutcome } from '../../monitoring/drift/outcome.ts';
import { runSchedule } from '../../monitoring/drift/schedule.ts';
import { newTableProgress } from '../../monitoring/drift/verify-table.ts';
import { Metrics } from '../../monitoring/metrics.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { waitFor } from '../support/wait.ts';

let nats: NatsServer;
beforeAll(async () => {
  nats = await startNats();
});
afterAll(async () => await nats?.dispose());

type Series = 'awaited' | 'verified';

/** Runs the schedule of one process, and gives what its metrics say once `until` is among it. */
async function run(
  verify: () => Promise<FlowOutcome>,
  until: Series,
  everyMs = 60_000,
): Promise<Partial<Record<Series, number>>> {
  const metrics = new Metrics();
  const stop = new AbortController();
  const running = runSchedule({
    flow: 'mirror',
    everyMs,
    nats: parseConfig(JSON.stringify({ version: 1, nats: { servers: [nats.url] } }), {}).nats,
    holder: 'test',
    leaseTtlMs: 10_000,
    report: metrics.driftReport('mirror'),
    log: createLogger('silent'),
    signal: stop.signal,
    verify,
  });
  try {
    return await waitFor(until, async () => {
      const text = await metrics.registry.metrics();
      const found = [...text.matchAll(/^waybill_drift_(awaited|verified)_timestamp_seconds\{flow="mirror"\} (\S+)$/gm)];
      const series = Object.fromEntries(found.map(([, name, value]) => [name, Number(value)]));
      return until in series ? series : undefined;
    });
  } finally {
    stop.abort();
    await running;
  }
}

const fails = (): Promise<never> =>
  Promise.reject(new ReplicationError('source_unreachable', 'the source is not there'));
const proof = async (): Promise<FlowOutcome> => ({
  flow: 'mirror',
  startedAt: new Date(2000),
  tables: [{ schema: 'public', name: 'a', progress: newTableProgress(), estimatedRows: 0, skippedColumns: [] }],
});

it('is told from when the flow was first to be compared, or from its last proof', async () => {
  const { awaited: first } = await run(fails, 'awaited');
  expect(Math.abs(first! - Date.now() / 1000)).toBeLessThan(20);
  expect(await run(fails, 'awaited'), 'a restart does not begin anew').toEqual({ awaited: first });
  expect(await run(proof, 'verified'), 'it ends with the first proof').toEqual({ verified: 2 });
  expect(await run(fails, 'awaited'), 'nothing has been proven since').toEqual({ awaited: 2 });
});

it('is looked for again at the next turn after an error that somebody has to mend', async () => {
  let mended = false;
  const refused = async (): Promise<FlowOutcome> => {
    if (mended) return await proof();
    mended = true;
    throw new ReplicationError('source_privilege', 'may not read a table');
  };
  expect(await run(refused, 'verified', 20)).toEqual({ verified: 2 });
});
