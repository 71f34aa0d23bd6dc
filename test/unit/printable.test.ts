/** What databases say cannot take a terminal over. */
import { expect, it, vi } from 'vitest';
import { printTable } from '../../cli/context.ts';
import { reportError } from '../../cli/exit-status.ts';
import { printable } from '../../cli/printable.ts';
import { plain, tableLines } from '../../cli/status/table.ts';
import { ReplicationError } from '../../core/errors.ts';

const EVIL = 'a\u001B[2Jb\nc\u009Bd\u202Ee\t';
const HARMLESS = String.raw`a\u001b[2Jb\nc\u009bd\u202ee\t`;

it.each([
  [EVIL, HARMLESS],
  ['é 漢 \u{1F4E6} "\\" ', 'é 漢 \u{1F4E6} "\\" '],
  ['', ''],
])('%j is printed as %j', (text, printed) => {
  expect(printable(text)).toBe(printed);
});

it('tables and errors show it, on its line', () => {
  const log = vi.spyOn(console, 'log').mockImplementation(() => undefined);
  const told = vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
  try {
    printTable(['KEY', 'MESSAGE'], [['1', EVIL]]);
    expect(log.mock.calls).toEqual([['KEY  MESSAGE'], [`1    ${HARMLESS}`]]);
    reportError(new ReplicationError('target_query', `first\n${EVIL}`));
    expect(told.mock.calls[0]![0]).toContain(`error target_query: first\na\\u001b[2Jb\nc\\u009bd`);
  } finally {
    log.mockRestore();
    told.mockRestore();
  }
  const [, line] = tableLines([{ head: 'NAME', rank: 0, text: (each: string) => each }], [EVIL], {
    width: Infinity,
    paint: plain,
  });
  expect(line).toBe(HARMLESS);
});
