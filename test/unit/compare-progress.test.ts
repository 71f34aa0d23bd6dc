import { expect, it } from 'vitest';
import { CompareProgress } from '../../cli/compare-progress.ts';

function told(isTTY: boolean): string[] {
  const lines: string[] = [];
  const progress = new CompareProgress('wms_replica', { isTTY, write: (text) => lines.push(text) });
  for (const share of [0, 0.004, 0.25, 0.259, 1]) progress.share(share);
  progress.end();
  return lines;
}

it('says how far a comparison is, in one line that is taken away at the end', () => {
  const line = (text: string): string => `\r\u001B[Kflow wms_replica: ${text}`;
  expect(told(true)).toEqual([
    line('comparing'),
    ...['0', '25', '100'].map((percent) => line(`${percent} % of the rows read`)),
    '\r\u001B[K',
  ]);
});

it('says nothing where it is no terminal', () => {
  expect(told(false)).toEqual([]);
});
