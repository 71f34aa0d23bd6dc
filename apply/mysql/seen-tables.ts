/** Tables `waybill.seen_…`, which record keys while a snapshot is under way. Making one commits implicitly. */
import { createHash } from 'node:crypto';
import { deletedAtText } from '../../core/soft-deletes.ts';
import type { MysqlSession } from './session.ts';
import { qualifiedName, quoteLiteral, quoteName, typeForDdl, uncheckedDelete } from './sql.ts';
import type { TablePlan } from './table-plan.ts';
import type { TargetColumn } from './table-shape.ts';
import type { RunDdl } from './target-table.ts';

/** Not qualified. The same for the same flow, table and key. */
export function seenTableName(flow: string, plan: TablePlan, prefix = 'seen_'): string {
  const key = plan.key.map((index) => `${plan.names[index]} ${plan.columns[index]!.type}`).join();
  const hash = createHash('sha256').update(`${flow}\0${plan.qualified}\0${key}`).digest('hex');
  return `${prefix}${hash.slice(0, 24)}`;
}

/** Makes one, empty, where none of this name is there. What an earlier snapshot left behind may be of another shape. */
export async function makeSeenTable(session: MysqlSession, name: string, plan: TablePlan, ddl: RunDdl): Promise<void> {
  const where = `TABLE_SCHEMA = 'waybill' AND TABLE_NAME = ${quoteLiteral(name)}`;
  const [there] = await session.rows(`SELECT 1 FROM information_schema.TABLES WHERE ${where}`);
  const qualified = qualifiedName('waybill', name);
  if (there !== undefined) {
    const [row] = await session.rows(`SELECT 1 FROM ${qualified} LIMIT 1`);
    if (row === undefined) return;
    await ddl(`DROP TABLE ${qualified}`);
  }
  const columns = plan.key.map((index) => seenColumn(plan.columns[index]!));
  const key = plan.key.map((index) => plan.names[index]).join(', ');
  await ddl(`CREATE TABLE IF NOT EXISTS ${qualified} (${columns.join(', ')}, PRIMARY KEY (${key})) ENGINE=InnoDB`);
}

export function seenColumn({ name, type, charset, collation }: TargetColumn): string {
  const characters = collation === undefined ? '' : ` CHARACTER SET ${charset} COLLATE ${collation}`;
  return `${quoteName(name)} ${typeForDdl(type)}${characters} NOT NULL`;
}

/** Takes away what a snapshot did not see. */
export class UnseenRows {
  readonly #flavour: 'mysql' | 'mariadb';
  readonly #isItsOnlyReferrer: (plan: TablePlan) => boolean;

  /** `isItsOnlyReferrer`: whether rows refer to a table, and all of them are its own. */
  constructor(flavour: 'mysql' | 'mariadb', isItsOnlyReferrer: (plan: TablePlan) => boolean) {
    this.#flavour = flavour;
    this.#isItsOnlyReferrer = isItsOnlyReferrer;
  }

  /**
   * The statement that deletes rows of which the key was not seen, or marks them as gone since `timeUs` (microseconds since
   * 1970). `conditions`, each begun with AND, name them further.
   */
  deleteSql(plan: TablePlan, seen: string, conditions: string, timeUs: number): string {
    // Without an alias, which would be looked for in a default database.
    const same = plan.key
      .map((index) => `s.${plan.names[index]} = ${plan.qualified}.${plan.names[index]}`)
      .join(' AND ');
    const joined = `${plan.qualified} LEFT JOIN ${seen} s ON ${same}`;
    const unseen = `s.${plan.names[plan.key[0]!]} IS NULL${conditions}`;
    if (plan.deletedAt !== undefined) {
      const own = `${plan.qualified}.${plan.deletedAt}`;
      return `UPDATE ${joined} SET ${own} = ${quoteLiteral(deletedAtText(timeUs))} WHERE ${own} IS NULL AND ${unseen}`;
    }
    const sql = `DELETE ${plan.qualified} FROM ${joined} WHERE ${unseen}`;
    // The source has nothing that refers to what it does not have.
    return this.#isItsOnlyReferrer(plan) ? uncheckedDelete(sql, this.#flavour) : sql;
  }
}
