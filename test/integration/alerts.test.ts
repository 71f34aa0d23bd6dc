/** The alert rules: checked by promtool, and fired in a real Prometheus by breaking real things. */
import { readFileSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { METRIC } from '../../monitoring/metric-names.ts';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { run } from '../../sandbox/process.ts';
import { findPrometheus, startPrometheus, type PrometheusServer } from '../../sandbox/prometheus.ts';
import { Pipeline } from '../support/pipeline.ts';
import { dashboards, queries } from '../support/dashboards.ts';
import { Stage } from '../support/stage.ts';
import { stockMapping } from '../support/stock-mapping.ts';
import { waitFor } from '../support/wait.ts';

const FOLDER = resolve(import.meta.dirname, '../../monitoring/prometheus');
const RULES = readFileSync(join(FOLDER, 'waybill.rules.yml'), 'utf8');

interface Rule {
  readonly alert?: string;
  readonly expr: string;
  readonly annotations?: { readonly runbook?: string; readonly summary?: string };
}
const STOCK_MAP = stockMapping({ name: 'wms', fields: { location: '{ const: N }', on_hand: 'n' } });

const rules = (parse(RULES) as { groups: { rules: Rule[] }[] }).groups.flatMap((group) => group.rules);
const alerts = rules.filter((rule) => rule.alert !== undefined);

describe('alert rules', () => {
  it('are valid and pass their tests', async () => {
    const { promtool } = await findPrometheus();
    expect(await run(promtool, ['check', 'rules', join(FOLDER, 'waybill.rules.yml')])).toContain('SUCCESS');
    expect(await run(promtool, ['test', 'rules', join(FOLDER, 'waybill.rules.test.yml')])).toContain('SUCCESS');
  });

  it('are all tested: each fires, and each is quiet', () => {
    const text = readFileSync(join(FOLDER, 'waybill.rules.test.yml'), 'utf8');
    type Case = { alertname: string; exp_alerts: unknown[] };
    const cases = (parse(text) as { tests: { alert_rule_test: Case[] }[] }).tests.flatMap(
      (test) => test.alert_rule_test,
    );
    for (const { alert } of alerts) {
      const ofAlert = cases.filter((each) => each.alertname === alert);
      expect(
        ofAlert.some((each) => each.exp_alerts.length > 0),
        `${alert} fires`,
      ).toBe(true);
      expect(
        ofAlert.some((each) => each.exp_alerts.length === 0),
        `${alert} is quiet`,
      ).toBe(true);
    }
  });

  it('ask only for series that exist, and name a section of the runbook', () => {
    const names: readonly string[] = [
      ...Object.values(METRIC).map(([name]) => name),
      ...Object.values(METRIC).map(([name]) => `${name}_bucket`),
    ];
    const runbook = readFileSync(resolve(FOLDER, '../../docs/runbook.md'), 'utf8');
    for (const rule of rules)
      for (const [name] of rule.expr.matchAll(/waybill_\w+/g)) expect(names, rule.expr).toContain(name);
    for (const { alert, annotations } of alerts) {
      const [file, anchor] = (annotations?.runbook ?? '').split('#');
      expect(file).toBe('docs/runbook.md');
      expect(runbook.toLowerCase(), `${alert}: ${anchor}`).toContain(`### ${anchor}\n`);
    }
  });
});

describe('alerts in a real Prometheus', () => {
  let source: PostgresServer;
  let target: PostgresServer;
  let nats: NatsServer;
  let prometheus: PrometheusServer;
  let pipeline: Pipeline;
  let stage: Stage;

  beforeAll(async () => {
    [source, target, nats] = await Promise.all([startPostgres(), startPostgres(), startNats()]);
    pipeline = await Pipeline.open(
      source,
      nats,
      `create table a (id int primary key); insert into a values (1), (2);
       create table stock (sku text primary key, n int); insert into stock values ('A', 1)`,
      {
        extra_rows: 'delete',
      },
      target,
    );
    const folder = await mkdtemp(join(tmpdir(), 'waybill-'));
    const configFile = join(folder, 'waybill.yaml');
    const config = JSON.parse(pipeline.yaml) as { flows: object };
    const map = join(folder, 'stock.yaml');
    await writeFile(map, STOCK_MAP);
    const stock = { canonical: 'inventory_position', from: { wms: { map } }, to: 'vis' };
    const monitoring = { heartbeat: '1s', verify: { every: '1s', max_load: 1, grace: '200ms' } };
    await writeFile(configFile, JSON.stringify({ ...config, flows: { ...config.flows, stock }, monitoring }));
    stage = new Stage({
      configFile,
      only: 'capture:wms,transform:stock,apply:mirror,apply:stock,verify:mirror,verify:stock,heartbeat:mirror,heartbeat:stock',
      logFile: join(folder, 'log'),
      leaseTtlMs: 1500,
    });
    await writeFile(join(folder, 'log'), '');
    stage.start();
    const { host } = new URL(await waitFor('the address of /metrics', async () => stage.url()));
    // The real rules; only their patience is shortened.
    const quick = RULES.replaceAll(/\bfor: \d+m/g, 'for: 1s');
    prometheus = await startPrometheus(
      `global: { scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 500ms }
rule_files: [waybill.rules.yml]
scrape_configs:
  - job_name: waybill
    static_configs: [{ targets: ['${host}'] }]
`,
      { 'waybill.rules.yml': quick },
    );
  }, 180_000);

  afterAll(async () => {
    await stage?.end('SIGKILL');
    await prometheus?.dispose();
    await pipeline?.close();
    await Promise.all([source?.dispose(), target?.dispose(), nats?.dispose()]);
  });

  async function ask(path: string): Promise<unknown> {
    const response = await fetch(`${prometheus.url}/api/v1/${path}`);
    return ((await response.json()) as { data: unknown }).data;
  }

  async function firing(): Promise<string[]> {
    const { alerts } = (await ask('alerts')) as { alerts: { state: string; labels: { alertname: string } }[] };
    return alerts.filter((alert) => alert.state === 'firing').map((alert) => alert.labels.alertname);
  }

  async function value(query: string): Promise<number | undefined> {
    const { result } = (await ask(`query?query=${encodeURIComponent(query)}`)) as {
      result: { value: [number, string] }[];
    };
    return result[0] === undefined ? undefined : Number(result[0].value[1]);
  }

  const fires = (name: string): Promise<true> =>
    waitFor(`${name} to fire`, async () => ((await firing()).includes(name) ? true : undefined));
  const clears = (name: string): Promise<true> =>
    waitFor(`${name} to clear`, async () => ((await firing()).includes(name) ? undefined : true));

  it('sees a healthy path: every series is there and nothing fires', async () => {
    await pipeline.settled(['a']);
    await waitFor(
      'a proof',
      async () => (await value('time() - waybill_drift_verified_timestamp_seconds < 20')) ?? undefined,
      60_000,
    );
    // The first one may be as old as the process.
    await waitFor('heartbeats', () => value('max(waybill_end_to_end_heartbeat_seconds) < 10'));
    expect(await value('waybill_apply_commit_lag_seconds_count > 0')).toBeGreaterThan(0);
    expect(await value('max(waybill_stage_stalled_seconds)'), 'a batch is under way for a moment').toBeLessThan(10);
    await waitFor('quiet', async () => ((await firing()).length === 0 ? true : undefined));
  });

  it('answers every panel of the dashboards', async () => {
    /**
     * A limit on the log, a row or a frame that waits, a difference, transactions in progress, or a state that was saved are
     * what these need to show anything.
     */
    const mayBeEmpty = /log_budget|quarantine|drift_rows\{[^}]*\}\) > 0|spool|retention|saved_state/;
    for (const { place, expr } of dashboards().flatMap(queries)) {
      const answer = async (): Promise<{ status: string; error?: string; data?: { result: unknown[] } }> => {
        const response = await fetch(`${prometheus.url}/api/v1/query?query=${encodeURIComponent(expr)}`);
        return (await response.json()) as Awaited<ReturnType<typeof answer>>;
      };
      const first = await answer();
      expect(first.status, `${place}: ${first.error ?? ''}`).toBe('success');
      if (!mayBeEmpty.test(expr))
        await waitFor(`${place}: ${expr}`, async () => ((await answer()).data!.result.length > 0 ? true : undefined));
    }
  });

  it('drift: a row changed behind the back of the flow, until it is mended', async () => {
    await pipeline.target.query('delete from a where id = 2');
    await fires('WaybillDrift');
    expect(await value('waybill_drift_rows{kind="missing",table="public.a"}')).toBe(1);
    await pipeline.target.query('insert into a values (2)');
    await clears('WaybillDrift');
  });

  it('a target that is away, until it is back', async () => {
    await target.stop();
    await fires('WaybillFlowNotRunning');
    await target.start();
    await clears('WaybillFlowNotRunning');
  });

  it('a slot that was dropped, until the source is read from scratch', async () => {
    const slot = `${pipeline.config.nats.prefix}_wms`;
    await waitFor(
      'the slot to be dropped',
      async () => {
        await pipeline.source.query(
          `select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active`,
          [slot],
        );
        return await pipeline.source.query('select pg_drop_replication_slot($1)', [slot]).then(
          () => true,
          () => undefined,
        );
      },
      30_000,
    );
    await fires('WaybillCaptureNotStreaming');
    // Between two looks at the source it says that it waits.
    await expect.poll(() => value('waybill_capture_state{state="slot_missing"}')).toBe(1);
    expect(await value('waybill_capture_retained_log_bytes'), 'nothing is kept any more').toBeUndefined();
    await requestSnapshot(pipeline.config.nats, 'wms', { reset: true });
    await clears('WaybillCaptureNotStreaming');
    expect(await value('waybill_capture_state{state="slot_missing"}')).toBe(0);
  });
});
