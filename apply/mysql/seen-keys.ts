import type { RowChange } from '../../core/frame.ts';
import { keyValue } from '../row-key.ts';
import { literal, type TablePlan } from './table-plan.ts';

const ROWS_A_STATEMENT = 1000;

/** The statements that record the keys of rows that exist at the source in a snapshot's seen table. */
export function* seenSql(plan: TablePlan, seen: string, rows: Iterable<RowChange>): Generator<string> {
  let tuples: string[] = [];
  const first = plan.names[plan.key[0]!]!;
  // A key that is there already stays; IGNORE would take other errors for nothing, too.
  const statement = (): string =>
    `INSERT INTO ${seen} VALUES ${tuples.join(', ')} ON DUPLICATE KEY UPDATE ${first} = ${seen}.${first}`;
  for (const row of rows) {
    if (row[2] === null || row[0] === 'd') continue;
    const image = row[2];
    tuples.push(`(${plan.key.map((index) => literal(plan, index, keyValue(plan, index, image, row[4]))).join(', ')})`);
    if (tuples.length < ROWS_A_STATEMENT) continue;
    yield statement();
    tuples = [];
  }
  if (tuples.length > 0) yield statement();
}
