/** Tells when alerts begin and end: each once. */
import type { AlertRule, Moment, Severity } from './alert-rule.ts';
import { History } from './history.ts';
import { ALERT_RULES } from './rules.ts';
import type { Labels, SampleSet } from './sample-set.ts';

export interface Alert {
  readonly alert: string;
  readonly severity: Severity;
  readonly labels: Labels;
  readonly summary: string;
  readonly runbook: string;
  readonly value: number;
  /** When its condition began to hold: RFC 3339. */
  readonly since: string;
}

export interface Transition {
  readonly state: 'firing' | 'resolved';
  readonly alert: Alert;
}

/** How long an alert stands when nothing is known of its condition any more. */
const UNKNOWN_MS = 3_600_000;

interface Firing {
  alert: Alert;
  knownMs: number;
}

export class AlertEvaluator {
  readonly #rules: readonly AlertRule[];
  readonly #patience: number;
  readonly #history: History;
  readonly #pending = new Map<string, number>();
  readonly #firing = new Map<string, Firing>();

  /** `firing` are the alerts that were told of before. `patience` scales the time for which conditions must hold. */
  constructor(
    options: {
      readonly rules?: readonly AlertRule[];
      readonly patience?: number;
      readonly history?: History;
      readonly firing?: readonly Alert[];
      readonly nowMs?: number;
    } = {},
  ) {
    this.#rules = options.rules ?? ALERT_RULES;
    this.#patience = options.patience ?? 1;
    this.#history = options.history ?? new History();
    for (const alert of options.firing ?? [])
      this.#firing.set(idOf(alert.alert, alert.labels), { alert, knownMs: options.nowMs ?? Date.now() });
  }

  firing(): Alert[] {
    return [...this.#firing.values()].map(({ alert }) => alert);
  }

  /** Looks at the samples of one moment, later than all before. `nowMs` is the time since the epoch. */
  evaluate(nowMs: number, samples: SampleSet): Transition[] {
    this.#history.observe(nowMs, samples);
    const transitions: Transition[] = [];
    const judged = new Set<string>();
    const moment: Moment = { nowMs, samples, history: this.#history };
    for (const rule of this.#rules)
      for (const { labels, value, holds } of rule.judge(moment)) {
        const id = idOf(rule.alert, labels);
        judged.add(id);
        const firing = this.#firing.get(id);
        if (firing !== undefined) firing.knownMs = nowMs;
        if (!holds) {
          this.#pending.delete(id);
          if (firing === undefined) continue;
          this.#firing.delete(id);
          transitions.push({ state: 'resolved', alert: firing.alert });
          continue;
        }
        const since = this.#pending.get(id) ?? nowMs;
        this.#pending.set(id, since);
        if (nowMs - since < rule.forMs * this.#patience) continue;
        const alert = {
          alert: rule.alert,
          severity: rule.severity,
          labels,
          summary: rule.summary(labels, value),
          runbook: `docs/runbook.md#${rule.runbook}`,
          value,
          since: firing?.alert.since ?? new Date(since).toISOString(),
        };
        this.#firing.set(id, { alert, knownMs: nowMs });
        if (firing === undefined) transitions.push({ state: 'firing', alert });
      }
    // What is not known any more does not go on holding, but an alert does not end by it either.
    for (const id of this.#pending.keys()) if (!judged.has(id)) this.#pending.delete(id);
    for (const [id, firing] of this.#firing)
      if (!judged.has(id) && this.#hasEnded(firing, moment)) {
        this.#firing.delete(id);
        transitions.push({ state: 'resolved', alert: firing.alert });
      }
    return transitions;
  }

  /** Whether an alert ends of which there is no verdict. */
  #hasEnded(firing: Firing, moment: Moment): boolean {
    const { alert, knownMs } = firing;
    const rule = this.#rules.find((each) => each.alert === alert.alert);
    const word = rule?.unjudged?.(alert.labels, moment);
    if (word === 'stands') firing.knownMs = moment.nowMs;
    return word === 'ended' || (word === undefined && moment.nowMs - knownMs > UNKNOWN_MS);
  }
}

function idOf(alert: string, labels: Labels): string {
  return JSON.stringify([alert, Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))]);
}
