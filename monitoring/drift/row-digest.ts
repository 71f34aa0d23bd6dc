/** The digest of a row whose texts a database has printed. */
import { canonicalRow } from './canonical-text.ts';
import { isWorkedOutHere, workedOut } from './canonical-value.ts';
import { digestOf } from './digest.ts';
import type { ComparedTable, DigestedRow } from './side.ts';

/** `texts`: one for each compared column, canonical but for the kinds that are worked out here. */
export function digestRow(table: ComparedTable, texts: readonly (string | null)[]): DigestedRow {
  const kinds = table.columns.map((column) => column.kind);
  const values = texts.map((text, index) => {
    const kind = kinds[index]!;
    return text !== null && isWorkedOutHere(kind) ? workedOut(kind, text) : text;
  });
  return {
    key: table.key.map((index) => values[index] ?? ''),
    digest: digestOf(canonicalRow(kinds, values), table.hash),
  };
}
