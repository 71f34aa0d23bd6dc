/** Gauges that end when what they tell of ends, and that age when nobody tells of it any more. */
import { describe, expect, it } from 'vitest';
import { runHeartbeat } from '../../monitoring/heartbeat.ts';
import { ReplicationError } from '../../core/errors.ts';
import { createLogger } from '../../core/logger.ts';
import type { Finding } from '../../monitoring/drift/findings.ts';
import type { FlowOutcome } from '../../monitoring/drift/outcome.ts';
import { newTableProgress } from '../../monitoring/drift/verify-table.ts';
import { METRIC } from '../../monitoring/metric-names.ts';
import { Metrics } from '../../monitoring/metrics.ts';

/** Metrics whose clock the test moves. */
function watched(): {
  metrics: Metrics;
  pass(ms: number): void;
  series(name: string): Promise<Record<string, number>>;
} {
  let nowMs = 1000;
  const metrics = new Metrics({ now: () => nowMs });
  return {
    metrics,
    pass: (ms) => void (nowMs += ms),
    series: async (wanted) =>
      Object.fromEntries(
        (await metrics.samples())
          .filter(({ name }) => name === wanted)
          .map(({ labels, value }) => [Object.values(labels).join(), value]),
      ),
  };
}

it('stages of the configuration are told of with those that run here', async () => {
  const { metrics, series } = watched();
  metrics.configured(['capture:wms', 'apply:mirror', 'verify:mirror', 'alerts'], ['apply:mirror', 'verify:mirror']);
  expect(await series(METRIC.stageProcesses[0])).toEqual({
    'capture,wms': 0,
    'apply,mirror': 1,
    'verify,mirror': 1,
    'alerts,webhooks': 0,
  });
  metrics.stageEnded('verify:mirror');
  expect(await series(METRIC.stageProcesses[0])).toMatchObject({ 'apply,mirror': 1, 'verify,mirror': 0 });
});

describe('a stage that stands by', () => {
  it('says no more of the source what it knew when it captured it', async () => {
    const { metrics, pass, series } = watched();
    const report = metrics.captureReport('wms');
    report.state('snapshot');
    report.retainedLogBytes(5);
    report.logBudgetSeconds(60);
    report.spool(7);
    report.lagSeconds(30);
    report.snapshot({ tables: 2, tablesDone: 1, rows: 5, expectedRows: 9, rowsPerSecond: 1, remainingSeconds: 4 });
    report.tables([{ schema: 'public', name: 'a', reason: 'no key' }]);
    report.state('standby', 'held by another');
    pass(600_000);
    for (const [name] of [
      METRIC.captureRetained,
      METRIC.captureBudget,
      METRIC.captureSpool,
      METRIC.captureLag,
      METRIC.snapshotRows,
      METRIC.snapshotTables,
      METRIC.tableLeftOut,
    ])
      expect(await series(name), name).toEqual({});
    expect(await series(METRIC.stalled[0])).toEqual({ 'capture,wms': 0 });
    expect(metrics.facts()[0]).toMatchObject({ state: 'standby', lag: { kind: 'unknown' }, ready: true });
    expect(metrics.facts()[0]).not.toHaveProperty('snapshot');
    report.state('streaming');
    report.retainedLogBytes(6);
    expect(await series(METRIC.captureRetained[0])).toEqual({ wms: 6 });
  });

  it('that has lost its slot keeps no log', async () => {
    const { metrics, series } = watched();
    const report = metrics.captureReport('wms');
    report.retainedLogBytes(5);
    report.logBudgetSeconds(60);
    report.state('slot_lost');
    for (const [name] of [METRIC.captureRetained, METRIC.captureBudget]) expect(await series(name), name).toEqual({});
    expect(metrics.facts()[0]).not.toHaveProperty('retainedLogBytes');
  });

  it('says no more of the target what it knew when it applied to it', async () => {
    const { metrics, pass, series } = watched();
    const report = metrics.flowReport('mirror', 'vis', 'S');
    report.state('applying');
    report.lagSeconds(5);
    report.pendingFrames(3);
    report.quarantined('constraint', 4);
    report.tables([{ schema: 'public', name: 'a', state: 'stopped', reason: 'narrower' }]);
    report.state('standby');
    pass(600_000);
    for (const [name] of [METRIC.applyLag, METRIC.pendingFrames, METRIC.quarantineKeys, METRIC.tableStopped])
      expect(await series(name), name).toEqual({});
    expect(await series(METRIC.stalled[0])).toEqual({ 'apply,mirror': 0 });
    report.quarantined('constraint', 2);
    expect(await series(METRIC.quarantineKeys[0])).toEqual({ 'mirror,constraint': 2 });
  });

  it('says no more of records what it knew when it made them', async () => {
    const { metrics, series } = watched();
    const report = metrics.transformReport('stock', 'inventory_position', (source) => `S_${source}`);
    report.held('mapping', 2);
    report.pendingFrames('wms', 9);
    report.stateBytes(100);
    report.delayed({ waiting: 3, savedWrites: 0, savedBytes: 0 });
    report.state('standby');
    for (const [name] of [
      METRIC.quarantineKeys,
      METRIC.pendingFrames,
      METRIC.transformStateBytes,
      METRIC.transformWaiting,
    ])
      expect(await series(name), name).toEqual({});
  });
});

describe('drift', () => {
  const finding: Finding = { id: '["1"]', key: ['1'], kind: 'missing', copies: 1 };
  const outcome = (tables: Readonly<Record<string, readonly Finding[]>>): FlowOutcome => ({
    flow: 'mirror',
    startedAt: new Date(0),
    tables: Object.entries(tables).map(([name, findings]) => ({
      schema: 'public',
      name,
      progress: { ...newTableProgress(), findings: [...findings], rows: 2, done: true },
      estimatedRows: 2,
      skippedColumns: [],
    })),
  });

  it('is told of for tables that the flow has, and of no others', async () => {
    const { metrics, series } = watched();
    const report = metrics.driftReport('mirror');
    const first = outcome({ a: [finding], b: [finding] });
    for (const table of first.tables) report.compared(table);
    report.finished(first);
    expect(await series(METRIC.driftRows[0])).toMatchObject({
      'mirror,public.a,missing': 1,
      'mirror,public.b,missing': 1,
    });
    expect(await series(METRIC.driftTables[0])).toEqual({ mirror: 2 });
    const second = outcome({ a: [] });
    report.compared(second.tables[0]!);
    report.finished(second);
    expect(await series(METRIC.driftRows[0])).toEqual({
      'mirror,public.a,missing': 0,
      'mirror,public.a,extra': 0,
      'mirror,public.a,different': 0,
    });
    expect(await series(METRIC.driftTables[0])).toEqual({ mirror: 0 });
  });

  it('keeps the coverage of the latest comparison while the next one is under way', async () => {
    const { metrics, series } = watched();
    const report = metrics.driftReport('mirror');
    report.coverage(0.5);
    expect(await series(METRIC.driftCoverage[0])).toEqual({});
    expect(await series(METRIC.driftProgress[0])).toEqual({ mirror: 0.5 });
    report.finished(outcome({ a: [] }));
    expect(await series(METRIC.driftProgress[0])).toEqual({});
    report.coverage(0);
    expect(await series(METRIC.driftCoverage[0])).toEqual({ mirror: 1 });
    expect(await series(METRIC.driftProgress[0])).toEqual({ mirror: 0 });
  });

  it('of very many tables is told of those that differ, and nothing else is left out', async () => {
    const { metrics, series } = watched();
    const report = metrics.driftReport('mirror');
    metrics.flowReport('mirror', 'vis', 'S').pendingFrames(0);
    const equal = { missing: 0, extra: 0, different: 0 };
    report.standing(new Map(Array.from({ length: 1100 }, (_, i) => [`public.t${i}`, equal])));
    expect(await series(METRIC.driftRows[0])).toEqual({});
    report.compared(outcome({ t7: [finding] }).tables[0]!);
    expect(await series(METRIC.driftRows[0])).toEqual({ 'mirror,public.t7,missing': 1 });
    expect(await series(METRIC.driftTables[0])).toEqual({ mirror: 1 });
    report.compared(outcome({ t7: [] }).tables[0]!);
    expect(await series(METRIC.driftTables[0])).toEqual({ mirror: 0 });
    expect(await series(METRIC.pendingFrames[0])).toEqual({ 'S,mirror': 0 });
  });

  it('is known from the beginning, and left to the process that compares', async () => {
    const { metrics, series } = watched();
    const report = metrics.driftReport('mirror');
    report.awaited(new Date(0));
    expect(await series(METRIC.driftTables[0]), 'not known yet').toEqual({});
    report.standing(new Map([['public.a', { missing: 0, extra: 3, different: 1 }]]));
    expect(await series(METRIC.driftRows[0])).toEqual({
      'mirror,public.a,missing': 0,
      'mirror,public.a,extra': 3,
      'mirror,public.a,different': 1,
    });
    report.finished(outcome({ a: [finding] }));
    report.left();
    for (const [name] of [METRIC.driftRows, METRIC.driftTables, METRIC.driftCoverage, METRIC.driftInFlight])
      expect(await series(name), name).toEqual({});
  });
});

describe('a heartbeat', () => {
  it('ages while nobody says that it arrived, and from the first on', async () => {
    const { metrics, pass, series } = watched();
    const [name] = METRIC.heartbeat;
    const report = metrics.heartbeatReport('wms', 'vis');
    expect(await series(name)).toEqual({});
    report.sent();
    pass(90_000);
    expect(await series(name)).toEqual({ 'wms,vis': 90 });
    report.arrived(0.25);
    pass(60_000);
    expect(await series(name)).toEqual({ 'wms,vis': 0.25 });
    report.sent();
    pass(3_000);
    expect(await series(name)).toEqual({ 'wms,vis': 3 });
  });

  it('ages when no more can be sent', async () => {
    const { metrics, pass, series } = watched();
    const beating = runHeartbeat({
      flow: 'mirror',
      everyMs: 10,
      open: () => Promise.reject(new ReplicationError('source_auth', 'the password was changed')),
      report: metrics.heartbeatReport('wms', 'vis'),
      log: createLogger('silent'),
      signal: new AbortController().signal,
    });
    await expect(beating).rejects.toMatchObject({ code: 'source_auth' });
    pass(120_000);
    expect(await series(METRIC.heartbeat[0])).toEqual({ 'wms,vis': 120 });
  });

  it('of two flows from one source into one target, the later one counts', async () => {
    const { metrics, pass, series } = watched();
    const [one, other] = [metrics.heartbeatReport('wms', 'vis'), metrics.heartbeatReport('wms', 'vis')];
    one.arrived(0.1);
    other.sent();
    pass(5_000);
    expect(await series(METRIC.heartbeat[0])).toEqual({ 'wms,vis': 5 });
  });
});
