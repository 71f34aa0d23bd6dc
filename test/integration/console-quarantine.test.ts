/** The inbox of the console with ten thousand changes in it: what becomes of one of them, by mouse and by keyboard. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser, Locator, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openBrowser, violations } from '../support/browser.ts';
import { ConsoleScene, unlock } from '../support/console-scene.ts';
import { waitFor } from '../support/wait.ts';

/** Where screenshots are kept for people to look at; left out: nowhere. */
const SHOTS = process.env['WAYBILL_SCREENSHOTS'];
const FLOOD = 10_000;
/** Refused by the target itself, and what waits behind the first of them. */
const OWN = 4;
const LIST_OF_PAGES = /\/quarantine\?/;

let scene: ConsoleScene;
let browser: Browser;
const troubles: string[] = [];

beforeAll(async () => {
  [scene, browser] = await Promise.all([ConsoleScene.open(), openBrowser()]);
  await scene.refuse();
  await scene.flood(FLOOD);
}, 180_000);

afterAll(async () => {
  await browser?.close();
  await scene?.close();
});

async function open(width = 1600, theme: 'light' | 'dark' = 'light'): Promise<Page> {
  const viewport = { width, height: width < 600 ? 860 : 1000 };
  const page = await (await browser.newContext({ viewport, colorScheme: theme })).newPage();
  page.on('pageerror', (error) => troubles.push(error.message));
  await page.goto(`${scene.url}/#/quarantine/mirror`);
  await rowOf(page, 'SKU-9001').first().waitFor();
  return page;
}

const rowOf = (page: Page, key: string): Locator => page.locator('.list .row:not([hidden])', { hasText: key });
const says = async (page: Page, number: number): Promise<void> =>
  void (await page.waitForSelector(`.count:has-text("${number.toLocaleString('en')} changes wait")`));
const scrollTo = async (page: Page, top: number): Promise<void> =>
  await page.evaluate(`document.querySelector('.list').scrollTop = ${top}`);
/** A row that lies in the middle of the list once that is scrolled: others are moved away when they are clicked. */
const rowInSight = async (page: Page, top: number): Promise<Locator> => {
  await scrollTo(page, top);
  const index = await page.evaluate<number>(
    `(() => { const list = document.querySelector('.list'); return Math.floor((list.scrollTop + list.clientHeight / 2) / parseFloat(getComputedStyle(list).getPropertyValue('--row'))); })()`,
  );
  const row = page.locator(`.list #row-${index}:not([hidden])`);
  await row.waitFor();
  return row;
};
const scrollTop = async (page: Page): Promise<number> =>
  await page.evaluate<number>(`document.querySelector('.list').scrollTop`);

/** Keeps pages of the list back until what it gives is called. */
async function holdPages(page: Page): Promise<() => void> {
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  await page.route(LIST_OF_PAGES, async (route) => {
    await released;
    await route.continue();
  });
  return release;
}

it.each([
  ['light', 1600],
  ['light', 400],
  ['dark', 1600],
  ['dark', 400],
] as const)(
  'has nothing that axe objects to, in the %s theme at %i px, with one in the middle open',
  async (theme, width) => {
    const page = await open(width, theme);
    await (await rowInSight(page, 200_000)).click();
    await page.waitForSelector('.sheet textarea');
    expect(await violations(page)).toEqual([]);
    expect(await page.evaluate<number>('document.documentElement.scrollWidth - innerWidth')).toBeLessThanOrEqual(0);
    // What was opened is not under the bar.
    const top = await page.evaluate<number>(
      `document.querySelector('.sheet').getBoundingClientRect().top - document.querySelector('.bar').getBoundingClientRect().bottom`,
    );
    expect(top).toBeGreaterThanOrEqual(0);
    if (SHOTS !== undefined) {
      mkdirSync(SHOTS, { recursive: true });
      await page.screenshot({ path: join(SHOTS, `ten-thousand-${theme}-${width}.png`) });
    }
    await page.context().close();
  },
);

it('is gone through by keyboard, from one end to the other', async () => {
  const page = await open();
  await page.focus('.list');
  await page.keyboard.press('End');
  await page.waitForSelector('.row.active:has-text("SKU-20000")');
  await page.keyboard.press('ArrowUp');
  await page.waitForSelector('.row.active:has-text("SKU-19999")');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.sheet:has-text("SKU-19999")');
  await page.keyboard.press('Escape');
  await page.keyboard.press('PageUp');
  await page.keyboard.press('Home');
  await page.waitForSelector('.row.active:has-text("SKU-9001")');
  await page.context().close();
});

it('keeps its place when one is edited and replayed, and when another is discarded', async () => {
  const { target } = scene.pipeline;
  const page = await open();
  await unlock(page);
  await scrollTo(page, 220_000);
  await rowOf(page, 'SKU-15005').click();
  await page.fill('.sheet:has-text("SKU-15005") textarea[aria-label="New value of on_hand"]', '250');
  await page.click('.sheet button:has-text("Save and replay")');
  await page.waitForSelector('.sheet', { state: 'hidden' });
  await says(page, OWN + FLOOD - 1);
  expect((await target.query(`select on_hand from stock where sku = 'SKU-15005'`)).rows).toEqual([{ on_hand: 250 }]);
  await rowOf(page, 'SKU-15005').waitFor({ state: 'detached' });
  expect(await scrollTop(page)).toBe(220_000);
  // The next one lies where it was: Enter opens that.
  await page.waitForSelector('.list:focus');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.sheet:has-text("SKU-15006")');
  await page.click('.sheet button:has-text("Discard")');
  await page.click('dialog button:has-text("Discard")');
  await page.waitForSelector('.toast:has-text("1 discarded")');
  await says(page, OWN + FLOOD - 2);
  await rowOf(page, 'SKU-15006').waitFor({ state: 'detached' });
  expect(await scrollTop(page)).toBe(220_000);
  expect(await scene.waiting()).toBe(OWN + FLOOD - 2);
  await page.context().close();
});

it('shows what it has while it reads again, and what could not be read once that can be', async () => {
  const page = await open();
  const waiting = await scene.waiting();
  const seen = page.locator('.list .row.active');
  const middle = await rowInSight(page, 100_000);
  await middle.locator('.tag:not(:empty)').waitFor();
  await middle.click();
  const key = await seen.locator('.key').textContent();
  const release = await holdPages(page);
  const asks = page.waitForRequest(LIST_OF_PAGES);
  await scene.flood(1, FLOOD + 1);
  await asks;
  await page.evaluate('new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))');
  expect(await seen.locator('.key').textContent()).toBe(key);
  release();
  await says(page, waiting + 1);
  await page.unroute(LIST_OF_PAGES);

  // One that is chosen before it is here opens once it is.
  const answer = await holdPages(page);
  const chosen = await rowInSight(page, 200_000);
  await chosen.click();
  await page.waitForSelector('.row.active:has-text("…")');
  answer();
  await chosen.locator('.key:not(:empty)').waitFor();
  await page.waitForSelector(`.sheet:has-text("${await chosen.locator('.key').textContent()}")`);
  await page.unroute(LIST_OF_PAGES);

  await page.route(LIST_OF_PAGES, (route) => route.abort());
  await scrollTo(page, 300_000);
  await page.waitForSelector('.toast[data-tone=bad]');
  expect(await rowOf(page, '…').count()).toBeGreaterThan(0);
  await page.unroute(LIST_OF_PAGES);
  await waitFor('the rows', async () => ((await rowOf(page, '…').count()) === 0 ? true : undefined));
  expect(await page.locator('.toast[data-tone=bad]').count()).toBe(1);
  await page.context().close();
  expect(troubles).toEqual([]);
});
