/** The least that outbound mappings need of a system's own tables, for the SQL that `waybill grants` prints. */
import { isFind, type OutboundPlan } from '../../core/outbound.ts';
import { rightsOfWrite } from './outbound-shape.ts';

/** A table as mappings name it, and what is granted of it. */
export interface TableGrant {
  readonly table: string;
  /** As GRANT writes it: `SELECT, INSERT ("a", "b"), UPDATE ("b")`. */
  readonly rights: string;
}

/** By table; what a user writes is granted by column, what it reads of whole tables. */
export function outboundGrants(plans: readonly OutboundPlan[], quoteName: (name: string) => string): TableGrant[] {
  const tables = new Map<string, Map<string, Set<string>>>();
  const need = (table: string, verb: string, columns: readonly string[]): void => {
    const verbs = tables.get(table) ?? new Map<string, Set<string>>();
    tables.set(table, verbs);
    verbs.set(verb, new Set([...(verbs.get(verb) ?? []), ...columns]));
  };
  for (const { blocks } of plans)
    for (const { write, gone } of blocks) {
      const writes = gone === 'ignore' ? [] : [{ write: gone.write, removes: gone.remove }];
      for (const each of [{ write, removes: false }, ...writes]) {
        for (const { verb, columns } of rightsOfWrite(each.write, each.removes))
          need(
            each.write.table,
            verb,
            columns.map(({ name }) => name),
          );
        for (const { value } of each.write.columns) if (isFind(value)) need(value.table, 'SELECT', []);
      }
    }
  return [...tables].map(([table, verbs]) => ({
    table,
    rights: [...verbs]
      .map(([verb, columns]) =>
        verb === 'SELECT' || verb === 'DELETE' ? verb : `${verb} (${[...columns].map(quoteName).join(', ')})`,
      )
      .join(', '),
  }));
}
