/** Turns what the stages report into Prometheus series, and keeps the latest facts for /status and /readyz. */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type {
  CaptureReport,
  CaptureState,
  FlowReport,
  FlowState,
  SnapshotFacts,
  TransformReport,
} from '../core/metrics.ts';
import { waybillVersion } from '../core/version.ts';
import { DRIFT_KINDS, type DriftKind } from './drift/findings.ts';
import { coverage, countKinds, isProven, openFindings, type DriftReport } from './drift/outcome.ts';
import type { HeartbeatReport } from './heartbeat.ts';
import { METRIC } from './metric-names.ts';
import { KEEPS_NO_LOG, LEAVES_IT_TO_OTHERS, STALL_MS, StageHealth, type StageFacts, type StageKind } from './health.ts';
import type { Sample } from './observation.ts';
import { StreamConsumers } from './stream-retention.ts';

const CAPTURE_STATES: readonly CaptureState[] = [
  'starting',
  'standby',
  'snapshot',
  'streaming',
  'idle',
  'slot_missing',
  'slot_lost',
  'blocked',
  'stopped',
];
const FLOW_STATES: readonly FlowState[] = ['starting', 'standby', 'applying', 'idle', 'waiting', 'blocked', 'stopped'];
const LAG_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 3600];
/** Beyond this many, those of tables that are equal are left out: an observation must fit a message. */
const MAX_SAMPLES = 3000;
const SECONDS_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Of one flow: when the one that is on its way was sent, and how long the latest took. */
interface Heartbeat {
  readonly source: string;
  readonly target: string;
  sentMs: number | undefined;
  seconds: number | undefined;
}

/** Of a stage by its id; the one of all webhooks bears no name. */
function stageLabels(id: string): { stage: string; name: string } {
  const [stage, name = 'webhooks'] = id.split(':');
  return { stage: stage!, name };
}

export class Metrics {
  readonly registry = new Registry();
  readonly stages: StageHealth[] = [];
  /** How far the streams that are read here have been taken. */
  readonly consumers = new StreamConsumers((labels, seconds) => {
    if (seconds === undefined) this.#retention.remove(labels);
    else this.#retention.set(labels, seconds);
  });
  readonly #stageProcesses = this.#gauge(METRIC.stageProcesses, ['stage', 'name']);
  readonly #captureState = this.#gauge(METRIC.captureState, ['source', 'state']);
  readonly #labels = new Map<StageHealth, Record<string, string>>();
  readonly #captureLag = this.#lagGauge(METRIC.captureLag, 'capture', ['source']);
  readonly #retained = this.#gauge(METRIC.captureRetained, ['source']);
  readonly #spool = this.#gauge(METRIC.captureSpool, ['source']);
  readonly #spoolGivenUp = this.#counter(METRIC.captureSpoolGivenUp, ['source', 'reason']);
  readonly #budget = this.#gauge(METRIC.captureBudget, ['source']);
  readonly #snapshotRows = this.#gauge(METRIC.snapshotRows, ['source']);
  readonly #snapshotExpected = this.#gauge(METRIC.snapshotExpectedRows, ['source']);
  readonly #snapshotTables = this.#gauge(METRIC.snapshotTables, ['source', 'state']);
  readonly #snapshotRemaining = this.#gauge(METRIC.snapshotRemaining, ['source']);
  readonly #captureRows = this.#counter(METRIC.captureRows, ['source', 'table', 'op']);
  readonly #transactions = this.#counter(METRIC.captureTransactions, ['source']);
  readonly #publish = this.#histogram(METRIC.publishSeconds, ['source']);
  readonly #pending = this.#gauge(METRIC.pendingFrames, ['stream', 'consumer']);
  readonly #retention = this.#gauge(METRIC.streamRetention, ['stream', 'consumer']);
  readonly #transformState = this.#gauge(METRIC.transformState, ['flow', 'state']);
  readonly #transformRecords = this.#counter(METRIC.transformRecords, ['flow', 'entity', 'outcome']);
  readonly #transformLag = this.#lagGauge(METRIC.transformLag, 'transform', ['flow']);
  readonly #transformStateBytes = this.#gauge(METRIC.transformStateBytes, ['flow']);
  readonly #transformSavedState = this.#gauge(METRIC.transformSavedState, ['flow']);
  readonly #transformSavedAt = this.#gauge(METRIC.transformSavedAt, ['flow']);
  readonly #transformWaiting = this.#gauge(METRIC.transformWaiting, ['flow']);
  readonly #transformSavedWrites = this.#counter(METRIC.transformSavedWrites, ['flow']);
  readonly #transformSavedBytes = this.#counter(METRIC.transformSavedBytes, ['flow']);
  readonly #transformPublish = this.#histogram(METRIC.transformPublish, ['flow']);
  readonly #oversell = this.#gauge(METRIC.oversellExposure, ['sku_group']);
  readonly #invariants = this.#counter(METRIC.invariantViolations, ['entity', 'invariant']);
  readonly #flowState = this.#gauge(METRIC.flowState, ['flow', 'target', 'state']);
  readonly #applyLag = this.#lagGauge(METRIC.applyLag, 'apply', ['flow', 'target']);
  readonly #applyRows = this.#counter(METRIC.applyRows, ['flow', 'target', 'table', 'op']);
  readonly #batch = this.#histogram(METRIC.applyBatch, ['flow', 'target']);
  readonly #commitLag = this.#histogram(METRIC.applyCommitLag, ['flow', 'target'], LAG_BUCKETS);
  readonly #now: () => number;
  readonly #heartbeats: Heartbeat[] = [];
  readonly #heartbeat = this.#heartbeatGauge();
  readonly #quarantine = this.#gauge(METRIC.quarantineKeys, ['flow', 'reason']);

  readonly #tableLeftOut = this.#gauge(METRIC.tableLeftOut, ['source', 'table']);
  readonly #tableStopped = this.#gauge(METRIC.tableStopped, ['flow', 'table']);
  readonly #driftRows = this.#gauge(METRIC.driftRows, ['flow', 'table', 'kind']);
  readonly #driftTables = this.#gauge(METRIC.driftTables, ['flow']);
  readonly #driftInFlight = this.#gauge(METRIC.driftInFlight, ['flow']);
  readonly #driftVerified = this.#gauge(METRIC.driftVerified, ['flow']);
  readonly #driftAwaited = this.#gauge(METRIC.driftAwaited, ['flow']);
  readonly #driftCoverage = this.#gauge(METRIC.driftCoverage, ['flow']);
  readonly #driftProgress = this.#gauge(METRIC.driftProgress, ['flow']);

  readonly #stalled = this.#stalledGauge();
  readonly #stallMs: number;

  /** `stallMs`: after how long without progress a stage that has work is not ready. `now`: a clock in milliseconds. */
  constructor({ stallMs = STALL_MS, now = () => performance.now() }: { stallMs?: number; now?: () => number } = {}) {
    this.#stallMs = stallMs;
    this.#now = now;
    collectDefaultMetrics({ register: this.registry });
    this.#gauge(METRIC.buildInfo, ['version']).set({ version: waybillVersion() }, 1);
    for (const gauge of [this.#captureLag, this.#transformLag, this.#applyLag]) this.registry.registerMetric(gauge);
    this.registry.registerMetric(this.#stalled);
    this.registry.registerMetric(this.#heartbeat);
  }

  facts(): StageFacts[] {
    return this.stages.map((stage) => stage.facts());
  }

  /** The present values of all gauges of Waybill: what alerts are about. */
  async samples(): Promise<Sample[]> {
    const samples: Sample[] = [];
    for (const metric of await this.registry.getMetricsAsJSON())
      // prom-client gives the type as text, whatever its declaration says.
      if (metric.name.startsWith('waybill_') && (metric.type as unknown) === 'gauge')
        for (const { labels, value } of metric.values)
          samples.push({ name: metric.name, labels: labels as Record<string, string>, value });
    // Whoever knows how many tables of a flow differ knows by that what of others is left out.
    const isEqual = ({ name, value }: Sample): boolean => name === METRIC.driftRows[0] && value === 0;
    return samples.length > MAX_SAMPLES ? samples.filter((sample) => !isEqual(sample)) : samples;
  }

  /**
   * The stages that the configuration names (`apply:mirror`), and those of them that this process runs: so that one that no
   * process runs is missed by all the others.
   */
  configured(ids: readonly string[], here: readonly string[]): void {
    for (const id of ids) this.#stageProcesses.set(stageLabels(id), here.includes(id) ? 1 : 0);
  }

  /** A stage that has no state of its own has ended with an error. */
  stageEnded(id: string): void {
    this.#stageProcesses.set(stageLabels(id), 0);
  }

  captureReport(source: string): CaptureReport {
    const health = this.#stage('capture', source, { source });
    const publish = this.#publish.labels(source);
    const transactions = this.#transactions.labels(source);
    const retained = this.#retained.labels(source);
    let out: string[] = [];
    const showOut = (tables: readonly string[]): void => {
      for (const table of out) this.#tableLeftOut.remove({ source, table });
      out = [...tables];
      for (const table of out) this.#tableLeftOut.set({ source, table }, 1);
    };
    return {
      state: (state, detail) => {
        health.state(state, detail);
        for (const each of CAPTURE_STATES) this.#captureState.set({ source, state: each }, each === state ? 1 : 0);
        const leaves = LEAVES_IT_TO_OTHERS.has(state);
        if (leaves || KEEPS_NO_LOG.has(state))
          for (const gauge of [this.#retained, this.#budget]) gauge.remove({ source });
        if (!leaves) return;
        this.#spool.remove({ source });
        this.#snapshot(source, undefined);
        showOut([]);
      },
      published: (frame) => {
        health.moved(frame.rows);
        publish.observe(frame.seconds);
        transactions.inc(frame.transactions);
      },
      rows: (schema, table, op, count) => this.#captureRows.inc({ source, table: `${schema}.${table}`, op }, count),
      position: (text) => health.position(text),
      retainedLogBytes: (bytes) => {
        health.retained(bytes);
        retained.set(bytes);
      },
      logBudgetSeconds: (seconds) => {
        health.budget(seconds);
        if (seconds === undefined) this.#budget.remove({ source });
        else this.#budget.set({ source }, seconds);
      },
      spool: (bytes) => {
        health.spool(bytes);
        if (bytes === undefined) this.#spool.remove({ source });
        else this.#spool.set({ source }, bytes);
      },
      spoolGivenUp: (reason) => this.#spoolGivenUp.inc({ source, reason }),
      lagSeconds: (seconds) => health.lag(seconds),
      snapshot: (facts) => {
        health.snapshot(facts);
        this.#snapshot(source, facts);
      },
      tables: (leftOut) => {
        health.tables(leftOut.map((table) => ({ ...table, state: 'stopped' })));
        showOut(leftOut.map(({ schema, name }) => `${schema}.${name}`));
      },
    };
  }

  #snapshot(source: string, facts: SnapshotFacts | undefined): void {
    const set = (gauge: Gauge, value: number | undefined): void => {
      if (value === undefined) gauge.remove({ source });
      else gauge.set({ source }, value);
    };
    set(this.#snapshotRows, facts?.rows);
    set(this.#snapshotExpected, facts?.expectedRows);
    set(this.#snapshotRemaining, facts?.remainingSeconds);
    for (const state of ['read', 'waiting'] as const)
      if (facts === undefined) this.#snapshotTables.remove({ source, state });
      else
        this.#snapshotTables.set(
          { source, state },
          state === 'read' ? facts.tablesDone : facts.tables - facts.tablesDone,
        );
  }

  flowReport(flow: string, target: string, stream: string): FlowReport {
    const health = this.#stage('apply', flow, { flow, target });
    const batch = this.#batch.labels(flow, target);
    const commitLag = this.#commitLag.labels(flow, target);
    let stopped: string[] = [];
    const showStopped = (tables: readonly string[]): void => {
      for (const table of stopped) this.#tableStopped.remove({ flow, table });
      stopped = [...tables];
      for (const table of stopped) this.#tableStopped.set({ flow, table }, 1);
    };
    const quarantined = this.#keysIn(flow);
    return {
      state: (state, detail) => {
        health.state(state, detail);
        for (const each of FLOW_STATES) this.#flowState.set({ flow, target, state: each }, each === state ? 1 : 0);
        if (!LEAVES_IT_TO_OTHERS.has(state)) return;
        this.#pending.remove({ stream, consumer: flow });
        this.consumers.leave(stream, flow);
        quarantined.forget();
        showStopped([]);
      },
      position: (text) => health.position(text),
      applied: (done) => {
        health.moved(done.rows);
        health.position(done.position);
        batch.observe(done.seconds);
        if (done.commitTimeUs > 0) commitLag.observe(Math.max(0, Date.now() / 1000 - done.commitTimeUs / 1e6));
      },
      rows: (schema, table, op, count) => this.#applyRows.inc({ flow, target, table: `${schema}.${table}`, op }, count),
      pendingFrames: (frames) => {
        health.pending(frames);
        this.#pending.set({ stream, consumer: flow }, frames);
      },
      reached: (seq) => this.consumers.reached(stream, flow, seq),
      lagSeconds: (seconds) => health.lag(seconds),
      quarantined: quarantined.set,
      tables: (notices) => {
        health.tables(notices);
        showStopped(notices.filter(({ state }) => state === 'stopped').map(({ schema, name }) => `${schema}.${name}`));
      },
    };
  }

  transformReport(flow: string, entity: string, streamOf: (source: string) => string): TransformReport {
    const health = this.#stage('transform', flow, { flow });
    const publish = this.#transformPublish.labels(flow);
    const stateBytes = this.#transformStateBytes.labels(flow);
    const waiting = new Map<string, number>();
    const held = this.#keysIn(flow);
    return {
      state: (state, detail) => {
        health.state(state, detail);
        for (const each of FLOW_STATES) this.#transformState.set({ flow, state: each }, each === state ? 1 : 0);
        if (!LEAVES_IT_TO_OTHERS.has(state)) return;
        for (const source of waiting.keys()) {
          this.#pending.remove({ stream: streamOf(source), consumer: `transform ${flow}` });
          this.consumers.leave(streamOf(source), `transform ${flow}`);
        }
        waiting.clear();
        for (const gauge of [this.#transformStateBytes, this.#transformWaiting]) gauge.remove({ flow });
        held.forget();
      },
      published: (frame) => {
        health.moved(frame.rows);
        health.position(frame.position);
        publish.observe(frame.seconds);
      },
      records: (outcome, count) => this.#transformRecords.inc({ flow, entity, outcome }, count),
      invariant: (invariant, count) => this.#invariants.inc({ entity, invariant }, count),
      held: held.set,
      stateBytes: (bytes) => stateBytes.set(bytes),
      saved: ({ bytes, savedAt }) => {
        this.#transformSavedState.set({ flow }, bytes);
        this.#transformSavedAt.set({ flow }, savedAt / 1000);
      },
      oversell: (units) => this.#oversell.set({ sku_group: 'all' }, units),
      delayed: ({ waiting: records, savedWrites, savedBytes }) => {
        this.#transformWaiting.set({ flow }, records);
        this.#transformSavedWrites.inc({ flow }, savedWrites);
        this.#transformSavedBytes.inc({ flow }, savedBytes);
      },
      pendingFrames: (source, frames) => {
        waiting.set(source, frames);
        health.pending([...waiting.values()].reduce((sum, each) => sum + each, 0));
        this.#pending.set({ stream: streamOf(source), consumer: `transform ${flow}` }, frames);
      },
      reached: (source, seq) => this.consumers.reached(streamOf(source), `transform ${flow}`, seq),
      lagSeconds: (seconds) => health.lag(seconds),
    };
  }

  /** Of the heartbeats of one flow. */
  heartbeatReport(source: string, target: string): HeartbeatReport {
    const heartbeat: Heartbeat = { source, target, sentMs: undefined, seconds: undefined };
    this.#heartbeats.push(heartbeat);
    return {
      sent: () => (heartbeat.sentMs = this.#now()),
      arrived: (seconds) => {
        heartbeat.seconds = seconds;
        heartbeat.sentMs = undefined;
      },
    };
  }

  driftReport(flow: string): DriftReport {
    let known = false;
    /** Rows that differ of each table. */
    const tables = new Map<string, number>();
    const tell = (): void =>
      this.#driftTables.set(
        { flow },
        [...tables.values()].reduce((count, rows) => count + (rows > 0 ? 1 : 0), 0),
      );
    const proven = (at: Date): void => {
      known = true;
      this.#driftAwaited.remove({ flow });
      this.#driftVerified.set({ flow }, at.getTime() / 1000);
    };
    const show = (table: string, kinds: Readonly<Record<DriftKind, number>>): void => {
      tables.set(
        table,
        Object.values(kinds).reduce((sum, rows) => sum + rows, 0),
      );
      for (const [kind, rows] of Object.entries(kinds)) this.#driftRows.set({ flow, table, kind }, rows);
    };
    const drop = (table: string): void => {
      tables.delete(table);
      for (const kind of DRIFT_KINDS) this.#driftRows.remove({ flow, table, kind });
    };
    return {
      standing: (open) => {
        for (const [table, kinds] of open) show(table, kinds);
        tell();
      },
      compared: (table) => {
        show(`${table.schema}.${table.name}`, countKinds(openFindings(table)));
        tell();
      },
      coverage: (share) => this.#driftProgress.set({ flow }, share),
      finished: (outcome) => {
        const compared = new Set(outcome.tables.map(({ schema, name }) => `${schema}.${name}`));
        // What the flow has no more cannot be mended, and must not be told of for ever.
        for (const table of tables.keys()) if (!compared.has(table)) drop(table);
        tell();
        this.#driftInFlight.set(
          { flow },
          outcome.tables.reduce((sum, table) => sum + table.progress.inFlightBuckets, 0),
        );
        this.#driftProgress.remove({ flow });
        this.#driftCoverage.set({ flow }, coverage(outcome.tables));
        if (isProven(outcome)) proven(outcome.startedAt);
      },
      awaited: (since) => {
        if (!known) this.#driftAwaited.set({ flow }, since.getTime() / 1000);
      },
      proven,
      left: () => {
        for (const table of tables.keys()) drop(table);
        for (const gauge of [this.#driftTables, this.#driftInFlight, this.#driftCoverage, this.#driftProgress])
          gauge.remove({ flow });
      },
    };
  }

  /** What a stage says of keys that are held, by reason. */
  #keysIn(flow: string): { set(reason: string, keys: number): void; forget(): void } {
    const reasons = new Set<string>();
    return {
      set: (reason, keys) => {
        reasons.add(reason);
        this.#quarantine.set({ flow, reason }, keys);
      },
      forget: () => {
        for (const reason of reasons) this.#quarantine.remove({ flow, reason });
      },
    };
  }

  #stage(kind: StageKind, name: string, labels: Record<string, string>): StageHealth {
    const stage = new StageHealth(kind, name, { stallMs: this.#stallMs, now: this.#now });
    this.stages.push(stage);
    this.#labels.set(stage, labels);
    return stage;
  }

  /** Worked out when it is read: a stage that hangs says nothing by itself. */
  #stalledGauge(): Gauge<'stage' | 'name'> {
    const { stages } = this;
    const [name, help] = METRIC.stalled;
    return new Gauge({
      name,
      help,
      labelNames: ['stage', 'name'],
      registers: [],
      collect() {
        for (const stage of stages) this.set({ stage: stage.kind, name: stage.name }, stage.stalledSeconds());
      },
    });
  }

  /**
   * Seconds that the latest heartbeat took, or that one has been under way: worked out when it is read, as above. A moment
   * after it was sent the time of the one before stands for it.
   */
  #heartbeatGauge(): Gauge<'source' | 'target'> {
    const heartbeats = this.#heartbeats;
    const now = (): number => this.#now();
    const [name, help] = METRIC.heartbeat;
    return new Gauge({
      name,
      help,
      labelNames: ['source', 'target'],
      registers: [],
      collect() {
        const latest = new Map<string, { source: string; target: string; seconds: number }>();
        for (const { source, target, sentMs, seconds } of heartbeats) {
          const age = sentMs === undefined ? undefined : (now() - sentMs) / 1000;
          const value = Math.max(age ?? 0, seconds ?? 0);
          if (age === undefined && seconds === undefined) continue;
          const id = JSON.stringify([source, target]);
          latest.set(id, { source, target, seconds: Math.max(value, latest.get(id)?.seconds ?? 0) });
        }
        for (const { source, target, seconds } of latest.values()) this.set({ source, target }, seconds);
      },
    });
  }

  /** Worked out when it is read, as above: what a stage waits for grows older while it hangs. */
  #lagGauge<L extends string>(
    [name, help]: readonly [string, string],
    kind: StageHealth['kind'],
    labelNames: L[],
  ): Gauge<L> {
    const { stages } = this;
    const labels = this.#labels;
    return new Gauge({
      name,
      help,
      labelNames,
      registers: [],
      collect() {
        this.reset();
        for (const stage of stages) {
          const lag = stage.lagState();
          if (stage.kind !== kind || lag.kind === 'unknown') continue;
          this.set(labels.get(stage) as Record<L, string>, lag.kind === 'idle' ? 0 : lag.seconds);
        }
      },
    });
  }

  #gauge<L extends string>([name, help]: readonly [string, string], labelNames: L[]): Gauge<L> {
    return new Gauge({ name, help, labelNames, registers: [this.registry] });
  }

  #counter<L extends string>([name, help]: readonly [string, string], labelNames: L[]): Counter<L> {
    return new Counter({ name, help, labelNames, registers: [this.registry] });
  }

  #histogram<L extends string>(
    [name, help]: readonly [string, string],
    labelNames: L[],
    buckets = SECONDS_BUCKETS,
  ): Histogram<L> {
    return new Histogram({ name, help, labelNames, buckets, registers: [this.registry] });
  }
}
