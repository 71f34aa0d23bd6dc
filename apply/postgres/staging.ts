/** The temporary table that many changes of a table are copied into, and the statements that take them from there. */
import type { NetChange, TableChanges } from '../table-changes.ts';
import { copyLine, type CopyBuffer } from './copy-text.ts';
import { momentText, type TablePlan } from './table-plan.ts';
import type { TargetTransaction } from './target-transaction.ts';

/**
 * In column `wb_op`: -2 mark as deleted, -1 delete, 0 the whole row, from 1 on a set of changed columns. Where deleted rows
 * stay, `wb_at` says since when a row is gone.
 */
export interface StagedTable {
  readonly stage: string;
  /** Rows that are written whole, and the statement that does it. */
  readonly upserts: number;
  readonly upsert: string;
  /** The same as a mere update; empty where the rows cannot be taken to be there. */
  readonly update: string;
  /** Partial changes. */
  readonly writes: readonly string[];
  /** Empty when nothing is deleted or marked. */
  readonly deletes: string;
}

export async function writeStaged(
  transaction: TargetTransaction,
  table: TableChanges<TablePlan>,
  buffer: CopyBuffer,
): Promise<StagedTable> {
  const { plan } = table;
  const groups = new Map<string, number>();
  let upserts = 0;
  let deletes = 0;
  let marks = 0;
  const head = (op: number, timeUs?: number): string => {
    if (plan.deletedAt === undefined) return `${op}\t`;
    return `${op}\t${timeUs === undefined ? '\\N' : momentText(timeUs)}\t`;
  };
  const whole = head(0);
  const addChange = (change: NetChange): void => {
    const { kind } = change;
    if (kind === 'upsert') {
      upserts += 1;
      if (change.asInFrame) buffer.frameRow(plan, change.frame, change.row, whole);
      else buffer.line(copyLine(plan, plan.written, change.image, whole));
    } else if (kind === 'buried') {
      upserts += 1;
      buffer.line(copyLine(plan, plan.written, change.image, head(0, change.deletedAtUs)));
    } else if (kind !== 'partial') {
      if (kind === 'delete') deletes += 1;
      else marks += 1;
      // Of a deleted row only the key counts, and an old image may hold what no type accepts.
      const keyOnly = change.image.map((value, index) => (plan.key.includes(index) ? value : null));
      buffer.line(copyLine(plan, plan.written, keyOnly, kind === 'delete' ? head(-1) : head(-2, change.deletedAtUs)));
    } else {
      const { image } = change;
      const columns = plan.settable.filter((index) => image[index] !== 0).join();
      let group = groups.get(columns);
      if (group === undefined) groups.set(columns, (group = groups.size + 1));
      buffer.line(copyLine(plan, plan.written, image, head(group)));
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
  const [stageHead, ownValue] = plan.deletedAt === undefined ? ['wb_op', ''] : ['wb_op, wb_at', ', wb_at'];
  await transaction
    .copy(`COPY ${plan.stage} (${stageHead}, ${names}) FROM STDIN`, pieces())
    .finally(() => buffer.clear());
  const sameKey = plan.key.map((index) => `t.${plan.names[index]} = s.${plan.names[index]}`).join(' AND ');
  const updateSql = (columns: readonly number[], group: number): string => {
    const sets = columns.map((index) => `${plan.names[index]} = s.${plan.names[index]}`);
    if (plan.deletedAt !== undefined) sets.push(`${plan.deletedAt} = s.wb_at`);
    return `UPDATE ${plan.rows} t SET ${sets.join(', ')} FROM ${plan.stage} s WHERE s.wb_op = ${group} AND ${sameKey}`;
  };
  const writes: string[] = [];
  for (const [columns, group] of groups)
    if (columns !== '') writes.push(updateSql(columns.split(',').map(Number), group));
  return {
    stage: plan.stage,
    upserts,
    upsert:
      upserts === 0
        ? ''
        : `${plan.insertHead}SELECT ${names}${ownValue} FROM ${plan.stage} WHERE wb_op = 0${plan.conflict}`,
    update: upserts > 0 && table.updatesOnly && plan.settable.length > 0 ? updateSql(plan.settable, 0) : '',
    writes,
    deletes: [
      ...(deletes === 0 ? [] : [`DELETE FROM ${plan.rows} t USING ${plan.stage} s WHERE s.wb_op = -1 AND ${sameKey}`]),
      ...(marks === 0
        ? []
        : [
            `UPDATE ${plan.rows} t SET ${plan.deletedAt} = s.wb_at FROM ${plan.stage} s WHERE s.wb_op = -2 AND ${sameKey}`,
          ]),
    ].join('; '),
  };
}
