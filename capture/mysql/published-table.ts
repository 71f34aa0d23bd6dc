/** A logged table as frames carry it, after the column rules of its source. */
import type { ColumnGuard } from '../../core/column-guard.ts';
import type { ColumnRules } from '../../core/column-rules.ts';
import { isBinaryColumn } from '../../core/column-kind.ts';
import type { CapturedTable, LoggedTable } from './catalog.ts';
import type { TableMap } from './table-map.ts';

/** What is done with the values of a column, and whether these are bytes. */
export interface GuardedColumn {
  readonly guard: ColumnGuard;
  readonly binary: boolean;
}

/** By the columns of a table or of its log; undefined for those that are written as they are. */
export type Guards = readonly (GuardedColumn | undefined)[];

/** Tells the map what is left out, and the table how the rest is written. Throws `source_columns`. */
export function publishLogged(table: LoggedTable, map: TableMap, rules: ColumnRules): LoggedTable {
  const { schema, rules: own } = rules.publish(table.schema);
  if (own === undefined) return table;
  for (const [index, { name }] of map.columns.entries()) if (own.get(name) === 'exclude') map.hint(index, 'omit');
  return {
    ...table,
    schema,
    guards: guardsOf(
      table,
      map.columns.map(({ name }) => name),
      rules,
    ),
  };
}

/** A table that was read, for its chunks and marks. `names` are those of the columns that are read. */
export function publishRead(
  table: CapturedTable,
  rules: ColumnRules,
): { table: LoggedTable; guards: Guards | undefined; excluded: ReadonlySet<string> } {
  const { schema, rules: own } = rules.publish(table.schema);
  const names = table.schema.columns.map(({ name }) => name);
  return {
    table: { schema, keyIndexes: [], transactional: table.transactional, guards: undefined },
    guards: own === undefined ? undefined : guardsOf(table, names, rules),
    excluded: new Set([...(own ?? [])].filter(([, rule]) => rule === 'exclude').map(([name]) => name)),
  };
}

/** `table.schema` is the source's own. */
function guardsOf({ schema }: Pick<LoggedTable, 'schema'>, names: readonly string[], rules: ColumnRules): Guards {
  const own = rules.publish(schema).rules!;
  return names.map((name) => {
    const rule = own.get(name);
    if (rule === undefined || rule === 'exclude') return undefined;
    const column = schema.columns.find((each) => each.name === name)!;
    return { guard: rule, binary: isBinaryColumn(schema.dialect!, column) };
  });
}

/** What the stream carries for a value's canonical text (base64 of bytes). */
export function guarded({ guard, binary }: GuardedColumn, text: string): string {
  return guard.apply(Buffer.from(text, binary ? 'base64' : 'utf8'));
}
