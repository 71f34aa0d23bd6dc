/**
 * The conditions on what comparisons find. What they know outlives the process that compares: until another one knows
 * better, or the flow is compared no more by any configuration. While nothing reports at all, nothing says that.
 */
import { METRIC } from '../metric-names.ts';
import { MINUTE_MS, threshold, type AlertRule } from './alert-rule.ts';
import { humanDuration } from './human.ts';
import type { Labels, Point, SampleSet } from './sample-set.ts';

/** Whether a process can know what comparisons of the flow have found. */
function isKnown(samples: SampleSet, flow: string | undefined): boolean {
  return samples.all(METRIC.driftTables[0]).some(({ labels }) => labels['flow'] === flow);
}

/** Whether a configuration has the flow compared, or none is heard of. */
function isCompared(samples: SampleSet, flow: string | undefined): boolean {
  const stages = samples.all(METRIC.stageProcesses[0]);
  return stages.length === 0 || stages.some(({ labels }) => labels['stage'] === 'verify' && labels['name'] === flow);
}

/** The rows that differ, of those known last. */
export function driftNow(samples: SampleSet, before: readonly Point[]): Point[] {
  const reported = samples.sum(METRIC.driftRows[0], ['flow', 'table', 'kind']);
  const id = ({ flow, table, kind }: Labels): string => JSON.stringify([flow, table, kind]);
  const known = new Set(reported.map(({ labels }) => id(labels)));
  const kept = before.filter(
    ({ labels }) => !known.has(id(labels)) && !isKnown(samples, labels['flow']) && isCompared(samples, labels['flow']),
  );
  return [...reported, ...kept];
}

/**
 * When each flow was proven last, in seconds since 1970. One that was never proven has no such time, but one since when a
 * proof has been wanting.
 */
export function proofsNow(samples: SampleSet, before: readonly Point[]): Point[] {
  const proofs = new Map<string, Point>();
  const add = (points: readonly Point[]): void => {
    for (const point of points) if (!proofs.has(point.labels['flow']!)) proofs.set(point.labels['flow']!, point);
  };
  add(samples.max(METRIC.driftVerified[0], ['flow']));
  add(samples.max(METRIC.driftAwaited[0], ['flow']));
  add(before.filter(({ labels }) => isCompared(samples, labels['flow'])));
  return [...proofs.values()];
}

export const DRIFT_RULES: readonly AlertRule[] = [
  {
    alert: 'WaybillDrift',
    severity: 'critical',
    forMs: 15 * MINUTE_MS,
    runbook: 'waybilldrift',
    judge: ({ history }) => threshold(history.drift, (rows) => rows > 0),
    unjudged: ({ flow }, { samples }) => {
      // Who knows the flow names the tables that differ: of this one there is nothing left.
      if (isKnown(samples, flow)) return 'ended';
      return isCompared(samples, flow) ? 'stands' : 'ended';
    },
    summary: ({ flow, table, kind }, value) => `Flow ${flow}: ${value} rows of ${table} are ${kind}`,
  },
  {
    alert: 'WaybillUnverified',
    severity: 'warning',
    forMs: 5 * MINUTE_MS,
    runbook: 'waybillunverified',
    judge: ({ history, nowMs }) =>
      threshold(
        history.proofs.map(({ labels, value }) => ({ labels, value: nowMs / 1000 - value })),
        (seconds) => seconds > 86_400,
      ),
    unjudged: ({ flow }, { samples }) => (isCompared(samples, flow) ? 'stands' : 'ended'),
    summary: ({ flow }, value) => `Flow ${flow} has not been proven equal for ${humanDuration(value)}`,
  },
];
