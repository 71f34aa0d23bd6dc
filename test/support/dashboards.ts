/** The provisioned dashboards, and the queries of their panels and variables. */
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

export const GRAFANA = resolve(import.meta.dirname, '../../monitoring/grafana');

export interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly datasource?: { readonly uid: string };
  readonly targets?: readonly {
    readonly refId: string;
    readonly expr: string;
    readonly legendFormat?: string;
    readonly datasource: { uid: string };
  }[];
}

export interface Dashboard {
  readonly uid: string;
  readonly title: string;
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly { readonly name: string; readonly query: { query: string } }[] };
}

export function dashboards(): Dashboard[] {
  const folder = join(GRAFANA, 'dashboards');
  return readdirSync(folder).map((file) => JSON.parse(readFileSync(join(folder, file), 'utf8')) as Dashboard);
}

export interface Query {
  readonly place: string;
  /** As Prometheus is asked: with the variables of Grafana filled in. */
  readonly expr: string;
  /** How its lines are named. */
  readonly legend: string | undefined;
}

export function queries(dashboard: Dashboard): Query[] {
  const fill = (expr: string): string => {
    let filled = expr.replaceAll('$__rate_interval', '1m');
    for (const { name } of dashboard.templating.list) filled = filled.replaceAll(`$${name}`, '.*');
    return filled;
  };
  return dashboard.panels.flatMap((panel) =>
    (panel.targets ?? []).map((target) => ({
      place: `${dashboard.title}: ${panel.title} ${target.refId}`,
      expr: fill(target.expr),
      legend: target.legendFormat,
    })),
  );
}
