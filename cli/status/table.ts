/** Tables that fit a width: columns shrink, and the least important go, before a line would break. */
import { printable } from '../printable.ts';
import { shorten } from './text.ts';

export type Tone = 'good' | 'warn' | 'bad' | 'dim' | 'plain' | 'bold';
/** Colours a text for a terminal, or leaves it as it is. */
export type Paint = (text: string, tone: Tone) => string;

export interface Column<L> {
  readonly head: string;
  /** What goes first when room is short: the highest number. Columns of 0 stay. */
  readonly rank: number;
  readonly right?: boolean;
  /** Down to how many characters it may be cut; left out: not at all. */
  readonly least?: number;
  readonly text: (line: L) => string;
  readonly tone?: (line: L) => Tone;
}

const GAP = 2;

export const plain: Paint = (text) => text;

const CODES: Readonly<Record<Tone, string>> = { good: '32', warn: '33', bad: '31', dim: '2', bold: '1', plain: '' };

export const coloured: Paint = (text, tone) =>
  CODES[tone] === '' || text.trim() === '' ? text : `\u001B[${CODES[tone]}m${text}\u001B[0m`;

/** The lines of a table, none longer than `width` (as long as its columns of rank 0 fit). */
export function tableLines<L>(
  columns: readonly Column<L>[],
  lines: readonly L[],
  { width, paint }: { readonly width: number; readonly paint: Paint },
): string[] {
  const cells = new Map(columns.map((column) => [column, lines.map((line) => printable(column.text(line)))]));
  let shown = [...columns];
  const widths = new Map<Column<L>, number>();
  const total = (): number => shown.reduce((sum, column) => sum + widths.get(column)! + GAP, -GAP);
  for (;;) {
    for (const column of shown)
      widths.set(column, Math.max(column.head.length, ...cells.get(column)!.map((text) => text.length)));
    for (const column of [...shown].sort((a, b) => b.rank - a.rank)) {
      if (total() <= width || column.least === undefined) continue;
      const now = widths.get(column)!;
      widths.set(column, Math.max(Math.min(now, column.least), now - (total() - width)));
    }
    if (total() <= width) break;
    const last = Math.max(...shown.map((column) => column.rank));
    if (last === 0) break;
    const index = shown.findLastIndex((column) => column.rank === last);
    shown = shown.filter((_, at) => at !== index);
  }
  const fit = (column: Column<L>, text: string): string => {
    const cut = shorten(text, widths.get(column)!);
    return column.right === true ? cut.padStart(widths.get(column)!) : cut.padEnd(widths.get(column)!);
  };
  const join = (parts: string[]): string => parts.join(' '.repeat(GAP)).trimEnd();
  return [
    join(shown.map((column) => paint(fit(column, column.head), 'dim'))),
    ...lines.map((line, row) =>
      join(shown.map((column) => paint(fit(column, cells.get(column)![row]!), column.tone?.(line) ?? 'plain'))),
    ),
  ];
}
