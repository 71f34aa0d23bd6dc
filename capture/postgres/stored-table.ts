/** What of a table may be stored outside of its source. */
import type { ColumnRules } from '../../core/column-rules.ts';
import type { CapturedTable } from './catalog.ts';

/**
 * The table without the defaults of columns that a rule keeps at home: a default is a value. Its version stays, so that
 * it is still told from a changed one.
 */
export function storedTable(table: CapturedTable, rules: ColumnRules): CapturedTable {
  const { schema, former } = table;
  const columns = schema.columns.map((column) => {
    if (column.default === undefined || rules.ruleOf(schema.schema, schema.name, column.name) === undefined)
      return column;
    const { default: _, ...rest } = column;
    return rest;
  });
  return {
    ...table,
    schema: { ...schema, columns },
    // What is given may be more of a schema than its name.
    ...(former === undefined ? {} : { former: { schema: former.schema, name: former.name } }),
  };
}
