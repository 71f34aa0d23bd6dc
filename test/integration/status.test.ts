/** `waybill status` on real servers of three kinds: while all is well, and while parts of it are away. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { stripVTControlCharacters } from 'node:util';
import { createConnection, type Connection } from 'mysql2/promise';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { FlowLine, SourceLine, StatusReport } from '../../cli/status/report.ts';
import { parseConfig } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { connectNats } from '../../core/nats.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { Stage } from '../support/stage.ts';
import { waitFor } from '../support/wait.ts';

const PROGRAM = resolve(import.meta.dirname, '../../dist/cli/main.js');
let postgres: PostgresServer;
let mysql: MysqlServer;
let mariadb: MysqlServer;
let nats: NatsServer;
let folder: string;
let configFile: string;
let wms: pg.Client;
let vis: pg.Client;
let erp: Connection;
let stage: Stage;
const children: ChildProcess[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'waybill-status-'));
  [postgres, mysql, mariadb, nats] = await Promise.all([
    startPostgres(),
    startMysql({ flavour: 'mysql', version: '9.7' }),
    startMysql({ flavour: 'mariadb', version: '11.8' }),
    startNats(),
  ]);
  const [wmsUrl, visUrl, erpUrl, martUrl] = await Promise.all([
    postgres.createDatabase('wms'),
    postgres.createDatabase('vis'),
    mysql.createDatabase('erp'),
    mariadb.createDatabase('mart'),
  ]);
  [wms, vis] = [new pg.Client({ connectionString: wmsUrl }), new pg.Client({ connectionString: visUrl })];
  await Promise.all([wms.connect(), vis.connect()]);
  erp = await createConnection({ uri: erpUrl });
  await wms.query('create table orders (id int primary key, v text)');
  await erp.query('create table items (id int primary key, v varchar(20))');
  configFile = join(folder, 'waybill.yaml');
  await writeFile(
    configFile,
    `version: 1
nats: { servers: ["${nats.url}"], stream: { sync_interval: 0s, max_bytes: 64MB } }
sources:
  wms: { kind: postgres, url: "${wmsUrl}", streaming: on }
  erp: { kind: mysql, url: "${erpUrl}", tables: ["erp.*"] }
targets:
  vis: { kind: postgres, url: "${visUrl}" }
  mart: { kind: mariadb, url: "${martUrl}" }
flows:
  wms_vis: { mirror: wms, to: vis, schema: wms }
  erp_mart: { mirror: erp, to: mart, schema: mart }
`,
  );
  const logFile = join(folder, 'log');
  await writeFile(logFile, '');
  const only = 'capture:wms,capture:erp,apply:wms_vis,apply:erp_mart';
  stage = new Stage({ configFile, only, logFile, leaseTtlMs: 5000 });
}, 120_000);
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});
afterAll(async () => {
  await stage?.end('SIGKILL');
  await Promise.all([wms?.end(), vis?.end(), erp?.end()]);
  await Promise.all([postgres, mysql, mariadb, nats].map((server) => server?.dispose()));
  await rm(folder, { recursive: true, force: true });
});

interface Running {
  readonly child: ChildProcess;
  readonly output: () => string;
  readonly ended: Promise<number | null>;
}

function start(command: string, args: readonly string[], env: Record<string, string> = {}): Running {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  children.push(child);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()));
  return { child, output: () => output, ended: once(child, 'close').then(([status]) => status as number | null) };
}

const status = (...args: string[]): Running => start(PROGRAM, ['status', '--config', configFile, ...args]);

interface Report {
  readonly exit: number | null;
  readonly all: StatusReport;
  readonly wms: SourceLine;
  readonly erp: SourceLine;
  readonly wmsVis: FlowLine;
  readonly erpMart: FlowLine;
}

async function look(): Promise<Report> {
  const { ended, output } = status('--json');
  const exit = await ended;
  const all = JSON.parse(output()) as StatusReport;
  return { exit, all, wms: all.sources[0]!, erp: all.sources[1]!, wmsVis: all.flows[0]!, erpMart: all.flows[1]! };
}

/** The report as soon as it is as it should be. */
const lookUntil = (what: string, holds: (report: Report) => boolean): Promise<Report> =>
  waitFor(what, async () => {
    const report = await look();
    return holds(report) && report;
  });

/** `waybill status --watch` on a terminal of its own; what is written to its input are keys. */
const watchOnTerminal = (columns: number, env: Record<string, string> = {}, rows = 24): Running =>
  start(
    'script',
    ['-qfec', `stty cols ${columns} rows ${rows}; exec ${PROGRAM} status --watch --config ${configFile}`, '/dev/null'],
    { TERM: 'xterm-256color', NO_COLOR: '', ...env },
  );

/** The screens that a terminal has shown, as plain lines. */
function screens(output: string): string[][] {
  return output
    .split('\u001B[H')
    .slice(1)
    .map((screen) => stripVTControlCharacters(screen).split(/\r?\n/));
}

const idle = ({ wms, erp, wmsVis, erpMart }: Report): boolean =>
  [wms, erp, wmsVis, erpMart].every(({ lag }) => lag.kind === 'idle') &&
  wmsVis.pendingFrames === 0 &&
  erpMart.pendingFrames === 0;

describe('before anything has run', () => {
  it('all is new, and no lag is known', async () => {
    const { exit, all } = await look();
    expect(exit).toBe(0);
    expect(all.nats).toEqual({ state: 'ok' });
    for (const line of [...all.sources, ...all.flows])
      expect(line).toMatchObject({ state: 'new', lag: { kind: 'unknown' } });
  });
});

describe('while all stages run', () => {
  it('says state, position, lag, rates, log, quarantine and the last proof', async () => {
    await wms.query(`insert into orders select i, 'v' from generate_series(1, 300) i`);
    await erp.query(`insert into items values ${Array.from({ length: 300 }, (_, i) => `(${i + 10}, 'a')`).join()}`);
    stage.start();
    // A rate is that of some seconds: rows go on coming until all stages are at work.
    let writing = true;
    const writer = (async (): Promise<void> => {
      for (let change = 0; writing; change++) {
        await wms.query('update orders set v = $1 where id = 1', [`v${change}`]);
        await erp.query('update items set v = ? where id = 10', [`a${change}`]);
        await delay(50);
      }
    })();
    const rated = await lookUntil('rates of all', ({ all }) =>
      [...all.sources, ...all.flows].every((line) => (line.rowsPerSecond ?? 0) > 0),
    ).finally(() => (writing = false));
    await writer;
    expect(rated.exit).toBe(0);
    const found = await lookUntil('idleness', idle);
    expect(found.wms).toMatchObject({
      kind: 'postgres',
      state: expect.stringMatching(/^(streaming|idle)$/) as unknown,
      position: expect.stringMatching(/^[0-9A-F]+\/[0-9A-F]+$/) as unknown,
      slotActive: true,
      spoolBytes: 0,
    });
    expect(found.erp).not.toHaveProperty('spoolBytes');
    expect(found.wms.retainedLogBytes).toBeGreaterThan(0);
    expect(found.erp).toMatchObject({ kind: 'mysql', behindTransactions: 0 });
    expect(found.erp.position).toContain(':1-');
    expect(found.erp.logBudgetSeconds, 'the log is kept for 30 days by default').toBe(30 * 86_400);
    expect(found.wmsVis).toMatchObject({ source: 'wms', target: 'vis', quarantined: 0 });
    expect(found.wmsVis.position).toBe(found.wms.position);
    expect(found.erpMart).toMatchObject({ source: 'erp', target: 'mart', quarantined: 0 });
    expect(found.wmsVis).not.toHaveProperty('verified');
  });

  it('counts what waits in quarantine, and knows when both sides were proven equal', async () => {
    const verify = start(PROGRAM, ['verify', 'wms_vis', '--config', configFile]);
    expect(await verify.ended, verify.output()).toBe(0);
    const proven = await look();
    expect(proven.wmsVis.verified).toMatchObject({ latest: 'equal', driftRows: 0 });
    expect(Date.now() - Date.parse(proven.wmsVis.verified!.at!)).toBeLessThan(120_000);
    const mysqlVerify = start(PROGRAM, ['verify', 'erp_mart', '--config', configFile]);
    expect(await mysqlVerify.ended, mysqlVerify.output()).toBe(0);
    expect((await look()).erpMart.verified).toMatchObject({ latest: 'equal', driftRows: 0 });
    await vis.query('delete from wms.orders where id in (5, 6)');
    const again = start(PROGRAM, ['verify', 'wms_vis', '--config', configFile]);
    expect(await again.ended, again.output()).toBe(1);
    expect((await look()).wmsVis.verified).toMatchObject({
      latest: 'drift',
      driftRows: 2,
      at: proven.wmsVis.verified!.at,
    });

    await vis.query('alter table wms.orders add constraint short check (length(v) < 5)');
    await wms.query(`insert into orders values (1000, 'much too long'), (1001, 'also too long')`);
    await lookUntil('two in quarantine', ({ wmsVis }) => wmsVis.quarantined === 2);
    const text = status();
    await text.ended;
    expect(text.output()).toMatch(/^wms_vis +\w+ .* 2 +DRIFT: 2 rows/m);
  });
});

describe('--watch', () => {
  it('draws in place, fits the terminal, and survives what goes away', async () => {
    const wide = watchOnTerminal(150);
    await waitFor('three screens', async () => screens(wide.output()).length >= 3);
    expect(wide.output()).toContain('\u001B[?1049h');
    expect(wide.output(), 'colours').toContain('\u001B[32m');
    // As the process that tells of alerts keeps them.
    const broker = parseConfig(`version: 1\nnats: { servers: ["${nats.url}"] }`, {}).nats;
    const connection = await connectNats(broker, 'test');
    const alert = {
      alert: 'WaybillFlowNotRunning',
      severity: 'critical',
      labels: {},
      summary: 'another flow does not apply',
      value: 2,
    };
    const firing = [{ ...alert, since: new Date().toISOString(), runbook: 'docs/runbook.md#waybillflownotrunning' }];
    const bucket = await openBucket(connection, broker);
    await bucket.put('alerts', JSON.stringify({ v: 1, firing, entries: [], taken: 1 }));
    await connection.close();
    expect((await look()).all.alerts).toMatchObject([
      { alert: 'WaybillFlowNotRunning', summary: 'another flow does not apply' },
    ]);
    const [screen] = screens(wide.output()).slice(-1);
    expect(screen![0]).toMatch(/^waybill status  waybill +\d{4}-.* UTC  q quits$/);
    expect(screen!.join('\n')).toMatch(/SOURCE +STATE +LAG +TREND +ROWS\/S +POSITION/);
    await mariadb.stop();
    const away = await waitFor('the target to be missed', async () =>
      screens(wide.output())
        .slice(-1)
        .find((lines) => lines.some((line) => line.startsWith('! flow erp_mart: target_unreachable'))),
    );
    expect(away.join('\n')).toMatch(/remedy: Check that the target is up/);
    expect(away.join('\n'), 'the others are still there').toMatch(/^wms_vis +(applying|idle)/m);
    const short = watchOnTerminal(150, {}, 9);
    const shown = async (what: string, holds: (lines: string[]) => boolean): Promise<string[]> =>
      await waitFor(what, async () => screens(short.output()).slice(-1).find(holds));
    const first = await shown('what is wrong, above all else', (lines) =>
      lines[2]!.startsWith('! flow erp_mart: target_unreachable'),
    );
    expect(first.length).toBe(9);
    expect(first.join('\n')).toMatch(/remedy: Check that the target is up/);
    expect(first.at(-1)).toMatch(/^… \d+ more lines below: arrows, PgUp, PgDn$/);
    expect(first.join('\n')).not.toContain('FLOW');
    short.child.stdin!.write('\u001B[6~\u001B[6~');
    const last = await shown('the end', (lines) => /^… \d+ above: /.test(lines.at(-1)!));
    expect(last[0]).toContain('q quits');
    expect(last.join('\n')).toMatch(/^wms_vis +(applying|idle)/m);
    short.child.stdin!.write('\u001B[A');
    await shown('a line further up', (lines) => /^… \d+ above, 1 more line below: /.test(lines.at(-1)!));
    short.child.stdin!.write('\u001B[H');
    await shown('the beginning again', (lines) => lines[2]!.startsWith('! flow erp_mart'));
    short.child.stdin!.write('q');
    expect(await short.ended).toBe(0);
    await mariadb.start();
    await waitFor('the target again', async () =>
      screens(wide.output())
        .slice(-1)
        .some(
          (lines) =>
            lines.every((line) => !line.startsWith('!')) &&
            lines.some((line) => /^erp_mart +(applying|idle)/.test(line)),
        ),
    );
    wide.child.stdin!.write('q');
    expect(await wide.ended).toBe(0);
    expect(wide.output(), 'the terminal is given back').toContain('\u001B[?25h\u001B[?1049l');
  });

  it('leaves columns out where the terminal is narrow, and colours where they are not wanted', async () => {
    const narrow = watchOnTerminal(50, { NO_COLOR: '1' });
    const screen = await waitFor('a screen', async () => screens(narrow.output())[1]);
    for (const line of screen) expect(line.length, line).toBeLessThanOrEqual(50);
    expect(screen.join('\n')).toMatch(/SOURCE +STATE +LAG/);
    expect(screen.join('\n')).not.toContain('POSITION');
    narrow.child.stdin!.write('\u0003');
    expect(await narrow.ended).toBe(0);
    // No colours, only what moves the cursor.
    for (const code of ['1', '2', '31', '32', '33', '0']) expect(narrow.output()).not.toContain(`\u001B[${code}m`);
  });

  it('prints plain tables, or lines of JSON, where there is no terminal', async () => {
    const piped = status('--watch');
    await waitFor('two tables', async () => (piped.output().match(/^SOURCE +STATE/gm)?.length ?? 0) >= 2);
    piped.child.kill('SIGTERM');
    expect(await piped.ended).toBe(0);
    expect(piped.output()).not.toContain('\u001B');
    const json = status('--watch', '--json');
    await waitFor('two lines', async () => json.output().split('\n').length > 2);
    json.child.kill('SIGINT');
    expect(await json.ended).toBe(0);
    for (const line of json.output().trim().split('\n')) expect(JSON.parse(line)).toHaveProperty('flows');
  });
});

describe('while something is away', () => {
  it('stages that were stopped: from the streams, the log and the targets', async () => {
    const stopped = performance.now();
    expect(await stage.end('SIGTERM')).toBe(0);
    expect(performance.now() - stopped, 'also a reader of a binary log goes at once').toBeLessThan(15_000);
    await wms.query(`insert into orders values (2000, 'w')`);
    await erp.query(`insert into items values (3, 'c')`);
    const { exit, wms: source, erp: other, wmsVis, erpMart } = await look();
    expect(exit).toBe(0);
    expect(source).toMatchObject({ state: 'stopped', slotActive: false, lag: { kind: 'lagging', atMost: true } });
    expect(source.behindBytes).toBeGreaterThan(0);
    expect(other).toMatchObject({ state: 'stopped', behindTransactions: 1, lag: { kind: 'lagging', atMost: true } });
    for (const flow of [wmsVis, erpMart])
      expect(flow, 'it has all that the stream has').toMatchObject({
        state: 'stopped',
        lag: { kind: 'idle' },
        pendingFrames: 0,
      });
  });

  it('a flow whose capture goes on: how much waits for it, and since when', async () => {
    const capture = new Stage({ configFile, only: 'capture:wms', logFile: join(folder, 'log2'), leaseTtlMs: 5000 });
    await writeFile(join(folder, 'log2'), '');
    capture.start();
    try {
      const { wms: source, wmsVis } = await lookUntil(
        'frames that wait',
        (report) => report.wms.lag.kind === 'idle' && (report.wmsVis.pendingFrames ?? 0) > 0,
      );
      expect(source.state).toMatch(/^(streaming|idle)$/);
      expect(wmsVis.state).toBe('stopped');
      expect(wmsVis.lag).toMatchObject({ kind: 'lagging' });
    } finally {
      await capture.end('SIGTERM');
    }
  });

  it('a source, and then the broker: each is named with its remedy, and the rest is shown', async () => {
    await mysql.stop();
    const away = await look();
    expect(away.exit).toBe(3);
    expect(away.erp).toMatchObject({ state: 'unreachable', problem: { code: 'source_unreachable' } });
    expect(away.wms.state).toBe('stopped');
    await nats.stop();
    const silent = await look();
    expect(silent.exit).toBe(3);
    expect(silent.all.nats).toMatchObject({ state: 'unreachable', problem: { code: 'nats_unreachable' } });
    expect(silent.wms).toMatchObject({ state: 'unknown', lag: { kind: 'unknown' } });
    expect(silent.wms.retainedLogBytes, 'the source itself answers').toBeGreaterThan(0);
    expect(silent.wmsVis).toMatchObject({ state: 'unknown', lag: { kind: 'unknown' }, quarantined: 2 });
    const text = status();
    expect(await text.ended).toBe(3);
    expect(text.output()).toMatch(/^! nats: nats_unreachable: .*\n {2}remedy: Check that NATS is up/m);
  });
});
