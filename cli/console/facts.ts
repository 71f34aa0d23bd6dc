/** What the overview knows of stages and streams, whichever of its parts asks. */
import type { Config } from '../../core/config.ts';
import { describePosition, parsePosition } from '../../core/position.ts';
import type { Alert } from '../../monitoring/alerts/evaluator.ts';
import type { Point, SampleSet } from '../../monitoring/alerts/sample-set.ts';
import type { FlowView, StreamView, TrendView } from '../../monitoring/console/views.ts';
import type { StageFacts } from '../../monitoring/health.ts';
import { METRIC } from '../../monitoring/metric-names.ts';
import type { Observation } from '../../monitoring/observation.ts';
import type { Connections } from './connections.ts';

export interface OverviewInput {
  readonly config: Config;
  readonly connections: Connections;
  readonly observations: readonly Observation[];
  readonly alerts: readonly Alert[];
  readonly trends: Readonly<Record<string, TrendView>>;
}

/** Where several processes have a stage, one works, and the others stand by or fail. */
const RANK: Readonly<Record<string, number>> = { stopped: 0, starting: 1, standby: 1, blocked: 2, waiting: 2 };

/** What is said of a stage by the process that works on it. */
export function factsOf(
  observations: readonly Observation[],
  kind: StageFacts['kind'],
  name: string,
): StageFacts | undefined {
  const all = observations.flatMap(({ stages }) => stages.filter((each) => each.kind === kind && each.name === name));
  return all.sort((a, b) => (RANK[b.state] ?? 3) - (RANK[a.state] ?? 3))[0];
}

/** Seconds; 0 where nothing waits, null while that is not known. */
export function lagOf(facts: StageFacts | undefined): number | null {
  if (facts === undefined || facts.lag.kind === 'unknown') return null;
  return facts.lag.kind === 'idle' ? 0 : facts.lag.seconds;
}

/** A position as people know it: an LSN, GTIDs. */
export function positionText(text: string): string {
  const position = parsePosition(text);
  return position === undefined ? text : describePosition(position);
}

/** The value of the point that has these labels. */
export function find(points: readonly Point[], labels: Readonly<Record<string, string>>): number | undefined {
  return points.find((point) => Object.entries(labels).every(([key, value]) => point.labels[key] === value))?.value;
}

/** The name of a transform among sources: what it makes is a stream as theirs are. */
export const transformName = (flow: string): string => `flow:${flow}`;

/** What the place that a flow writes to knows of it. */
export interface OwnWord {
  /** As people know it. */
  readonly position?: string;
  readonly commitTime?: string;
  readonly quarantined?: number;
  readonly drift?: number;
  readonly provenAt?: string;
  /** Why the target could not be asked. */
  readonly detail?: string;
}

type Work = Pick<
  FlowView,
  'state' | 'lagSeconds' | 'rowsPerSecond' | 'detail' | 'position' | 'pendingFrames' | 'keptSeconds'
>;

/** How the work of a flow goes: what its process says, and, where that says nothing, what the place that it writes to does. */
export function workOf(
  facts: StageFacts | undefined,
  own: Pick<OwnWord, 'position' | 'detail'>,
  samples: SampleSet,
  { name, stream }: { readonly name: string; readonly stream: StreamView | undefined },
): Work {
  const kept = find(samples.max(METRIC.streamRetention[0], ['consumer']), { consumer: name });
  const detail = facts?.detail ?? own.detail;
  return {
    state: facts?.state ?? (own.detail === undefined ? 'silent' : 'unreachable'),
    lagSeconds: lagOf(facts),
    rowsPerSecond: facts?.rowsPerSecond ?? 0,
    ...(detail === undefined ? {} : { detail }),
    ...(own.position === undefined ? {} : { position: own.position }),
    ...(facts?.pendingFrames === undefined || stream?.state !== 'here' ? {} : { pendingFrames: facts.pendingFrames }),
    ...(kept === undefined ? {} : { keptSeconds: kept }),
  };
}
