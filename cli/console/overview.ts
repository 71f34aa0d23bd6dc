/** The overview: what all processes say of themselves, and what NATS and the targets themselves say. */
import { readRequests } from '../../capture/request-queue.ts';
import { readProgress } from '../../capture/snapshot-request.ts';
import { canonicalStreamName } from '../../core/canonical-stream.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import { flowNames, flowSettings, makerOf, sourcesOf } from '../../core/config.ts';
import { asReplicationError } from '../../core/errors.ts';
import { openBucket } from '../../core/lease.ts';
import { natsError } from '../../core/nats.ts';
import { SampleSet } from '../../monitoring/alerts/sample-set.ts';
import type {
  FlowView,
  OverviewView,
  ProcessView,
  SnapshotView,
  SourceView,
  StreamView,
} from '../../monitoring/console/views.ts';
import { METRIC } from '../../monitoring/metric-names.ts';
import type { Observation } from '../../monitoring/observation.ts';
import type { Connections } from './connections.ts';
import { countFindings, lastProof } from './drift.ts';
import { placeText } from '../place-text.ts';
import {
  factsOf,
  find,
  lagOf,
  positionText,
  transformName,
  workOf,
  type OverviewInput,
  type OwnWord,
} from './facts.ts';
import { readFanOuts } from './fan-outs.ts';

export async function readOverview(input: OverviewInput): Promise<OverviewView> {
  const { config, observations, alerts, trends } = input;
  const samples = SampleSet.of(observations);
  const [streams, snapshots] = await Promise.all([readStreams(input), readSnapshots(input)]);
  return {
    at: new Date().toISOString(),
    installation: config.nats.prefix,
    sources: [
      ...Object.keys(config.sources).map((name) => sourceView(input, samples, name)),
      ...Object.keys(config.canonicalFlows).map((name) => transformView(input, name)),
    ],
    streams,
    flows: [
      ...(await Promise.all(flowNames(config).map((name) => flowView(input, samples, streams, name)))),
      ...(await readFanOuts(input, samples, streams)),
    ],
    alerts,
    processes: observations.map(processView).filter((process) => process.stages.length > 0),
    snapshots,
    trends,
  };
}

function processView({ process, startedAt, stages, roles }: Observation): ProcessView {
  return { process, startedAt, stages: roles ?? stages.map((stage) => `${stage.kind}:${stage.name}`) };
}

function sourceView({ config, observations }: OverviewInput, samples: SampleSet, name: string): SourceView {
  const facts = factsOf(observations, 'capture', name);
  const budget = find(samples.max(METRIC.captureBudget[0], ['source']), { source: name });
  return {
    name,
    role: 'source',
    title: name,
    kind: config.sources[name]!.kind,
    state: facts?.state ?? 'silent',
    lagSeconds: lagOf(facts),
    rowsPerSecond: facts?.rowsPerSecond ?? 0,
    ...(facts?.detail === undefined ? {} : { detail: facts.detail }),
    ...(facts?.position === undefined ? {} : { position: positionText(facts.position) }),
    ...(facts?.retainedLogBytes === undefined ? {} : { retainedLogBytes: facts.retainedLogBytes }),
    ...(budget === undefined ? {} : { logBudgetSeconds: budget }),
  };
}

/** The transform of a flow of records: its stream comes from here. */
function transformView({ config, observations }: OverviewInput, flow: string): SourceView {
  const facts = factsOf(observations, 'transform', flow);
  const { from, canonical } = config.canonicalFlows[flow]!;
  const reads = Object.keys(from);
  return {
    name: transformName(flow),
    role: 'transform',
    title: flow,
    kind: `${reads.join(', ')} → ${canonical}`,
    reads,
    state: facts?.state ?? 'silent',
    lagSeconds: lagOf(facts),
    rowsPerSecond: facts?.rowsPerSecond ?? 0,
    ...(facts?.detail === undefined ? {} : { detail: facts.detail }),
  };
}

async function readStreams({ config, connections }: OverviewInput): Promise<StreamView[]> {
  const { prefix } = config.nats;
  const streams = [
    ...Object.keys(config.sources).map((source) => ({ source, name: cdcStreamName(prefix, source) })),
    ...Object.entries(config.canonicalFlows).map(([flow, { canonical }]) => ({
      source: transformName(flow),
      name: canonicalStreamName(prefix, canonical),
    })),
  ];
  return await Promise.all(
    streams.map(async ({ source, name }): Promise<StreamView> => {
      try {
        return await connections.nats.use(async ({ manager }) => {
          try {
            const { state } = await manager.streams.info(name);
            return {
              source,
              name,
              state: 'here',
              frames: state.messages,
              bytes: state.bytes,
              ...(state.messages === 0 ? {} : { lastFrameAt: new Date(state.last_ts).toISOString() }),
            };
          } catch (thrown) {
            const error = natsError(thrown, `stream ${name}`);
            if (error.code === 'stream_missing') return { source, name, state: 'missing' };
            throw error;
          }
        });
      } catch (thrown) {
        // The page says so: it is what it is there for.
        if (asReplicationError(thrown).code === 'internal') throw thrown;
        return { source, name, state: 'unreachable' };
      }
    }),
  );
}

async function readSnapshots({ config, connections }: OverviewInput): Promise<SnapshotView[]> {
  try {
    return await connections.nats.use(async (nats) => {
      const bucket = await openBucket(nats, config.nats);
      const all = await Promise.all(
        Object.keys(config.sources).map(async (source): Promise<SnapshotView | undefined> => {
          const [requests, progress] = [await readRequests(bucket, source), await readProgress(bucket, source)];
          if (progress === undefined && requests.length === 0) return undefined;
          return {
            source,
            id: progress?.id ?? requests[0]!.id,
            asked: requests.length > 0,
            tables: (progress?.tables ?? []).map(({ schema, name, state, rows }) => ({
              table: `${schema}.${name}`,
              state,
              rows,
            })),
          };
        }),
      );
      return all.filter((view) => view !== undefined);
    });
  } catch (thrown) {
    if (asReplicationError(thrown).code === 'internal') throw thrown;
    return [];
  }
}

async function flowView(
  { config, connections, observations }: OverviewInput,
  samples: SampleSet,
  streams: readonly StreamView[],
  name: string,
): Promise<FlowView> {
  const { mirror, to: target } = flowSettings(config, name)!;
  const maker = makerOf(config, name);
  const source = maker === undefined ? mirror : transformName(maker);
  const facts = factsOf(observations, 'apply', name);
  const verified = find(samples.max(METRIC.driftVerified[0], ['flow']), { flow: name });
  const beats = samples.max(METRIC.heartbeat[0], ['source', 'target']);
  const seconds = sourcesOf(config, name).flatMap((from) => find(beats, { source: from, target }) ?? []);
  const heartbeat = seconds.length === 0 ? undefined : Math.max(...seconds);
  const coverage = find(samples.max(METRIC.driftCoverage[0], ['flow']), { flow: name });
  const own = await ownWord(connections, target, name, config.flows[name] === undefined);
  return {
    name,
    source,
    target,
    targetKind: config.targets[target]!.kind,
    ...workOf(facts, own, samples, { name, stream: streams.find((each) => each.source === source) }),
    ...(own.commitTime === undefined ? {} : { commitTime: own.commitTime }),
    ...(own.quarantined === undefined ? {} : { quarantined: own.quarantined }),
    ...(own.drift === undefined ? {} : { drift: own.drift }),
    ...verifiedAt(verified, own),
    ...(coverage === undefined ? {} : { coverage }),
    ...(heartbeat === undefined ? {} : { heartbeatSeconds: heartbeat }),
  };
}

/** A proof that a process of now reports, or a later one of which the target knows: the command and the console compare, too. */
function verifiedAt(reported: number | undefined, own: OwnWord): { verifiedAt?: string } {
  const known = reported === undefined ? undefined : new Date(reported * 1000).toISOString();
  const at = [known, own.provenAt]
    .filter((each) => each !== undefined)
    .toSorted()
    .at(-1);
  return at === undefined ? {} : { verifiedAt: at };
}

/** What the target itself says of a flow. */
async function ownWord(
  connections: Connections,
  target: string,
  flow: string,
  readsRecords: boolean,
): Promise<OwnWord> {
  try {
    const [row, reasons, found, provenAt] = await Promise.all([
      connections
        .desk(target)
        .use(async (desk) => (await desk.readPositions()).find((position) => position.flow === flow)),
      connections.desk(target).use((desk) => desk.countReasons(flow)),
      connections.target(target).use((reader) => countFindings(reader, flow)),
      connections.target(target).use((reader) => lastProof(reader, flow)),
    ]);
    const drift = found.reduce((sum, each) => sum + each.rows, 0);
    return {
      ...(row === undefined ? {} : { position: placeText(row, readsRecords) }),
      ...(row?.commitTime == null ? {} : { commitTime: row.commitTime.toISOString() }),
      quarantined: reasons.reduce((sum, { count }) => sum + count, 0),
      drift,
      ...(provenAt === undefined ? {} : { provenAt }),
    };
  } catch (thrown) {
    const error = asReplicationError(thrown);
    if (error.code === 'internal') throw thrown;
    return { detail: `${error.code}: ${error.message}` };
  }
}
