/** What a condition is, for those without Prometheus. */
import type { History } from './history.ts';
import type { Labels, Point, SampleSet } from './sample-set.ts';

export type Severity = 'warning' | 'critical';

/** Whether a condition holds for a set of labels. What is not among the verdicts of a moment is not known then. */
export interface Verdict extends Point {
  readonly holds: boolean;
}

export interface Moment {
  readonly nowMs: number;
  readonly samples: SampleSet;
  readonly history: History;
}

export interface AlertRule {
  readonly alert: string;
  readonly severity: Severity;
  /** How long the condition must hold. */
  readonly forMs: number;
  /** Section of docs/runbook.md. */
  readonly runbook: string;
  judge(moment: Moment): Verdict[];
  /** What becomes of an alert of which there is no verdict. Left out, or undefined: it stands for an hour. */
  unjudged?(labels: Labels, moment: Moment): 'stands' | 'ended' | undefined;
  summary(labels: Labels, value: number): string;
}

export const MINUTE_MS = 60_000;

export function threshold(points: readonly Point[], holds: (value: number) => boolean): Verdict[] {
  return points.map((point) => ({ ...point, holds: holds(point.value) }));
}
