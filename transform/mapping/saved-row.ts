/** Cells as a saved state holds them: texts, null, and faults as pairs. */
import { Fault, isFault, type Cell } from './cell.ts';

export type SavedCell = string | null | readonly [rule: string, valueClass: string];

export function savedCell(cell: Cell): SavedCell {
  return isFault(cell) ? [cell.rule, cell.valueClass] : cell;
}

export function restoredCell(saved: SavedCell): Cell {
  return typeof saved === 'object' && saved !== null ? new Fault(saved[0], saved[1]) : saved;
}
