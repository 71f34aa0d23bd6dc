import type { RowChange } from '../../core/frame.ts';
import { keyValue } from '../row-key.ts';
import { literal, type TablePlan } from './table-plan.ts';

/** Records the keys of rows that exist at the source in a snapshot's seen table. */
export function seenSql(plan: TablePlan, seen: string, rows: Iterable<RowChange>): string {
  const tuples: string[] = [];
  for (const row of rows) {
    if (row[2] === null || row[0] === 'd') continue;
    const image = row[2];
    tuples.push(`(${plan.key.map((index) => literal(plan, index, keyValue(plan, index, image, row[4]))).join(', ')})`);
  }
  return tuples.length === 0 ? '' : `INSERT INTO ${seen} VALUES ${tuples.join(', ')} ON CONFLICT DO NOTHING`;
}
