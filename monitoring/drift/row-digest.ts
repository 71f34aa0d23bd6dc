/** The digest of a row whose texts a database has printed. */
import { isBinaryColumn } from '../../core/column-kind.ts';
import { canonicalRow } from './canonical-text.ts';
import { isWorkedOutHere, workedOut } from './canonical-value.ts';
import { digestOf } from './digest.ts';
import type { ComparedColumn, ComparedTable, DigestedRow } from './side.ts';

/** Whether no database can take the digests of a table's rows. */
export function isDigestedHere(table: ComparedTable): boolean {
  return table.columns.some(({ kind, guard }) => guard !== undefined || isWorkedOutHere(kind));
}

/** The canonical values of a row. `texts`: one for each compared column, canonical but for what is worked out here. */
export function rowValues(table: ComparedTable, texts: readonly (string | null)[]): (string | null)[] {
  return texts.map((text, index) => {
    const { kind, guard } = table.columns[index]!;
    if (text !== null && guard !== undefined) return guard.apply(bytesOf(table, table.columns[index]!, text));
    return text !== null && isWorkedOutHere(kind) ? workedOut(kind, text) : text;
  });
}

/** `texts` as for `rowValues`. */
export function digestRow(table: ComparedTable, texts: readonly (string | null)[]): DigestedRow {
  const kinds = table.columns.map((column) => column.kind);
  const values = rowValues(table, texts);
  return {
    key: table.key.map((index) => values[index] ?? ''),
    digest: digestOf(canonicalRow(kinds, values), table.hash),
  };
}

/** What a guard is given of a value that a database has printed: the bytes of a binary column, else those of the text. */
function bytesOf({ dialect }: ComparedTable, { type }: ComparedColumn, text: string): Buffer {
  if (!isBinaryColumn(dialect, { type, portable: type })) return Buffer.from(text, 'utf8');
  return dialect === 'postgres' ? Buffer.from(text.slice(2), 'hex') : Buffer.from(text, 'base64');
}
