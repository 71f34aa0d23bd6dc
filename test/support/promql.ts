/** What an expression of PromQL asks of series: as far as the rules and dashboards here go. */
import type { Metrics } from '../../monitoring/metrics.ts';

export interface Selector {
  readonly series: string;
  /** Conditions on labels: label and what it is compared with. */
  readonly matchers: readonly (readonly [label: string, value: string])[];
}

/** The series of Waybill in an expression, recorded ones (`waybill:…`) too. */
export function selectors(expr: string): Selector[] {
  return [...expr.matchAll(/\b(waybill[_:][\w:]+)(?:\{([^}]*)\})?/g)].map(([, series, braces]) => ({
    series: series!,
    matchers: [...(braces ?? '').matchAll(/(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"/g)].map(
      ([, label, value]) => [label!, value!] as const,
    ),
  }));
}

/** Labels by which an expression groups. */
export function grouping(expr: string): string[] {
  return [...expr.matchAll(/\b(?:by|on)\s*\(([^)]*)\)/g)].flatMap(([, list]) => list!.split(/\s*,\s*/).filter(Boolean));
}

/** Labels that an expression makes. */
export function made(expr: string): string[] {
  return [...expr.matchAll(/label_replace\((?:[^()]|\([^()]*\))*?,\s*"(\w+)"/g)].map(([, label]) => label!);
}

/** The labels of each series that is exported, by its name; `_bucket` of histograms as well. */
export function exportedLabels({ registry }: Metrics): Map<string, readonly string[]> {
  const labels = new Map<string, readonly string[]>();
  for (const { name, type } of registry.getMetricsAsArray()) {
    const { labelNames } = registry.getSingleMetric(name) as unknown as { labelNames: readonly string[] };
    labels.set(name, labelNames);
    if ((type as unknown) === 'histogram') labels.set(`${name}_bucket`, [...labelNames, 'le']);
  }
  return labels;
}
