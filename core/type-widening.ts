/** Which changes of a Postgres column's type keep every value, and which of those rewrite the rows of the table. */
import { parseTypeText } from './column-kind.ts';

const INTEGER_DIGITS: Readonly<Record<string, number>> = { smallint: 5, integer: 10, bigint: 19 };
const INTEGERS = ['smallint', 'integer', 'bigint'];
const DIGITS_IN_REAL: ReadonlySet<string> = new Set(['smallint']);
const DIGITS_IN_DOUBLE: ReadonlySet<string> = new Set(['smallint', 'integer', 'real']);

export type TypeChange =
  /** Every value stays, and the rows are not touched. */
  | 'same'
  /** Every value keeps its meaning, but the source writes all rows anew: their text may be another one. */
  | 'rewritten'
  /** Values may be lost or refused. */
  | 'narrower';

/** Classifies a change of type, both as `format_type` prints them. */
export function classifyTypeChange(from: string, to: string): TypeChange {
  if (from === to) return 'same';
  const fromArray = from.endsWith('[]');
  if (fromArray || to.endsWith('[]')) {
    if (isAnyText(to)) return 'rewritten';
    if (!fromArray || !to.endsWith('[]')) return 'narrower';
    return classifyTypeChange(from.slice(0, -2), to.slice(0, -2)) === 'narrower' ? 'narrower' : 'rewritten';
  }
  const a = parseTypeText(from);
  const b = parseTypeText(to);
  const [limit, room] = [a.args.at(-1), b.args.at(-1)];
  if (a.name === b.name && a.name !== 'numeric') return sameName(a.name, limit, room);
  if (a.name === 'numeric' && b.name === 'numeric') return numeric(a.args, b.args);
  if (isAnyText(to)) return /^(text|character varying)$/.test(a.name) ? 'same' : 'rewritten';
  const rank = INTEGERS.indexOf(a.name);
  if (rank >= 0) {
    if (INTEGERS.indexOf(b.name) > rank) return 'rewritten';
    if (b.name === 'numeric')
      return b.args.length === 0 || b.args[0]! - (b.args[1] ?? 0) >= INTEGER_DIGITS[a.name]! ? 'rewritten' : 'narrower';
  }
  if (b.name === 'double precision' && DIGITS_IN_DOUBLE.has(a.name)) return 'rewritten';
  if (b.name === 'real' && DIGITS_IN_REAL.has(a.name)) return 'rewritten';
  if (a.name === 'character' && b.name === 'character varying')
    return room !== undefined && room >= (limit ?? 1) ? 'rewritten' : 'narrower';
  if (a.name === 'date' && b.name.startsWith('timestamp')) return 'rewritten';
  if (a.name.startsWith('timestamp') && b.name.startsWith('timestamp') && (room ?? 6) >= (limit ?? 6))
    return 'rewritten';
  if (a.name === 'cidr' && b.name === 'inet') return 'same';
  if (/^jsonb?$/.test(a.name) && /^jsonb?$/.test(b.name)) return 'rewritten';
  return 'narrower';
}

function isAnyText(type: string): boolean {
  return type === 'text' || type === 'character varying';
}

function sameName(name: string, limit: number | undefined, room: number | undefined): TypeChange {
  if (/^(time|timestamp|interval)/.test(name)) return (room ?? 6) >= (limit ?? 6) ? 'same' : 'narrower';
  if (name === 'character' || name === 'bit') return (room ?? 1) >= (limit ?? 1) ? 'rewritten' : 'narrower';
  return room === undefined || (limit !== undefined && room >= limit) ? 'same' : 'narrower';
}

/** Another scale, or one where there was none, changes the text of every value. */
function numeric(from: readonly number[], to: readonly number[]): TypeChange {
  if (to.length === 0) return 'same';
  if (from.length === 0) return 'narrower';
  const [digits, scale] = [from[0]!, from[1] ?? 0];
  const [room, newScale] = [to[0]!, to[1] ?? 0];
  if (newScale < scale || room - newScale < digits - scale) return 'narrower';
  return newScale === scale ? 'same' : 'rewritten';
}
