/** The temporary table that many changes of a table are loaded into, and the statements that take them from there. */
import type { TableChanges } from '../table-changes.ts';
import { deletedAtText } from '../../core/soft-deletes.ts';
import { loadLine, loadSql } from './load-data.ts';
import type { TablePlan } from './table-plan.ts';
import { bent, type TargetTransaction } from './target-transaction.ts';

/**
 * In column `wb_op`: -2 mark as deleted, -1 delete, 0 the whole row, from 1 on a set of changed columns. Where deleted rows
 * stay, the column behind it says since when a row is gone.
 */
export interface StagedTable {
  readonly stage: string;
  readonly writes: readonly string[];
  /** Empty when nothing is deleted or marked. */
  readonly deletes: string;
}

export function dropStage(stage: string): string {
  return `DROP TEMPORARY TABLE IF EXISTS ${stage}`;
}

export async function writeStaged(
  transaction: TargetTransaction,
  table: TableChanges<TablePlan>,
): Promise<StagedTable> {
  const { plan } = table;
  const groups = new Map<string, number>();
  let upserts = 0;
  let deletes = 0;
  let marks = 0;
  let sent = 0;
  const head = (op: number, timeUs?: number): string => {
    if (plan.deletedAt === undefined) return `${op}\t`;
    return `${op}\t${timeUs === undefined ? '\\N' : deletedAtText(timeUs)}\t`;
  };
  function* lines(): Generator<string> {
    for (const { kind, image, deletedAtUs } of table.net()) {
      sent += 1;
      if (kind === 'upsert' || kind === 'buried') {
        upserts += 1;
        yield loadLine(plan, plan.written, image, head(0, deletedAtUs));
      } else if (kind !== 'partial') {
        if (kind === 'delete') deletes += 1;
        else marks += 1;
        // Of a deleted row only the key counts, and an old image may hold what no type accepts.
        const keyOnly = image.map((value, index) => (plan.key.includes(index) ? value : null));
        yield loadLine(plan, plan.written, keyOnly, head(kind === 'delete' ? -1 : -2, deletedAtUs));
      } else {
        const columns = plan.settable.filter((index) => image[index] !== 0).join();
        let group = groups.get(columns);
        if (group === undefined) groups.set(columns, (group = groups.size + 1));
        yield loadLine(plan, plan.written, image, head(group));
      }
    }
  }
  const own = plan.deletedAt === undefined ? [] : [plan.deletedAt];
  // CREATE and DROP of temporary tables do not commit (MySQL Reference Manual, "Implicit Commit").
  await transaction.run(`${dropStage(plan.stage)}; ${plan.createStage}`);
  const outcome = await transaction.load(loadSql(plan, plan.stage, ['wb_op', ...own].join(', ')), lines());
  if (outcome.warnings > 0 || outcome.rows !== sent) bent();
  const names = [...plan.written.map((index) => plan.names[index]), ...own].join(', ');
  const sameKey = plan.key.map((index) => `t.${plan.names[index]} = s.${plan.names[index]}`).join(' AND ');
  // The stage leads, so that only its keys are looked up, and locked, in the table.
  const joined = `${plan.stage} s STRAIGHT_JOIN ${plan.qualified} t ON ${sameKey}`;
  const writes: string[] = [];
  if (upserts > 0)
    writes.push(`${plan.insertHead}SELECT ${names} FROM ${plan.stage} s WHERE wb_op = 0${plan.upsertStaged}`);
  for (const [columns, group] of groups) {
    if (columns === '') continue;
    const sets = columns.split(',').map((index) => `t.${plan.names[Number(index)]} = s.${plan.names[Number(index)]}`);
    for (const name of own) sets.push(`t.${name} = NULL`);
    writes.push(`UPDATE ${joined} SET ${sets.join(', ')} WHERE s.wb_op = ${group}`);
  }
  // Not by an alias: where rows go from would then be looked for in a default database, which there may not be.
  const keyOfStage = plan.key.map((index) => `${plan.qualified}.${plan.names[index]} = s.${plan.names[index]}`);
  const found = `${plan.stage} s STRAIGHT_JOIN ${plan.qualified} ON ${keyOfStage.join(' AND ')}`;
  return {
    stage: plan.stage,
    writes,
    deletes: [
      ...(deletes === 0 ? [] : [`DELETE ${plan.qualified} FROM ${found} WHERE s.wb_op = -1`]),
      ...(marks === 0 ? [] : [`UPDATE ${joined} SET t.${plan.deletedAt} = s.${plan.deletedAt} WHERE s.wb_op = -2`]),
    ].join('; '),
  };
}
