/** A headless Chromium, for tests of pages. */
import AxeBuilder from 'axe-core';
import { chromium, type Browser, type Page } from 'playwright-core';
import { findChromium } from '../../sandbox/chromium.ts';

export async function openBrowser(): Promise<Browser> {
  const { file, environment } = await findChromium();
  return await chromium.launch({
    executablePath: file,
    env: { ...(process.env as Record<string, string>), ...environment },
    args: ['--no-sandbox', '--disable-gpu'],
  });
}

/** What axe finds wrong with the page as it is now: rule and place. */
export async function violations(page: Page): Promise<string[]> {
  // By the developer tools' protocol: the policy of the page allows no foreign script.
  if (await page.evaluate(`typeof axe === 'undefined'`)) await page.evaluate(AxeBuilder.source);
  const found = await page.evaluate(async () => {
    type Axe = {
      run(options: {
        resultTypes: string[];
      }): Promise<{ violations: { id: string; nodes: { target: unknown[]; failureSummary?: string }[] }[] }>;
    };
    return (await (globalThis as unknown as { axe: Axe }).axe.run({ resultTypes: ['violations'] })).violations;
  });
  return found.flatMap(({ id, nodes }) =>
    nodes.map((node) => `${id}: ${node.target.join(' ')} ${node.failureSummary ?? ''}`),
  );
}
