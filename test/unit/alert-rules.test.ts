/** The conditions for webhooks are those of Prometheus: both are run on the series of waybill.rules.test.yml. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { AlertEvaluator, type Alert, type Transition } from '../../monitoring/alerts/evaluator.ts';
import { History } from '../../monitoring/alerts/history.ts';
import { humanBytes, humanDuration } from '../../monitoring/alerts/human.ts';
import { ALERT_RULES } from '../../monitoring/alerts/rules.ts';
import { SampleSet } from '../../monitoring/alerts/sample-set.ts';
import type { Sample } from '../../monitoring/observation.ts';

const folder = resolve(import.meta.dirname, '../../monitoring/prometheus');
const read = (file: string): unknown => parse(readFileSync(`${folder}/${file}`, 'utf8'));
const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;

function minutes(text: string | undefined): number {
  const [, count, unit] = /^(\d+)([mhd])$/.exec(text ?? '0m')!;
  return Number(count) * { m: 1, h: 60, d: 1440 }[unit as 'm' | 'h' | 'd'];
}

/** The notation of promtool: `a+bxn` is n + 1 values, `axn` too, `_xn` is n times none, `stale` ends the series. */
function expand(values: string): (number | undefined)[] {
  return values.split(/\s+/).flatMap((item) => {
    if (item === 'stale') return [undefined];
    const [, none] = /^_x(\d+)$/.exec(item) ?? [];
    if (none !== undefined) return Array.from({ length: Number(none) }, () => undefined);
    const [, start, step = '0', times = '0'] = /^(-?\d+)([+-]\d+)?(?:x(\d+))?$/.exec(item)!;
    return Array.from({ length: Number(times) + 1 }, (_, i) => Number(start) + Number(step) * i);
  });
}

interface Series {
  readonly name: string;
  readonly labels: Record<string, string>;
  readonly values: readonly (number | undefined)[];
}

function series(input: { series: string; values: string }): Series {
  const [, name, labels = ''] = /^(\w+)(?:\{(.*)\})?$/.exec(input.series)!;
  const pairs = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, value]) => [key!, value!] as const);
  return { name: name!, labels: Object.fromEntries(pairs), values: expand(input.values) };
}

/** As Prometheus sees it: the newest value for five minutes, but not beyond a mark of staleness. */
function valueAt({ values }: Series, minute: number): number | undefined {
  if (minute < values.length) return values[minute];
  return minute - values.length < 4 ? values.at(-1) : undefined;
}

interface Case {
  readonly eval_time: string;
  readonly alertname: string;
  readonly exp_alerts: { exp_labels: Record<string, string>; exp_annotations: Record<string, string> }[];
}
type Test = { name: string; input_series: { series: string; values: string }[]; alert_rule_test: Case[] };
const { tests } = read('waybill.rules.test.yml') as { tests: Test[] };

describe('alert rules for webhooks', () => {
  it('are those of Prometheus: names, severities, patience and runbook', () => {
    type Rule = { alert?: string; for?: string; labels: { severity: string }; annotations: { runbook: string } };
    const rules = (read('waybill.rules.yml') as { groups: { rules: Rule[] }[] }).groups
      .flatMap((group) => group.rules)
      .filter((rule) => rule.alert !== undefined);
    const shown = (alert: string, severity: string, forMs: number, runbook: string): string =>
      `${alert} ${severity} ${forMs} ${runbook}`;
    expect(
      ALERT_RULES.map((rule) => shown(rule.alert, rule.severity, rule.forMs, `docs/runbook.md#${rule.runbook}`)).sort(),
    ).toEqual(
      rules
        .map((rule) =>
          shown(rule.alert!, rule.labels.severity, minutes(rule.for) * MINUTE_MS, rule.annotations.runbook),
        )
        .sort(),
    );
  });

  it.each(tests.map((test) => [test.name, test] as const))('agree with promtool on: %s', (_, test) => {
    const inputs = test.input_series.map(series);
    const last = Math.max(...test.alert_rule_test.map((each) => minutes(each.eval_time)));
    const evaluator = new AlertEvaluator({ history: new History(0) });
    const firingAt: Alert[][] = [];
    for (let minute = 0; minute <= last; minute++) {
      const samples = inputs.flatMap((input): Sample[] => {
        const value = valueAt(input, minute);
        return value === undefined ? [] : [{ name: input.name, labels: input.labels, value }];
      });
      evaluator.evaluate(minute * MINUTE_MS, new SampleSet(samples));
      firingAt.push(evaluator.firing());
    }
    for (const { eval_time: time, alertname, exp_alerts: expected } of test.alert_rule_test) {
      const fired = firingAt[minutes(time)]!.filter(({ alert }) => alert === alertname);
      expect(
        fired.map(({ severity, labels, summary, runbook }) => [
          { severity, ...labels },
          { summary, runbook },
        ]),
        `${alertname} at ${time}`,
      ).toEqual(expected.map((each) => [each.exp_labels, each.exp_annotations]));
    }
  });
});

describe('alerts', () => {
  const lag = (value: number | undefined): SampleSet =>
    new SampleSet(
      value === undefined ? [] : [{ name: 'waybill_apply_lag_seconds', labels: { flow: 'f', target: 't' }, value }],
    );
  const told = (transitions: Transition[]): string[] =>
    transitions.filter(({ alert }) => alert.alert === 'WaybillApplyLag').map(({ state }) => state);

  it('are told of once when they begin and once when they end', () => {
    const evaluator = new AlertEvaluator();
    const states = [0, 61, 61, 61, 61, 5, 5, 61, 61].map((value, minute) =>
      told(evaluator.evaluate(minute * MINUTE_MS, lag(value))),
    );
    expect(states).toEqual([[], [], ['firing'], [], [], ['resolved'], [], [], ['firing']]);
  });

  it('stand through a restart, and while nothing is known of their condition', () => {
    const before = new AlertEvaluator();
    before.evaluate(0, lag(61));
    expect(told(before.evaluate(MINUTE_MS, lag(61)))).toEqual(['firing']);
    const after = new AlertEvaluator({ firing: before.firing(), nowMs: 2 * MINUTE_MS });
    expect(told(after.evaluate(2 * MINUTE_MS, lag(undefined)))).toEqual([]);
    expect(told(after.evaluate(3 * MINUTE_MS, lag(70)))).toEqual([]);
    expect(told(after.evaluate(5 * MINUTE_MS, lag(70)))).toEqual([]);
    expect(after.firing().find(({ alert }) => alert === 'WaybillApplyLag')!.since).toBe('1970-01-01T00:00:00.000Z');
    expect(told(after.evaluate(6 * MINUTE_MS, lag(1)))).toEqual(['resolved']);
  });

  it('end at last when nothing is known any more', () => {
    const evaluator = new AlertEvaluator();
    evaluator.evaluate(0, lag(61));
    evaluator.evaluate(MINUTE_MS, lag(61));
    expect(told(evaluator.evaluate(DAY_MS, lag(undefined)))).toEqual(['resolved']);
  });

  it('of drift stand through a restart of who tells of them, for as long as the flow is to be compared', () => {
    const stages = (count: number): Sample => ({
      name: 'waybill_stage_processes',
      labels: { stage: 'verify', name: 'f' },
      value: count,
    });
    const other = { name: 'waybill_stage_processes', labels: { stage: 'apply', name: 'f' }, value: 1 };
    const drift: Sample[] = [
      { name: 'waybill_drift_rows', labels: { flow: 'f', table: 'public.a', kind: 'missing' }, value: 2 },
      { name: 'waybill_drift_tables', labels: { flow: 'f' }, value: 1 },
    ];
    const states = (transitions: Transition[]): string[] =>
      transitions.filter(({ alert }) => alert.alert === 'WaybillDrift').map(({ state }) => state);
    const firing = (): AlertEvaluator => {
      const before = new AlertEvaluator();
      before.evaluate(0, new SampleSet([stages(1), ...drift]));
      before.evaluate(15 * MINUTE_MS, new SampleSet([stages(1), ...drift]));
      return new AlertEvaluator({ firing: before.firing(), nowMs: 16 * MINUTE_MS });
    };
    const stopped = firing();
    expect(states(stopped.evaluate(DAY_MS, new SampleSet([stages(0), other])))).toEqual([]);
    expect(states(stopped.evaluate(2 * DAY_MS, new SampleSet([stages(1), other])))).toEqual([]);
    // What is equal again may not be named: there are too many tables.
    const known: Sample[] = [stages(1), { name: 'waybill_drift_tables', labels: { flow: 'f' }, value: 0 }];
    expect(states(stopped.evaluate(2 * DAY_MS + 1000, new SampleSet(known)))).toEqual(['resolved']);
    expect(states(firing().evaluate(DAY_MS, new SampleSet([other])))).toEqual(['resolved']);
  });

  it('do not add up what held before a time of which nothing is known', () => {
    const evaluator = new AlertEvaluator();
    evaluator.evaluate(0, lag(61));
    evaluator.evaluate(30_000, lag(undefined));
    expect(told(evaluator.evaluate(2 * MINUTE_MS, lag(61)))).toEqual([]);
  });
});

it('figures are written as Prometheus writes them', () => {
  expect([0, 0.25, 1.5, 61, 3600, 90_061].map(humanDuration)).toEqual([
    '0s',
    '250ms',
    '1.5s',
    '1m 1s',
    '1h 0m 0s',
    '1d 1h 1m 1s',
  ]);
  expect([0, 1536, 2 ** 31].map(humanBytes)).toEqual(['0B', '1.5KiB', '2GiB']);
});
