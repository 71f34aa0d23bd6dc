/** Values of one field over the rows of a record. */
import { addDecimals, isCanonicalDecimal } from '../canonical/decimal.ts';
import { valueClass } from '../canonical/field-type.ts';
import type { CompiledField } from './block-plan.ts';
import { Fault, isFault, type Cell } from './cell.ts';
import { compareTexts } from './evaluate.ts';
import type { Member } from './record-state.ts';

/** The value of a field over all rows of a record. */
export function combine(field: CompiledField, members: readonly Member[], position: number): Cell {
  if (field.aggregate === undefined) return inCommon(members, position);
  const texts: string[] = [];
  for (const member of members) {
    const cell = member.cells[position];
    if (cell === undefined || cell === null) continue;
    if (isFault(cell)) return cell;
    texts.push(cell);
  }
  switch (field.aggregate) {
    case 'count':
      return String(texts.length);
    case 'sum': {
      const odd = texts.find((text) => !isCanonicalDecimal(text));
      return odd === undefined ? addDecimals(texts) : new Fault('must be a decimal number', valueClass(odd));
    }
    case 'collect': {
      const { structures, distinct } = field.collected!;
      const items = distinct ? [...new Set(texts)] : texts;
      return `[${items.map((text) => (structures ? text : JSON.stringify(text))).join(',')}]`;
    }
    case 'min':
      return texts.reduce<string | null>(
        (least, text) => (least === null || compareTexts(text, least) < 0 ? text : least),
        null,
      );
    default:
      return texts.reduce<string | null>(
        (most, text) => (most === null || compareTexts(text, most) > 0 ? text : most),
        null,
      );
  }
}

/** What all rows of a record say; a fault where they do not say the same. */
export function inCommon(members: readonly Member[], position: number): Cell {
  const first = members[0]!.cells[position] ?? null;
  for (let number = 1; number < members.length; number++) {
    if (isFault(first)) return first;
    const other = members[number]!.cells[position] ?? null;
    if (isFault(other)) return other;
    if (other !== first)
      return new Fault('must be the same in all rows of the record', `${valueClass(first)}, ${valueClass(other)}`);
  }
  return first;
}
