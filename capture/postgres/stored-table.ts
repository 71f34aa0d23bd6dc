/** What of a table may be stored outside of its source. */
import type { ColumnRules } from '../../core/column-rules.ts';
import type { CapturedTable } from './catalog.ts';

/**
 * The table without the defaults of columns that a rule keeps at home, and without what rows had in them when they were
 * added: these are values. Its version stays, so that it is still told from a changed one.
 */
export function storedTable(table: CapturedTable, rules: ColumnRules): CapturedTable {
  const { schema, former } = table;
  const columns = schema.columns.map((column) => rules.storable(schema, column));
  return {
    ...table,
    schema: { ...schema, columns },
    // What is given may be more of a schema than its name.
    ...(former === undefined ? {} : { former: { schema: former.schema, name: former.name } }),
  };
}

/** What was stored, with what was left out of it where the catalog still has the same version of the table. */
export function restoredTable(stored: CapturedTable, now: CapturedTable | undefined): CapturedTable {
  const isSame = now?.schema.version === stored.schema.version && now.stamps.join() === stored.stamps.join();
  return isSame ? { ...stored, schema: { ...stored.schema, columns: now.schema.columns } } : stored;
}

/** What was stored, as the stream has it up to a place: undefined where it has that the table is gone. */
export function untold({ ends, ...table }: CapturedTable, upTo: bigint): CapturedTable | undefined {
  if (ends === undefined) return table;
  const { former } = ends;
  // The mark comes again, and is taken as it was.
  if (BigInt(ends.lsn) >= upTo) return former === undefined ? table : { ...table, former };
  return former === undefined ? undefined : table;
}
