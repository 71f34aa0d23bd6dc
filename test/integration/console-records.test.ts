/** The console of an installation that makes records: the transform in the map, what a mapping holds, explained values. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createConsole } from '../../cli/watching.ts';
import { createLogger } from '../../core/logger.ts';
import { Metrics } from '../../monitoring/metrics.ts';
import { Observatory, observer } from '../../monitoring/observation.ts';
import { startMonitoring, type MonitoringServer } from '../../monitoring/server.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { openBrowser, violations } from '../support/browser.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { ODOO_DDL, odooProducts } from '../support/odoo-tables.ts';
import { waitFor } from '../support/wait.ts';

const SHOTS = process.env['WAYBILL_SCREENSHOTS'];
const TOKEN = 'a-token-for-the-console-of-this-test';

let postgres: PostgresServer;
let nats: NatsServer;
let browser: Browser;
let wms: pg.Client;
let flow: CanonicalPipeline;
let server: MonitoringServer;
let running: Promise<void>;
const stop = new AbortController();

beforeAll(async () => {
  [postgres, nats, browser] = await Promise.all([startPostgres(), startNats(), openBrowser()]);
  const url = await postgres.createDatabase('odoo');
  wms = new pg.Client({ connectionString: url });
  await wms.connect();
  await wms.query(`${ODOO_DDL + odooProducts(3)};
    insert into stock_quant (product_id, location_id, quantity, reserved_quantity) values (1, 1, 5, 1), (2, 1, 7, 0)`);
  flow = await CanonicalPipeline.open({
    nats,
    sources: { wms: { kind: 'postgres', url } },
    targetUrl: await postgres.createDatabase('vis'),
    flows: { stock: { canonical: 'inventory_position', from: { wms: { pack: 'odoo' } }, fan_out: true } },
  });
  const metrics = new Metrics();
  flow.fanOutReport = (name, stream) => metrics.flowReport(name, 'nats', stream);
  flow.start('capture:wms', 'transform:stock', 'apply:stock', 'fanout:stock');
  await flow.shows('select count(*) from canonical.inventory_position', ['2']);
  const observatory = new Observatory(observer('here', metrics, () => ['console']));
  const outbound = { outbound: 'inventory_position', map: '/nowhere.yaml', to: 'vis', batch_bytes: 1 };
  const monitoring = { ...flow.config.monitoring, token: TOKEN, hide: ['canonical.inventory_position.uom'] };
  const config = { ...flow.config, outboundFlows: { back: outbound }, monitoring };
  const { pages, run } = createConsole(config, { observatory, alertPace: 1, log: createLogger('silent') });
  running = run(stop.signal);
  server = await startMonitoring('127.0.0.1:0', metrics, pages);
}, 180_000);

afterAll(async () => {
  stop.abort();
  await running;
  await server?.close();
  await browser?.close();
  await flow?.close();
  await wms?.end();
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
});

const at = (path: string): string => `http://127.0.0.1:${server.port}${path}`;

async function get<T>(path: string): Promise<T> {
  return (await (await fetch(at(`/api/${path}`))).json()) as T;
}

async function post(path: string, body: unknown): Promise<{ status: number; body: { done?: string; error?: string } }> {
  const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${TOKEN}` };
  const response = await fetch(at(`/api/${path}`), { method: 'POST', headers, body: JSON.stringify(body) });
  return { status: response.status, body: (await response.json()) as { done?: string; error?: string } };
}

it.each(['light', 'dark'] as const)('explains a value, in the %s theme', async (theme) => {
  const page = await (
    await browser.newContext({ viewport: { width: 1600, height: 1000 }, colorScheme: theme })
  ).newPage();
  await page.goto(at('/#/explain'));
  await page.fill('input', 'sku=A-1 location=WH/Stock');
  await page.click('button:has-text("Explain")');
  const row = page.locator('.values tr', { has: page.locator('th:has-text("on_hand")') });
  await row.waitFor();
  expect(await row.locator('td').first().textContent()).toBe('5');
  const text = await row.textContent();
  expect(text).toContain('wms · public.');
  expect(text).toMatch(/odoo.*:\d+/);
  expect(await violations(page)).toEqual([]);
  if (SHOTS !== undefined) {
    mkdirSync(SHOTS, { recursive: true });
    await page.screenshot({ path: join(SHOTS, `explain-${theme}.png`) });
  }
  await page.fill('input', 'sku=nothing');
  await page.click('button:has-text("Explain")');
  await page.waitForSelector('.problem:has-text("no such record")');
  await page.goto(at('/#/overview'));
  await page.waitForSelector('.lane[aria-label="From transform stock"] .card:has-text("wms → inventory_position")');
  expect(await violations(page)).toEqual([]);
  await page.context().close();
});

it('lists the fan-out of records beside the flow that writes them', async () => {
  const name = 'stock.fanout';
  type Overview = { flows: Record<string, unknown>[]; trends: Record<string, { lag: unknown[] }> };
  const fanOut = await waitFor('a fan-out that has passed on what there is', async () => {
    const { flows, trends } = await get<Overview>('overview');
    const found = flows.find((each) => each['name'] === name);
    return found?.['lagSeconds'] === 0 && trends[`flow:${name}`] !== undefined ? found : undefined;
  });
  expect(fanOut).toMatchObject({
    source: 'flow:stock',
    target: `${flow.config.nats.prefix}_records_inventory_position`,
    targetKind: 'nats',
    fanOut: true,
    state: expect.stringMatching(/^(?:idle|applying|streaming)$/),
    pendingFrames: 0,
    position: expect.stringMatching(/^frame [1-9]\d*$/),
  });
  // It is no flow that has drift or a quarantine to look at.
  expect((await get<{ flows: { name: string }[] }>('meta')).flows.map((each) => each.name)).toEqual(['stock', 'back']);
  expect((await fetch(at(`/api/flows/${name}/drift`))).status).toBe(404);

  for (const width of [400, 1600])
    for (const theme of ['light', 'dark'] as const) {
      const context = await browser.newContext({ viewport: { width, height: 1000 }, colorScheme: theme });
      const page = await context.newPage();
      await page.goto(at('/#/overview'));
      const card = page.locator(`.lane[aria-label="From transform stock"] .card:has(h2:text-is("${name}"))`);
      await card.waitFor();
      const figure = (label: string) =>
        card.locator('.figure', { has: page.locator(`dt:text-is("${label}")`) }).locator('dd');
      expect(await card.locator('.kind').textContent()).toBe('Fan-out');
      expect(await card.locator('.trend', { hasText: 'Lag' }).locator('.now').textContent()).toBe('none');
      // Frames without records come, too, so that it may have gone on meanwhile.
      expect(await figure('Position').textContent()).toMatch(/^frame [1-9]\d*$/);
      expect(await figure('Frames waiting').textContent()).toBe('0');
      expect(await card.locator('a').count()).toBe(0);
      // A flow to another system is not compared: it neither claims nor lacks a proof.
      const back = page.locator('.card:has(h2:text-is("back"))');
      expect(await back.locator('dt:text-is("Quarantine")').count()).toBe(1);
      expect(await back.locator('dt:text-is("Verified"), dt:text-is("Drift"), a[href^="#/drift"]').count()).toBe(0);
      const lane = page.locator('.lane[aria-label="From source wms"] .ends');
      expect(await lane.textContent()).toBe('Made into recordsRead by transform stock, shown below.');
      expect(await page.evaluate('document.documentElement.scrollWidth <= innerWidth')).toBe(true);
      expect(await violations(page)).toEqual([]);
      if (SHOTS !== undefined) {
        mkdirSync(SHOTS, { recursive: true });
        await page.screenshot({ path: join(SHOTS, `fan-out-${width}-${theme}.png`), fullPage: true });
      }
      await context.close();
    }
});

it('shows what a mapping holds, and works the records out anew when asked', async () => {
  await wms.query(`update stock_quant set quantity = 'NaN' where product_id = 2`);
  type Page = { total: number; items: { id: string; reason: string; message: string }[] };
  const page = await waitFor('a row that is held', async () => {
    const found = await get<Page>('flows/stock/quarantine');
    return found.total > 0 ? found : undefined;
  });
  const { id, reason, message } = page.items[0]!;
  expect(reason).toBe('mapping');
  expect(message).toContain('must be a decimal number');
  type Detail = { columns: { name: string; before: unknown }[] };
  const { columns } = await get<Detail>(`flows/stock/quarantine/${id}`);
  expect(columns.find(({ name }) => name === 'quantity')!.before).toBe('NaN');
  const refused = await post(`flows/stock/quarantine/${id}/edit`, { set: { quantity: '1' } });
  expect(refused).toMatchObject({ status: 400, body: { error: expect.stringContaining('a mapping holds this row') } });

  // What is held is at its last good value in the target: it is left out, and said to be.
  expect((await post('flows/stock/verify', {})).body).toMatchObject({ done: 'both sides are equal' });
  type Drift = { lastRun: { state: string; leftOut?: { what: string; why: string; records: number }[] } };
  const { lastRun } = await get<Drift>('flows/stock/drift');
  expect(lastRun).toMatchObject({
    state: 'done',
    leftOut: [{ what: '*', records: 1 }],
  });
  expect(lastRun.leftOut![0]!.why).toContain('held');
  await wms.query(`update stock_quant set quantity = 9 where product_id = 2`);
  await waitFor('nothing held', async () => (await get<Page>('flows/stock/quarantine')).total === 0);
  await flow.target.query('delete from canonical.inventory_position');
  expect((await post('flows/stock/quarantine/replay', { all: true })).status).toBe(200);
  await flow.shows('select count(*) from canonical.inventory_position', ['2']);
});

it('shows both sides of a record that differs, and what is proven of the flows that are compared', async () => {
  const page = await (await browser.newContext({ viewport: { width: 400, height: 860 } })).newPage();
  await page.goto(at('/#/overview'));
  // A flow to another system is not compared.
  await page.waitForSelector('.tile:has-text("Verified"):has-text("oldest proof of equality")');
  await flow.target.query(`update canonical.inventory_position set on_hand = 99, uom = 'KGM' where sku = 'A-1'`);
  expect((await post('flows/stock/verify', {})).body).toMatchObject({ done: '1 rows differ' });
  await page.goto(at('/#/drift/stock'));
  await page.locator('.findings td button').first().click();
  const row = (name: string) => page.locator('.pair tbody tr', { has: page.locator(`th:has-text("${name}")`) });
  await row('on_hand').waitFor();
  expect(await row('on_hand').locator('td').allTextContents()).toEqual(['5', '99']);
  expect(await row('on_hand').getAttribute('class')).toContain('differs');
  expect(await row('uom').locator('td').allTextContents()).toEqual(['hidden', 'hidden']);
  expect(await row('sku').getAttribute('class')).toContain('of-key');
  expect(await page.locator('.pair .differs').count()).toBe(2);
  await page.waitForSelector('.sheet:has-text("as they were then")');
  expect(await violations(page)).toEqual([]);
  const kept = await flow.lines('select images from waybill.drift');
  expect(kept.join()).not.toMatch(/KGM|"EA"/);
  await page.context().close();
});

it('says where there is nothing to explain', async () => {
  expect((await fetch(at('/api/explain?entity=nothing&key=a'))).status).toBe(404);
  expect((await fetch(at('/api/explain?entity=inventory_position&key=A-9'))).status).toBe(404);
  expect((await fetch(at('/api/explain?entity=inventory_position&key=a&key=b&key=c&key=d&key=e&key=f'))).status).toBe(
    400,
  );
});
