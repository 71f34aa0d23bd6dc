/** Alerts as webhooks: sent again after failures and after a restart, once for each change of state, and audited. */
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Webhook } from 'standardwebhooks';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openAuditLog } from '../../cli/audit.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { Pipeline } from '../support/pipeline.ts';
import { Stage } from '../support/stage.ts';
import { waitFor } from '../support/wait.ts';

const SECRET = `whsec_${Buffer.from('a secret of thirty-two bytes ...').toString('base64')}`;

interface Received {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  readonly answered: number;
}

let postgres: PostgresServer;
let nats: NatsServer;
let pipeline: Pipeline;
let receiver: Server;
const stages: Stage[] = [];
const received: Received[] = [];
let answer = (_path: string): number => 500;

beforeAll(async () => {
  process.env['WAYBILL_ALERT_PACE'] = '0.02';
  [postgres, nats] = await Promise.all([startPostgres(), startNats()]);
  pipeline = await Pipeline.open(postgres, nats, 'create table a (id int primary key)');
  receiver = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const path = request.url ?? '';
      const answered = answer(path);
      received.push({ path, headers: request.headers, body: Buffer.concat(parts).toString(), answered });
      response.writeHead(answered).end();
    });
  });
  await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
}, 180_000);

afterAll(async () => {
  delete process.env['WAYBILL_ALERT_PACE'];
  await Promise.all(stages.map((stage) => stage.end('SIGKILL')));
  receiver?.closeAllConnections();
  receiver?.close();
  await pipeline?.close();
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
});

async function stage(only: string): Promise<Stage> {
  const folder = await mkdtemp(join(tmpdir(), 'waybill-'));
  const configFile = join(folder, 'waybill.yaml');
  const url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`;
  const webhooks = {
    ops: { url: `${url}/ops`, secret: SECRET },
    pager: { url: `${url}/pager`, secret: SECRET, severity: 'critical' },
    left: { url: `${url}/gone`, secret: SECRET },
  };
  const config = JSON.parse(pipeline.yaml) as Record<string, unknown>;
  await writeFile(configFile, JSON.stringify({ ...config, monitoring: { webhooks } }));
  const logFile = join(folder, 'log');
  await writeFile(logFile, '');
  const made = new Stage({ configFile, only, logFile, leaseTtlMs: 1500 });
  stages.push(made);
  return made;
}

/** On a slow machine other alerts may come and go. */
const ABSENT = 'WaybillCaptureAbsent';
const alertOf = ({ body }: Received): string => (JSON.parse(body) as { data: { alert: string } }).data.alert;
const to = (path: string): Received[] => received.filter((each) => each.path === path && alertOf(each) === ABSENT);
const delivered = (path: string): Received[] => to(path).filter((each) => each.answered < 300);
const typeOf = ({ body }: Received): string => (JSON.parse(body) as { type: string }).type;

it('an alert is sent until it arrives, by whichever process lives, and so is its end', async () => {
  answer = (path) => (path === '/gone' ? 410 : 500);
  const alerts = await stage('alerts');
  alerts.start();
  await waitFor('two tries', async () => to('/ops').length >= 2);
  await alerts.end('SIGKILL');
  const { id, body } = { id: to('/ops')[0]!.headers['webhook-id'], body: to('/ops')[0]!.body };
  answer = (path) => (path === '/gone' ? 410 : 204);
  alerts.start();
  await waitFor('the alert', async () => delivered('/ops').length > 0 && delivered('/pager').length > 0);
  const first = delivered('/ops')[0]!;
  expect(first.headers['webhook-id']).toBe(id);
  expect(first.body).toBe(body);
  const message = new Webhook(SECRET).verify(first.body, first.headers as Record<string, string>);
  expect(message).toMatchObject({
    type: 'alert.firing',
    data: {
      installation: pipeline.config.nats.prefix,
      alert: ABSENT,
      severity: 'critical',
      labels: {},
      summary: 'No capture reports at all',
      runbook: 'docs/runbook.md#waybillcaptureabsent',
    },
  });

  // The capture is another process: its observations travel through NATS.
  const capture = await stage('capture:wms');
  capture.start();
  await waitFor('the end of the alert', async () =>
    ['/ops', '/pager'].every((path) => delivered(path).some((each) => typeOf(each) === 'alert.resolved')),
  );
  expect(delivered('/ops').map(typeOf)).toEqual(['alert.firing', 'alert.resolved']);
  expect(new Set(delivered('/pager').map((each) => each.headers['webhook-id'])).size).toBe(2);

  type Line = {
    subject: string;
    detail: { alert: string; state: string; outcome: string; attempts: number; id: string };
  };
  const lines = await waitFor('lines in the audit log', async () => {
    const log = await openAuditLog(pipeline.config, 'vis');
    try {
      const found = (await log.read(0, 1000)).filter(
        (entry) => entry.action === 'notification' && entry.detail.includes(ABSENT),
      );
      // A process that was killed may have written a line that the next one writes again.
      return new Set(found.map((entry) => (JSON.parse(entry.detail) as { id: string }).id)).size === 6
        ? found.map((entry): Line => ({ subject: entry.subject, detail: JSON.parse(entry.detail) as Line['detail'] }))
        : undefined;
    } finally {
      await log.close();
    }
  });
  const ops = lines.filter((line) => line.subject === 'webhook ops');
  expect(ops.map(({ detail }) => [detail.alert, detail.state, detail.outcome]).slice(-2)).toEqual([
    [ABSENT, 'firing', 'delivered (204)'],
    [ABSENT, 'resolved', 'delivered (204)'],
  ]);
  expect(ops[0]!.detail.attempts).toBeGreaterThanOrEqual(2);
  expect(ops[0]!.detail.id).toBe(id);
  // It is told of nothing once it has said so.
  for (const line of lines.filter(({ subject }) => subject === 'webhook left'))
    expect(line.detail.outcome).toMatch(/^given up: .*410/);
});
