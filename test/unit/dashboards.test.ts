/** The dashboards ask for what exists, and can be provisioned. That Prometheus answers them: integration/alerts.test.ts. */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { METRIC } from '../../monitoring/metric-names.ts';
import { dashboards, GRAFANA, queries } from '../support/dashboards.ts';

const names = new Set(Object.values(METRIC).flatMap(([name]) => [name, `${name}_bucket`]));
const read = (path: string): string => readFileSync(resolve(GRAFANA, path), 'utf8');

describe.each(dashboards().map((dashboard) => [dashboard.uid, dashboard] as const))('dashboard %s', (_, dashboard) => {
  it('asks only for series that exist', () => {
    const texts = [
      ...queries(dashboard).map(({ expr }) => expr),
      ...dashboard.templating.list.map(({ query }) => query.query),
    ];
    for (const text of texts) {
      const asked = [...text.matchAll(/\bwaybill_\w+/g)].map(([name]) => name);
      expect(asked.length, text).toBeGreaterThan(0);
      for (const name of asked) expect(names, text).toContain(name);
      expect(text, 'a variable that is not declared').not.toMatch(/\$/);
    }
  });

  it('has panels that do not overlap, each with its own id, a title and the provisioned data source', () => {
    const { uid } = (parse(read('provisioning/datasources/waybill.yml')) as { datasources: { uid: string }[] })
      .datasources[0]!;
    const ids = dashboard.panels.map((panel) => panel.id);
    expect(new Set(ids).size).toBe(ids.length);
    const taken = new Set<string>();
    for (const { title, gridPos, targets, type } of dashboard.panels) {
      expect(title).not.toBe('');
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken, title).not.toContain(`${x},${y}`);
          taken.add(`${x},${y}`);
        }
      expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24);
      if (type !== 'row' && type !== 'text') expect(targets!.length, title).toBeGreaterThan(0);
      for (const target of targets ?? []) expect(target.datasource.uid).toBe(uid);
    }
  });
});

describe('provisioning', () => {
  it('names each dashboard once, and links lead to one of them', () => {
    const all = dashboards();
    const uids = new Set(all.map(({ uid }) => uid));
    expect([...uids].sort()).toEqual([
      'waybill-overview',
      'waybill-quarantine',
      'waybill-records',
      'waybill-source',
      'waybill-target',
    ]);
    for (const [, uid] of JSON.stringify(all).matchAll(/\/d\/([\w-]+)/g)) expect(uids).toContain(uid);
  });

  it('is what docker-compose.yml mounts', () => {
    type Compose = { services: { grafana: { volumes: string[]; environment: Record<string, string> } } };
    const { grafana } = (parse(read('../../docker-compose.yml')) as Compose).services;
    const [provider] = (
      parse(read('provisioning/dashboards/waybill.yml')) as { providers: { options: { path: string } }[] }
    ).providers;
    const mounts = new Map(grafana.volumes.map((volume) => volume.split(':') as [string, string]));
    expect(mounts.get('./monitoring/grafana/dashboards')).toBe(provider!.options.path);
    expect(mounts.get('./monitoring/grafana/provisioning')).toBe('/etc/grafana/provisioning');
    const home = grafana.environment['GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH']!;
    const file = home.slice(provider!.options.path.length + 1);
    expect(read(join('dashboards', file))).toContain('waybill-overview');
    expect(read('provisioning/datasources/waybill.yml')).toContain('${WAYBILL_PROMETHEUS_URL}');
    expect(grafana.environment).toHaveProperty('WAYBILL_PROMETHEUS_URL');
  });
});
