/** The temporary table that many changes of a table are copied into, and the statements that take them from there. */
import type { NetChange, TableChanges } from '../table-changes.ts';
import { CopyBuffer, copyLine } from './copy-text.ts';
import type { TablePlan } from './table-plan.ts';
import type { TargetTransaction } from './target-transaction.ts';

/** In column `wb_op`: -1 delete, 0 the whole row, from 1 on a set of changed columns. */
export interface StagedTable {
  readonly stage: string;
  /** Rows that are written whole, and the statement that does it. */
  readonly upserts: number;
  readonly upsert: string;
  /** The same as a mere update; empty where the rows cannot be taken to be there. */
  readonly update: string;
  /** Partial changes. */
  readonly writes: readonly string[];
  /** Empty when nothing is deleted. */
  readonly deletes: string;
}

export async function writeStaged(
  transaction: TargetTransaction,
  table: TableChanges<TablePlan>,
): Promise<StagedTable> {
  const { plan } = table;
  const groups = new Map<string, number>();
  let upserts = 0;
  let deletes = 0;
  const buffer = new CopyBuffer();
  const addChange = (change: NetChange): void => {
    const { kind } = change;
    if (kind === 'upsert') {
      upserts += 1;
      if (change.asInFrame) buffer.frameRow(plan, change.frame, change.row, '0\t');
      else buffer.line(copyLine(plan, plan.written, change.image, '0\t'));
    } else if (kind === 'delete') {
      deletes += 1;
      // Of a deleted row only the key counts, and an old image may hold what no type accepts.
      const keyOnly = change.image.map((value, index) => (plan.key.includes(index) ? value : null));
      buffer.line(copyLine(plan, plan.written, keyOnly, '-1\t'));
    } else {
      const { image } = change;
      const columns = plan.settable.filter((index) => image[index] !== 0).join();
      let group = groups.get(columns);
      if (group === undefined) groups.set(columns, (group = groups.size + 1));
      buffer.line(copyLine(plan, plan.written, image, `${group}\t`));
    }
  };
  function* pieces(): Generator<Buffer> {
    for (const change of table.net()) {
      addChange(change);
      if (buffer.full) yield buffer.take();
    }
    if (!buffer.empty) yield buffer.take();
  }
  const names = plan.written.map((index) => plan.names[index]).join(', ');
  transaction.add(plan.createStage);
  await transaction.copy(`COPY ${plan.stage} (wb_op, ${names}) FROM STDIN`, pieces());
  const sameKey = plan.key.map((index) => `t.${plan.names[index]} = s.${plan.names[index]}`).join(' AND ');
  const updateSql = (columns: readonly number[], group: number): string => {
    const sets = columns.map((index) => `${plan.names[index]} = s.${plan.names[index]}`);
    return `UPDATE ${plan.rows} t SET ${sets.join(', ')} FROM ${plan.stage} s WHERE s.wb_op = ${group} AND ${sameKey}`;
  };
  const writes: string[] = [];
  for (const [columns, group] of groups)
    if (columns !== '') writes.push(updateSql(columns.split(',').map(Number), group));
  return {
    stage: plan.stage,
    upserts,
    upsert: upserts === 0 ? '' : `${plan.insertHead}SELECT ${names} FROM ${plan.stage} WHERE wb_op = 0${plan.conflict}`,
    update: upserts > 0 && table.updatesOnly && plan.settable.length > 0 ? updateSql(plan.settable, 0) : '',
    writes,
    deletes: deletes === 0 ? '' : `DELETE FROM ${plan.rows} t USING ${plan.stage} s WHERE s.wb_op = -1 AND ${sameKey}`,
  };
}
