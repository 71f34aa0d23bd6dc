/** Rules and dashboards ask for labels, and for states, that the series have: a wrong one gives no error, but never an answer. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { METRIC } from '../../monitoring/metric-names.ts';
import { Metrics } from '../../monitoring/metrics.ts';
import { dashboards, queries } from '../support/dashboards.ts';
import { exportedLabels, grouping, made, selectors } from '../support/promql.ts';

interface Rule {
  readonly alert?: string;
  readonly record?: string;
  readonly expr: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

const file = resolve(import.meta.dirname, '../../monitoring/prometheus/waybill.rules.yml');
const { groups } = parse(readFileSync(file, 'utf8')) as { groups: { rules: Rule[] }[] };
const rules = groups.flatMap((group) => group.rules);
const metrics = new Metrics();
const labels = exportedLabels(metrics);
// What is recorded bears the labels that its rule groups by.
for (const { record, expr } of rules)
  if (record !== undefined)
    labels.set(
      record,
      grouping(expr).filter((label) => label !== 'le'),
    );

/** Labels that the answer to an expression may bear. */
function answered(expr: string): string[] {
  const grouped = grouping(expr);
  return grouped.length > 0
    ? grouped
    : [...selectors(expr).flatMap(({ series }) => labels.get(series)!), ...made(expr)];
}

function check(expr: string): void {
  const found = selectors(expr);
  expect(found.length, expr).toBeGreaterThan(0);
  for (const { series, matchers } of found) {
    expect([...labels.keys()], expr).toContain(series);
    for (const [label] of matchers) expect(labels.get(series), `${series}: ${expr}`).toContain(label);
  }
  const there = [...found.flatMap(({ series }) => labels.get(series)!), ...made(expr)];
  for (const label of grouping(expr)) expect(there, expr).toContain(label);
}

describe('labels', () => {
  it('are known of every series', () => {
    for (const [name] of Object.values(METRIC)) expect([...labels.keys()]).toContain(name);
  });

  it.each(rules.map((rule) => [rule.alert ?? rule.record!, rule] as const))('%s asks for what there is', (_, rule) => {
    check(rule.expr);
    for (const text of Object.values(rule.annotations ?? {}))
      for (const [, label] of text.matchAll(/\$labels\.(\w+)/g)) expect(answered(rule.expr), text).toContain(label);
  });

  it.each(dashboards().map((dashboard) => [dashboard.title, dashboard] as const))(
    'dashboard %s asks for what there is',
    (_, dashboard) => {
      for (const { expr, legend } of queries(dashboard)) {
        check(expr);
        for (const [, label] of (legend ?? '').matchAll(/\{\{\s*(\w+)\s*\}\}/g))
          expect(answered(expr), `${legend}: ${expr}`).toContain(label);
      }
      for (const { query } of dashboard.templating.list) {
        const [, series, label] = /^label_values\((\w+), (\w+)\)$/.exec(query.query) ?? [];
        expect(labels.get(series!), query.query).toContain(label);
      }
    },
  );
});

describe('states', () => {
  it('that rules and dashboards ask for are among those that there are', async () => {
    metrics.captureReport('a').state('idle');
    metrics.transformReport('b', 'c', () => 'd').state('idle');
    metrics.flowReport('b', 'e', 'f').state('idle');
    const states = new Map<string, Set<unknown>>();
    for (const { name, values } of await metrics.registry.getMetricsAsJSON())
      states.set(name, new Set(values.map((value) => value.labels['state'])));
    let asked = 0;
    for (const expr of [...rules, ...dashboards().flatMap(queries)].map((each) => each.expr))
      for (const { series, matchers } of selectors(expr))
        for (const [, value] of matchers.filter(([label]) => label === 'state'))
          for (const state of value.split('|')) {
            expect(states.get(series), expr).toContain(state);
            asked += 1;
          }
    expect(asked).toBeGreaterThan(10);
  });
});
