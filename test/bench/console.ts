/**
 * What a person waits for in the console: the first paint on an installation of six flows; a list of quarantined changes until
 * it is usable, while it is scrolled (frames and long tasks, with server-sent events and new changes coming all the time), and
 * edit, replay and discard in it; and the memory of the process that serves it. After `npm run build`:
 * `node dist/test/bench/console.js [ROWS]`. With WAYBILL_SCREENSHOTS each state is kept there as pictures, in both themes, at
 * 400 and 1,600 px.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { openBrowser, violations } from '../support/browser.ts';
import { openConsoleBench, TOKEN, type ConsoleBench } from './console-setting.ts';
import { median, until } from './contenders.ts';

const rows = Number(process.argv[2] ?? 10_000);
const SHOTS = process.env['WAYBILL_SCREENSHOTS'];
const PAINTS = 7;
/** A change that is refused while the list is open makes it read again: one for every overview that is sent. */
const REFUSE_EVERY_MS = 1000;
const say = (text: string): void => console.log(text);
const ms = (value: number): string => `${value < 20 ? value.toFixed(1) : Math.round(value)} ms`;

/** Scrolls through the list, frame by frame: `step` pixels each. */
const scroll = (step: number, frames: number): string => `(async () => {
  const list = document.querySelector('.list');
  const frames = [];
  const long = [];
  let empty = 0;
  let events = 0;
  const observer = new PerformanceObserver((seen) => long.push(...seen.getEntries().map(({ duration }) => duration)));
  observer.observe({ entryTypes: ['longtask'] });
  const source = new EventSource('/api/events');
  source.addEventListener('overview', () => (events += 1));
  const next = () => new Promise((resolve) => requestAnimationFrame(resolve));
  let last = await next();
  let by = ${step};
  for (let i = 0; i < ${frames}; i++) {
    const before = list.scrollTop;
    list.scrollTop += by;
    if (list.scrollTop === before) by = -by;
    const now = await next();
    frames.push(now - last);
    last = now;
    const { top, bottom } = list.getBoundingClientRect();
    if ([...list.querySelectorAll('.row:not([hidden])')].some((row) => {
      const at = row.getBoundingClientRect();
      return at.bottom > top && at.top < bottom && row.querySelector('.table').textContent === '…';
    })) empty += 1;
  }
  source.close();
  observer.disconnect();
  return { frames: frames.sort((a, b) => a - b), long, empty, events, elements: document.querySelectorAll('.list .row').length };
})()`;

interface Scrolled {
  readonly frames: number[];
  readonly long: number[];
  readonly empty: number;
  readonly events: number;
  readonly elements: number;
}

const bench = await openConsoleBench();
let browser: Browser | undefined;
try {
  browser = await openBrowser();
  await firstPaint(bench, browser);
  await shots(browser, bench, 'overview');
  say(`quarantine: ${rows} refused rows in ${(await bench.refuse(rows)).toFixed(1)} s`);
  await inbox(bench, browser);
} finally {
  await browser?.close();
  await bench.close();
}

function memory(when: string): void {
  const { nowMb, peakMb } = bench.memory();
  say(`memory of the console's process ${when}: ${Math.round(nowMb)} MB, at most ${Math.round(peakMb)} MB`);
}

async function open(of: Browser, path: string, width = 1600, theme: 'light' | 'dark' = 'light'): Promise<Page> {
  const context = await of.newContext({ viewport: { width, height: width < 600 ? 860 : 1000 }, colorScheme: theme });
  const page = await context.newPage();
  await page.goto(`${bench.url}/#/${path}`);
  return page;
}

async function firstPaint({ url }: ConsoleBench, of: Browser): Promise<void> {
  const paints: number[] = [];
  const maps: number[] = [];
  for (let i = 0; i < PAINTS; i++) {
    const page = await open(of, 'overview');
    await page.waitForSelector('.lane .card .spark');
    maps.push(await page.evaluate<number>('performance.now()'));
    paints.push(await page.evaluate<number>(`performance.getEntriesByName('first-contentful-paint')[0].startTime`));
    await page.context().close();
  }
  say(`first contentful paint: ${ms(median(paints))} (median of ${PAINTS}), at most ${ms(Math.max(...paints))}`);
  say(`the flow map is there: ${ms(median(maps))}, at most ${ms(Math.max(...maps))} (${url})`);
  memory('with six flows');
}

async function inbox({ flow }: ConsoleBench, of: Browser): Promise<void> {
  const list = '.list .row:not([hidden]) .tag:not(:empty)';
  const usable: number[] = [];
  for (let i = 0; i < PAINTS; i++) {
    const page = await open(of, `quarantine/${flow}`);
    await page.waitForSelector(list);
    usable.push(await page.evaluate<number>('performance.now()'));
    await page.context().close();
  }
  say(`list of ${await bench.waiting()} usable: ${ms(median(usable))}, at most ${ms(Math.max(...usable))}`);
  await shots(of, bench, 'quarantine');
  const page = await open(of, `quarantine/${flow}`);
  await page.waitForSelector(list);
  await scrolling(page, 'at rest, 120 px a frame', 120, 300);
  const refusing = setInterval(() => void bench.refuseOne(), REFUSE_EVERY_MS);
  try {
    await scrolling(page, 'while changes are refused, 120 px a frame', 120, 300);
    await scrolling(page, 'while changes are refused, 2,000 px a frame', 2000, 300);
    const atMs = performance.now();
    await page.evaluate(
      `document.querySelector('.list').scrollTop = document.querySelector('.list').scrollTop > 1e5 ? 0 : 1e9`,
    );
    await filled(page);
    say(`from one end to the other: rows in sight after ${ms(performance.now() - atMs)}`);
  } finally {
    clearInterval(refusing);
  }
  memory('after scrolling');
  await actions(page);
  await page.context().close();
}

async function scrolling(page: Page, how: string, step: number, number: number): Promise<void> {
  const { frames, long, empty, events, elements } = await page.evaluate<Scrolled>(scroll(step, number));
  const at = (share: number): number => frames[Math.floor((frames.length - 1) * share)]!;
  say(
    `scrolling ${how}: frames of ${ms(at(0.5))} (median), ${ms(at(0.95))} (95 %), ${ms(at(1))} (longest); ` +
      `${long.length} long tasks${long.length === 0 ? '' : ` of at most ${ms(Math.max(...long))}`}; ` +
      `rows not there yet in ${empty} of ${number} frames; ${events} events came; ${elements} rows in the page`,
  );
}

/** Until every row in sight has its entry. */
async function filled(page: Page): Promise<void> {
  const seen = `(() => {
    const list = document.querySelector('.list');
    const { top, bottom } = list.getBoundingClientRect();
    const seen = [...list.querySelectorAll('.row:not([hidden])')].filter((row) => {
      const at = row.getBoundingClientRect();
      return at.bottom > top && at.top < bottom;
    });
    return seen.length > 3 && seen.every((row) => row.querySelector('.table').textContent !== '…');
  })()`;
  // By the developer tools' protocol: the policy of the page lets it evaluate nothing by itself.
  await until('all rows in sight', performance.now(), async () => await page.evaluate<boolean>(seen));
}

/** What waits, once the flow is through with all that it refuses. */
async function quiet(): Promise<number> {
  for (let last = -1; ;) {
    const now = await bench.waiting();
    if (now === last) return now;
    last = now;
  }
}

async function actions(page: Page): Promise<void> {
  await page.click('#unlock');
  await page.fill('dialog input[type=text]', 'Benchmark');
  await page.fill('dialog input[type=password]', TOKEN);
  await page.click('dialog button[type=submit]');
  await page.waitForSelector('#unlock:has-text("Lock")');
  await page.evaluate(`document.querySelector('.list').scrollTop = 44 * 5000`);
  await filled(page);
  const timed = async (what: string, work: () => Promise<void>): Promise<void> => {
    const before = await quiet();
    const atMs = performance.now();
    await work();
    const seconds = performance.now() - atMs;
    say(`${what}: ${ms(seconds)} (${before - (await bench.waiting())} of ${before})`);
  };
  const row = page.locator('.list .row:not([hidden])');
  const closed = async (): Promise<void> => void (await page.waitForSelector('.sheet', { state: 'hidden' }));
  await timed('open a row', async () => {
    await row.nth(12).click();
    await page.waitForSelector('.sheet textarea');
  });
  await page.fill('.sheet textarea[aria-label="New value of on_hand"]', '250');
  await timed('edit and replay one, until its row is gone', async () => {
    await page.click('.sheet button:has-text("Save and replay")');
    await closed();
    await filled(page);
  });
  say(`scrolled to after it: ${await page.evaluate<number>(`document.querySelector('.list').scrollTop`)} px`);
  await row.nth(14).click();
  await page.waitForSelector('.sheet textarea');
  await page.click('.sheet button:has-text("Discard")');
  await timed('discard one, until its row is gone', async () => {
    await page.click('dialog button:has-text("Discard")');
    await closed();
    await filled(page);
  });
  await timed('select all', async () => {
    await page.click('button:text-is("Select all")');
    await page.waitForSelector('button:has-text("selected")');
  });
  await bench.allow();
  const toast = page.locator('.toasts .toast').last();
  await page.evaluate(`document.querySelector('#toasts').replaceChildren()`);
  await timed('replay all that is selected', async () => {
    await page.click('.toolbar button:text-is("Replay")');
    await toast.waitFor({ timeout: 120_000 });
  });
  say(`it says: ${await toast.locator('span').textContent()}`);
  memory('in the end');
}

async function shots(of: Browser, { flow }: ConsoleBench, state: 'overview' | 'quarantine'): Promise<void> {
  if (SHOTS === undefined) return;
  mkdirSync(SHOTS, { recursive: true });
  for (const theme of ['light', 'dark'] as const)
    for (const width of [400, 1600]) {
      const page = await open(of, state === 'overview' ? state : `${state}/${flow}`, width, theme);
      const keep = async (name: string, fullPage = false): Promise<void> => {
        await page.screenshot({ path: join(SHOTS, `${name}-${theme}-${width}.png`), fullPage });
        for (const found of await violations(page)) say(`axe, ${name}, ${theme}, ${width} px: ${found}`);
      };
      if (state === 'overview') await page.waitForSelector('.lane .card .spark');
      else await filled(page);
      await keep(state, state === 'overview');
      if (state === 'quarantine') {
        await page.evaluate(`document.querySelector('.list').scrollTop = 44 * 4321`);
        await filled(page);
        await page.locator('.list .row:not([hidden])').nth(14).click();
        await page.waitForSelector('.sheet textarea');
        await keep('quarantine-open', width < 600);
      }
      await page.context().close();
    }
}
