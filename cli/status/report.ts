/** What `waybill status` says: readings of sources, streams and targets put together. Its JSON form is fixed by tests. */
import type { PositionRow } from '../../apply/target-store.ts';
import type { SourceReading } from '../../capture/source-status.ts';
import type { SnapshotProgress } from '../../capture/snapshot-request.ts';
import type { CanonicalFlowConfig } from '../../core/canonical-config.ts';
import { canonicalStreamName } from '../../core/canonical-stream.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import type { Config } from '../../core/config.ts';
import { ERROR_CODES, ReplicationError } from '../../core/errors.ts';
import { describePosition, formatPosition } from '../../core/position.ts';
import type { Alert } from '../../monitoring/alerts/evaluator.ts';
import type { Verification } from '../../monitoring/drift/verification.ts';
import type { LagState, StageFacts } from '../../monitoring/health.ts';
import type { TableNotice } from '../../core/metrics.ts';
import { placeText } from '../place-text.ts';
import { flowPaths, type FlowPath } from './flow-paths.ts';
import type { NatsReading, StreamReading } from './stream-session.ts';
import type { TargetReading } from './target-session.ts';

export interface Problem {
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
}

/** `atMost`: nobody works on it, so that its age is that of the last look at the log. */
export type Lag = LagState & { readonly atMost?: true };

export interface SourceLine {
  readonly name: string;
  readonly kind: string;
  readonly state: string;
  readonly detail?: string;
  readonly lag: Lag;
  readonly rowsPerSecond?: number;
  /** Where the stream ends. */
  readonly position?: string;
  readonly behindBytes?: number;
  readonly behindTransactions?: number;
  readonly retainedLogBytes?: number;
  readonly logBudgetSeconds?: number;
  readonly spareLogBytes?: number;
  /** Kept of transactions in progress; absent where they are received at their commit. */
  readonly spoolBytes?: number;
  readonly slotActive?: boolean;
  readonly snapshot?: SnapshotLine;
  readonly problem?: Problem;
}

export interface SnapshotLine {
  readonly tables: number;
  readonly done: number;
  readonly rows: number;
  /** The table that is being read. */
  readonly table?: string;
}

export interface FlowLine {
  readonly name: string;
  readonly source: string;
  readonly target: string;
  readonly state: string;
  readonly detail?: string;
  readonly lag: Lag;
  readonly rowsPerSecond?: number;
  /** A place of the source's log; of a flow that reads records, the frame of their stream. */
  readonly position?: string;
  readonly pendingFrames?: number;
  /** When the newest change was committed that the target has. */
  readonly commitTime?: string;
  readonly quarantined?: number;
  /** Tables that the flow does not follow. */
  readonly tables?: readonly TableNotice[];
  readonly verified?: VerifiedLine;
  /** How long a heartbeat takes from the source into the target, where one is measured. */
  readonly heartbeatSeconds?: number;
  readonly problem?: Problem;
}

export interface VerifiedLine {
  /** Everything committed before was proven equal. */
  readonly at?: string;
  readonly latest: Verification['state'];
  readonly driftRows: number;
}

/** What makes the records of a canonical flow. */
export interface TransformLine {
  readonly name: string;
  /** The sources. */
  readonly from: readonly string[];
  /** The entity. */
  readonly to: string;
  readonly state: string;
  readonly detail?: string;
  readonly lag: Lag;
  readonly rowsPerSecond?: number;
  /** Frames of the sources that wait. */
  readonly pendingFrames?: number;
  readonly problem?: Problem;
}

export interface AlertLine {
  readonly alert: string;
  readonly severity: Alert['severity'];
  readonly summary: string;
  /** When its condition began to hold. */
  readonly since: string;
  readonly runbook: string;
}

export interface StatusReport {
  readonly at: string;
  readonly nats: { readonly state: 'ok' | 'unreachable'; readonly problem?: Problem };
  readonly sources: readonly SourceLine[];
  readonly transforms: readonly TransformLine[];
  readonly flows: readonly FlowLine[];
  /** Those that stand, as far as that is known. */
  readonly alerts: readonly AlertLine[];
}

/** What is known of one system: its latest answer, and why there is no newer one. */
export interface Known<T> {
  readonly value?: T | undefined;
  readonly error?: ReplicationError | undefined;
}

export interface Readings {
  readonly nats: Known<NatsReading>;
  readonly sources: ReadonlyMap<string, Known<SourceReading>>;
  readonly targets: ReadonlyMap<string, Known<TargetReading>>;
}

const AT_WORK = new Set(['streaming', 'snapshot', 'idle', 'applying']);

export function describeStatus(config: Config, readings: Readings, at: Date): StatusReport {
  const nats = readings.nats.error === undefined ? readings.nats.value : undefined;
  return {
    at: at.toISOString(),
    nats: {
      state: readings.nats.error === undefined ? 'ok' : 'unreachable',
      ...problemOf(readings.nats.error),
    },
    sources: Object.entries(config.sources).map(([name, { kind }]) =>
      sourceLine(
        { name, kind, stream: cdcStreamName(config.nats.prefix, name) },
        readings.sources.get(name) ?? {},
        nats,
      ),
    ),
    transforms: Object.entries(config.canonicalFlows).map(([name, settings]) =>
      transformLine(config, name, settings, nats),
    ),
    flows: flowPaths(config).map((path) =>
      flowLine(
        path,
        path.fanOut === undefined ? (readings.targets.get(path.target) ?? {}) : fanOutReading(path, nats),
        nats,
      ),
    ),
    alerts: (nats?.alerts ?? []).map(({ alert, severity, summary, since, runbook }) => ({
      alert,
      severity,
      summary,
      since,
      runbook,
    })),
  };
}

function transformLine(
  { nats: { prefix } }: Config,
  name: string,
  { canonical, from }: CanonicalFlowConfig,
  nats: NatsReading | undefined,
): TransformLine {
  const id = `transform:${name}`;
  const facts = nats?.facts.get(id);
  const { stream, streamError } = streamOf(nats, canonicalStreamName(prefix, canonical));
  const state = ((): string => {
    if (facts !== undefined) return facts.state;
    if (nats === undefined) return 'unknown';
    if (nats.held.has(id)) return 'running';
    return stream === undefined && streamError === undefined ? 'new' : 'stopped';
  })();
  return {
    name,
    from: Object.keys(from),
    to: canonical,
    state,
    ...optional('detail', facts?.detail),
    lag: facts !== undefined && AT_WORK.has(facts.state) ? facts.lag : { kind: 'unknown' },
    ...(facts === undefined ? {} : { rowsPerSecond: facts.rowsPerSecond }),
    ...optional('pendingFrames', facts?.pendingFrames),
    ...problemOf(streamError ?? errorIn(facts?.detail)),
  };
}

function sourceLine(
  { name, kind, stream: streamName }: { readonly name: string; readonly kind: string; readonly stream: string },
  known: Known<SourceReading>,
  nats: NatsReading | undefined,
): SourceLine {
  const id = `capture:${name}`;
  const facts = nats?.facts.get(id);
  const { stream, streamError } = streamOf(nats, streamName);
  const reading = known.error === undefined ? known.value : undefined;
  const progress = nats?.snapshots.get(name);
  const snapshot = snapshotLine(progress);
  const state = ((): string => {
    if (reading?.state === 'slot_missing' || reading?.state === 'slot_lost' || reading?.state === 'blocked')
      return reading.state;
    if (streamError !== undefined) return 'blocked';
    if (facts !== undefined && (AT_WORK.has(facts.state) || known.error === undefined)) return facts.state;
    if (known.error !== undefined) return 'unreachable';
    if (reading === undefined) return 'unknown';
    if (reading.slotActive === true || nats?.held.has(id) === true)
      return snapshot === undefined ? 'streaming' : 'snapshot';
    if (nats === undefined) return 'unknown';
    return reading.state === 'new' || stream === undefined ? 'new' : 'stopped';
  })();
  const lag = sourceLag(facts, reading, stream, nats);
  const budget = facts?.logBudgetSeconds ?? reading?.logBudgetSeconds ?? retentionBudget(reading?.keepsLogSeconds, lag);
  const detail = reading?.detail ?? facts?.detail;
  return {
    name,
    kind,
    state,
    ...(detail === undefined ? {} : { detail }),
    lag,
    ...(facts === undefined ? {} : { rowsPerSecond: facts.rowsPerSecond }),
    ...(stream === undefined || stream.tail.seq === 0 ? {} : { position: describePosition(stream.tail.end) }),
    ...optional('behindBytes', reading?.behindBytes),
    ...optional('behindTransactions', reading?.behindTransactions),
    ...optional('retainedLogBytes', reading?.retainedLogBytes),
    ...optional('logBudgetSeconds', budget === undefined ? undefined : Math.round(budget)),
    ...optional('spareLogBytes', reading?.spareLogBytes),
    ...optional('spoolBytes', facts?.spoolBytes),
    ...optional('slotActive', reading?.slotActive),
    ...optional('snapshot', snapshot),
    ...problemOf(known.error ?? streamError ?? errorIn(detail)),
  };
}

function sourceLag(
  facts: StageFacts | undefined,
  reading: SourceReading | undefined,
  stream: StreamReading | undefined,
  nats: NatsReading | undefined,
): Lag {
  if (facts !== undefined && AT_WORK.has(facts.state) && facts.lag.kind !== 'unknown') return facts.lag;
  if (reading?.caughtUp === true) return { kind: 'idle' };
  if (reading?.caughtUp === undefined || stream === undefined || nats === undefined) return { kind: 'unknown' };
  // Nobody has looked at the log since the newest frame was stored: what came after is at most that old.
  return { kind: 'lagging', seconds: secondsBetween(stream.storedAt, nats.now), atMost: true };
}

/** A log that is kept for a time loses what we need once that is older. */
function retentionBudget(keepsSeconds: number | undefined, lag: Lag): number | undefined {
  if (keepsSeconds === undefined || lag.kind === 'unknown') return undefined;
  return Math.max(0, keepsSeconds - (lag.kind === 'idle' ? 0 : lag.seconds));
}

function snapshotLine(progress: SnapshotProgress | undefined): SnapshotLine | undefined {
  const open = progress?.tables.filter((table) => table.state !== 'done') ?? [];
  if (progress === undefined || open.length === 0) return undefined;
  const reading = open.find((table) => table.state === 'running') ?? open[0]!;
  return {
    tables: progress.tables.length,
    done: progress.tables.length - open.length,
    rows: progress.tables.reduce((sum, table) => sum + table.rows, 0),
    table: `${reading.schema}.${reading.name}`,
  };
}

/** What is known of flows where they write to. */
interface FlowReading extends Omit<TargetReading, 'positions' | 'quarantined'> {
  readonly positions: readonly Place[];
  /** Undefined where there is no quarantine. */
  readonly quarantined: TargetReading['quarantined'] | undefined;
}

type Place = Pick<PositionRow, 'flow' | 'position' | 'streamSeq' | 'commitTime'>;

/** Of a fan-out NATS is the target. */
function fanOutReading({ name }: FlowPath, nats: NatsReading | undefined): Known<FlowReading> {
  if (nats === undefined) return {};
  const place = nats.fanOuts.get(name);
  const positions =
    place === undefined
      ? []
      : [{ flow: name, position: formatPosition(place.position), streamSeq: place.seq, commitTime: null }];
  return { value: { positions, quarantined: undefined, tables: new Map(), verifications: new Map() } };
}

function flowLine(path: FlowPath, known: Known<FlowReading>, nats: NatsReading | undefined): FlowLine {
  const { name, source, target, stream: streamName } = path;
  const flow = { name, source, target };
  const id = `apply:${flow.name}`;
  const facts = nats?.facts.get(id);
  const { stream } = streamOf(nats, streamName);
  // Of canonical records: the stage that makes them has its own troubles.
  const transform = nats?.facts.get(`transform:${flow.name}`);
  const reading = known.error === undefined ? known.value : undefined;
  const row = reading?.positions.find((each) => each.flow === flow.name);
  const pending = row === undefined || stream === undefined ? undefined : Math.max(0, stream.lastSeq - row.streamSeq);
  const state = ((): string => {
    if (facts !== undefined && (AT_WORK.has(facts.state) || known.error === undefined)) return facts.state;
    if (known.error !== undefined) return 'unreachable';
    if (nats?.held.has(id) === true) return 'running';
    if (nats === undefined || reading === undefined) return 'unknown';
    return row === undefined ? 'new' : 'stopped';
  })();
  const gap = gapError(flow.name, row, stream, state);
  const verification = reading?.verifications.get(flow.name);
  return {
    ...flow,
    state,
    ...optional('detail', facts?.detail),
    lag: flowLag(flow.name, facts, pending, nats),
    ...(facts === undefined ? {} : { rowsPerSecond: facts.rowsPerSecond }),
    ...optional('position', row && placeText(row, path.readsRecords === true)),
    ...optional('pendingFrames', pending),
    ...optional('commitTime', row?.commitTime?.toISOString()),
    ...optional('quarantined', reading?.quarantined && (reading.quarantined.get(flow.name) ?? 0)),
    ...optional(
      'tables',
      (reading?.tables.get(flow.name) ?? []).length === 0 ? undefined : reading?.tables.get(flow.name),
    ),
    ...optional('verified', verification === undefined ? undefined : verifiedLine(verification)),
    ...optional('heartbeatSeconds', heartbeatOf(path, nats)),
    ...problemOf(known.error ?? gap ?? errorIn(facts?.detail) ?? errorIn(transform?.detail)),
  };
}

/** Of those from several sources the one that takes longest. */
function heartbeatOf({ begins, target }: FlowPath, nats: NatsReading | undefined): number | undefined {
  const seconds = begins.flatMap((source) => nats?.heartbeats.get(`${source} ${target}`) ?? []);
  return seconds.length === 0 ? undefined : Math.max(...seconds);
}

function flowLag(
  flow: string,
  facts: StageFacts | undefined,
  pending: number | undefined,
  nats: NatsReading | undefined,
): Lag {
  if (facts !== undefined && AT_WORK.has(facts.state) && facts.lag.kind !== 'unknown') return facts.lag;
  if (pending === 0) return { kind: 'idle' };
  const since = nats?.waitingSince.get(flow);
  if (since === undefined || nats === undefined) return { kind: 'unknown' };
  return { kind: 'lagging', seconds: secondsBetween(since, nats.now) };
}

/** Frames that a flow still needs and the stream has no more: seen before the flow runs into it. */
function gapError(
  flow: string,
  row: Place | undefined,
  stream: StreamReading | undefined,
  state: string,
): ReplicationError | undefined {
  if (row === undefined || stream === undefined || AT_WORK.has(state)) return undefined;
  if (stream.firstSeq <= row.streamSeq + 1 || stream.resetSeq >= stream.firstSeq) return undefined;
  return new ReplicationError(
    'stream_gap',
    `flow ${flow} has applied frame ${row.streamSeq}, and the stream begins at frame ${stream.firstSeq}`,
  );
}

function verifiedLine({ provenAt, state, driftRows }: Verification): VerifiedLine {
  return { ...(provenAt === undefined ? {} : { at: provenAt.toISOString() }), latest: state, driftRows };
}

function streamOf(
  nats: NatsReading | undefined,
  name: string,
): { stream?: StreamReading; streamError?: ReplicationError } {
  const found = nats?.streams.get(name);
  if (found === undefined) return {};
  return found instanceof ReplicationError ? { streamError: found } : { stream: found };
}

function problemOf(error: ReplicationError | undefined): { problem?: Problem } {
  if (error === undefined) return {};
  return { problem: { code: error.code, message: error.message, remedy: error.remedy } };
}

/** Stages and sources give the reason of a state as `code: message`. */
function errorIn(detail: string | undefined): ReplicationError | undefined {
  const [, code, message] = /^([a-z_]+): (.*)$/s.exec(detail ?? '') ?? [];
  const known = ERROR_CODES.find((each) => each === code);
  return known === undefined ? undefined : new ReplicationError(known, message!);
}

function secondsBetween(from: Date, to: Date): number {
  return Math.max(0, (to.getTime() - from.getTime()) / 1000);
}

function optional<K extends string, V>(key: K, value: V | undefined): { [key in K]?: V } {
  return (value === undefined ? {} : { [key]: value }) as { [key in K]?: V };
}
