/**
 * Alerts are fired in a real Prometheus by their real causes, and clear when these are removed. The rules are the real
 * ones: only their patience and their limits are smaller.
 */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import pg from 'pg';
import { parse } from 'yaml';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import type { PostgresSourceConfig } from '../../core/config.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { claimPort, type Claim } from '../../sandbox/ports.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { startPrometheus, type PrometheusServer } from '../../sandbox/prometheus.ts';
import { suspend } from '../../sandbox/process.ts';
import { AlertView } from '../support/alert-view.ts';
import { Pipeline } from '../support/pipeline.ts';
import { Stage } from '../support/stage.ts';
import { stockMapping } from '../support/stock-mapping.ts';
import { waitFor } from '../support/wait.ts';

const RULES = readFileSync(resolve(import.meta.dirname, '../../monitoring/prometheus/waybill.rules.yml'), 'utf8');
const alerts = (parse(RULES) as { groups: { rules: { alert?: string }[] }[] }).groups
  .flatMap((group) => group.rules)
  .flatMap(({ alert }) => alert ?? []);

/** More log than this is too much. */
const KEPT_BYTES = 8 << 20;
/** What is made smaller, so that nobody waits ten minutes for a lag of ten minutes. */
const SMALLER: readonly (readonly [RegExp, string])[] = [
  [/\bfor: \d+m/g, 'for: 1s'],
  [/_seconds > 60\n/g, '_seconds > 3\n'],
  [/_seconds > 600\n/g, '_seconds > 5\n'],
  [/_stalled_seconds > 300\n/g, '_stalled_seconds > 4\n'],
  [/_log_bytes > 1073741824\n/g, `_log_bytes > ${KEPT_BYTES}\n`],
  [/:proven_timestamp_seconds > 86400\n/g, ':proven_timestamp_seconds > 6\n'],
  // Of the seven days that frames are kept.
  [/_retention_seconds < 3600\n/g, `_retention_seconds < ${7 * 86_400 - 3}\n`],
  [/_keys\[30m\]/g, '_keys[6s]'],
];

function smallerRules(): string {
  let rules = RULES;
  for (const [limit, smaller] of SMALLER) {
    expect(rules).toMatch(limit);
    rules = rules.replaceAll(limit, smaller);
  }
  return rules;
}

let source: PostgresServer;
let target: PostgresServer;
let nats: NatsServer;
let prometheus: PrometheusServer;
let pipeline: Pipeline;
/** A second session at the source. */
let other: pg.Client;
let view: AlertView;
let folder: string;
const stages = new Map<'capture' | 'transform' | 'apply' | 'watch', Stage>();
const claims: Claim[] = [];

const write = (rows: number): Promise<unknown> =>
  pipeline.source.query(`insert into big (doc) select repeat(md5(i::text), 30) from generate_series(1, $1) i`, [rows]);

async function keepLog(limit: string): Promise<void> {
  await pipeline.source.query(`alter system set max_slot_wal_keep_size = '${limit}'`);
  await pipeline.source.query('select pg_reload_conf()');
}

/** Records are made of this table, by processes whose configuration has that flow too. */
const STOCK_MAP = stockMapping({ name: 'wms', fields: { location: '{ const: N }', on_hand: 'n' } });

/** Waits until it is told that no process runs these stages (`apply:mirror`), and no others. */
async function missed(...ids: string[]): Promise<void> {
  await waitFor(`${ids.join()} to be missed`, async () => {
    const vanished = await view.labels('ALERTS{alertname="WaybillStageVanished",alertstate="firing"}');
    expect(vanished.map(({ stage, name }) => `${stage}:${name}`).toSorted()).toEqual(ids.toSorted());
    return true;
  });
}

interface Cause {
  readonly alerts: readonly string[];
  readonly cause: string;
  readonly breaks: () => Promise<unknown>;
  readonly mends: () => Promise<unknown>;
}

const CAUSES: readonly Cause[] = [
  {
    alerts: [
      'WaybillApplyLag',
      'WaybillApplyLagCritical',
      'WaybillHeartbeatLate',
      'WaybillStalled',
      'WaybillStreamRetention',
      'WaybillUnverified',
    ],
    cause: 'somebody locks a table of the target',
    async breaks() {
      await pipeline.target.query('begin; lock table a in access exclusive mode');
      await pipeline.source.query('insert into a values (10)');
      // What was proven before is known to the one that takes over.
      await stages.get('watch')!.end('SIGTERM');
      stages.get('watch')!.start();
    },
    mends: () => pipeline.target.query('commit'),
  },
  {
    alerts: ['WaybillLogBudget'],
    cause: 'the source keeps little log for what is written',
    async breaks() {
      await keepLog('64MB');
      await write(2000);
    },
    mends: () => keepLog('-1'),
  },
  {
    alerts: ['WaybillCaptureLag', 'WaybillCaptureLagCritical', 'WaybillTransformNotRunning'],
    cause: 'the broker hangs',
    async breaks() {
      await suspend(nats.pid!);
      await pipeline.source.query('insert into a values (11)');
    },
    mends: async () => process.kill(nats.pid!, 'SIGCONT'),
  },
  {
    alerts: ['WaybillRetainedLog'],
    cause: 'a transaction of the source stays open',
    async breaks() {
      await other.query('begin');
      await other.query('insert into a values (12)');
      await write(12_000);
    },
    async mends() {
      await other.query('commit');
      // A slot gives log back at a note in it of what runs, of which a checkpoint makes one, and takes one at a time.
      await waitFor('the slot to give the log back', async () => {
        await other.query('checkpoint');
        const { rows } = await other.query<{ kept: string }>(
          'select max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) as kept from pg_replication_slots',
        );
        return Number(rows[0]!.kept) < KEPT_BYTES;
      });
    },
  },
  {
    alerts: ['WaybillTableStopped'],
    cause: 'a column of the source is made narrower',
    async breaks() {
      await pipeline.source.query('alter table narrow alter v type smallint');
      await pipeline.source.query('insert into narrow values (1, 1)');
    },
    mends: () => requestSnapshot(pipeline.config.nats, 'wms', { tables: ['public.narrow'] }),
  },
  {
    alerts: ['WaybillQuarantineGrows'],
    cause: 'the target refuses row after row',
    async breaks() {
      await pipeline.target.query('alter table a add constraint refuses check (id < 1000)');
      for (let id = 1000; id < 1002; id++) {
        await pipeline.source.query('insert into a values ($1)', [id]);
        await waitFor('the row in quarantine', async () => {
          const keys = await view.value('sum(waybill_quarantine_keys)');
          return keys === id - 999;
        });
      }
    },
    async mends() {
      await pipeline.target.query('alter table a drop constraint refuses');
      await pipeline.source.query('delete from a where id >= 1000');
    },
  },
  {
    alerts: ['WaybillCaptureAbsent', 'WaybillCaptureVanished'],
    cause: 'the process of the capture is stopped',
    breaks: () => stages.get('capture')!.end('SIGTERM'),
    mends: async () => stages.get('capture')!.start(),
  },
  {
    alerts: ['WaybillStageVanished'],
    cause: 'the process of the apply is killed, and that of the transform',
    async breaks() {
      await stages.get('apply')!.end('SIGKILL');
      await missed('apply:mirror', 'apply:stock');
      stages.get('apply')!.start();
      await missed();
      await stages.get('transform')!.end('SIGKILL');
      await missed('transform:stock');
    },
    mends: async () => stages.get('transform')!.start(),
  },
  {
    alerts: ['WaybillStageVanished', 'WaybillDrift', 'WaybillUnverified'],
    cause: 'the process that compares is killed while rows differ',
    async breaks() {
      await pipeline.target.query('delete from a where id = 2');
      await view.fire(['WaybillDrift']);
      await stages.get('watch')!.end('SIGKILL');
      await missed('heartbeat:mirror', 'verify:mirror');
      await view.fire(['WaybillUnverified']);
      expect(await view.value('waybill_drift_rows'), 'nobody reports it').toBeUndefined();
    },
    async mends() {
      await pipeline.target.query('insert into a values (2)');
      stages.get('watch')!.start();
    },
  },
];

describe('alerts, each by its real cause', () => {
  beforeAll(async () => {
    [source, target, nats, folder] = await Promise.all([
      startPostgres(),
      startPostgres(),
      startNats(),
      mkdtemp(join(tmpdir(), 'waybill-')),
    ]);
    pipeline = await Pipeline.open(
      source,
      nats,
      `create table a (id int primary key); insert into a values (1), (2);
       create table stock (sku text primary key, n int); insert into stock values ('A', 1);
       create table narrow (id int primary key, v int);
       create table big (id int primary key generated always as identity, doc text)`,
      { extra_rows: 'delete' },
      target,
      // The log of a source that rests is given back this often.
      { heartbeat: '500ms' },
    );
    const monitoring = { heartbeat: '1s', verify: { every: '1s', max_load: 1, grace: '200ms' } };
    const config = JSON.stringify({ ...(JSON.parse(pipeline.yaml) as object), monitoring });
    const configFile = join(folder, 'waybill.yaml');
    await writeFile(configFile, config);
    const map = join(folder, 'stock.yaml');
    await writeFile(map, STOCK_MAP);
    const stock = { canonical: 'inventory_position', from: { wms: { map } }, to: 'vis' };
    const flows = { ...(JSON.parse(pipeline.yaml) as { flows: object }).flows, stock };
    const withRecords = join(folder, 'records.yaml');
    await writeFile(withRecords, JSON.stringify({ ...(JSON.parse(pipeline.yaml) as object), flows }));
    for (const [name, only, file] of [
      ['capture', 'capture:wms', configFile],
      ['transform', 'transform:stock', withRecords],
      ['apply', 'apply:mirror,apply:stock', withRecords],
      ['watch', 'verify:mirror,heartbeat:mirror', configFile],
    ] as const) {
      const claim = await claimPort();
      claims.push(claim);
      const logFile = join(folder, `${name}.log`);
      const listen = `127.0.0.1:${claim.port}`;
      const stage = new Stage({ configFile: file, only, logFile, listen, leaseTtlMs: 1500 });
      stages.set(name, stage);
      stage.start();
    }
    const targets = JSON.stringify(claims.map(({ port }) => `127.0.0.1:${port}`));
    prometheus = await startPrometheus(
      `global: { scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 500ms }
rule_files: [waybill.rules.yml]
scrape_configs:
  - { job_name: waybill, static_configs: [{ targets: ${targets} }] }
`,
      { 'waybill.rules.yml': smallerRules() },
    );
    view = new AlertView(prometheus);
    other = new pg.Client({ connectionString: (pipeline.config.sources['wms'] as PostgresSourceConfig).url });
    await other.connect();
    await waitFor('a proof', () => view.value('time() - waybill_drift_verified_timestamp_seconds < 10'));
    await view.clear(alerts);
  }, 180_000);

  afterAll(async () => {
    await Promise.all([...stages.values()].map((stage) => stage.end('SIGKILL')));
    await prometheus?.dispose();
    await other?.end();
    await pipeline?.close();
    await Promise.all([source?.dispose(), target?.dispose(), nats?.dispose()]);
    await Promise.all([folder, ...claims.map((claim) => claim.folder)].map((each) => rm(each, { recursive: true })));
  });

  it('are all of them, with those of alerts.test.ts', () => {
    const here = CAUSES.flatMap((each) => each.alerts);
    expect([...new Set([...here, 'WaybillCaptureNotStreaming', 'WaybillFlowNotRunning'])].toSorted()).toEqual(
      alerts.toSorted(),
    );
  });

  it.each(CAUSES.map((each) => [each.alerts.join(', '), each.cause, each] as const))('%s: %s', async (_1, _2, each) => {
    await view.clear(each.alerts);
    try {
      await each.breaks();
      await view.fire(each.alerts);
    } finally {
      await each.mends();
    }
    await view.clear(each.alerts);
  });
});
