/** A captured table as frames carry it, after the column rules of its source. */
import type { ColumnGuard } from '../../core/column-guard.ts';
import type { ColumnRules, Publication } from '../../core/column-rules.ts';
import type { TableSchema } from '../../core/frame.ts';
import type { CapturedTable } from './catalog.ts';

/** How a column is written: left out, through a guard, or (undefined) as it is. */
export type ColumnWrite = 'omit' | ColumnGuard | undefined;

export interface PublishedTable extends CapturedTable {
  readonly publication: Publication;
  /** The schema that frames carry. `schema` is the source's own, for statements. */
  readonly published: TableSchema;
  /** By the columns of `schema`; undefined where no rule concerns the table. */
  readonly writes: readonly ColumnWrite[] | undefined;
}

/** Throws `source_columns` for rules that the table does not allow. */
export function publishTable(table: CapturedTable, rules: ColumnRules): PublishedTable {
  const publication = rules.publish(table.schema);
  const { rules: own } = publication;
  const writes =
    own === undefined
      ? undefined
      : table.schema.columns.map(({ name }): ColumnWrite => {
          const rule = own.get(name);
          return rule === 'exclude' ? 'omit' : rule;
        });
  return { ...table, publication, published: publication.schema, writes };
}

/** Whether values of the key are hashed: then keys of the stream are not keys of the table. */
export function hasGuardedKey({ keyIndexes, writes }: PublishedTable): boolean {
  return writes !== undefined && keyIndexes.some((index) => writes[index] !== undefined);
}

/** A row of texts as Postgres prints them, as frames carry it. */
export function publishedRow(
  table: Pick<PublishedTable, 'binary' | 'writes'>,
  values: readonly (string | null)[],
): (string | null)[] {
  const row: (string | null)[] = [];
  for (const [index, value] of values.entries()) {
    const write = table.writes?.[index];
    if (write === 'omit') continue;
    const binary = table.binary[index] === true;
    if (value === null) row.push(null);
    else if (write !== undefined) row.push(write.apply(binary ? byteaBytes(value) : Buffer.from(value, 'utf8')));
    else row.push(binary ? byteaBytes(value).toString('base64') : value);
  }
  return row;
}

/** A row of which only the key is known, as frames carry it. */
export function keyImage(table: PublishedTable, key: readonly string[]): Buffer {
  const image: (string | null)[] = table.schema.columns.map(() => null);
  for (const [i, index] of table.keyIndexes.entries()) image[index] = key[i]!;
  return Buffer.from(JSON.stringify(publishedRow(table, image)));
}

/** Whether values of a table go into frames as the source prints them. */
export function isPlain({ writes, binary }: Pick<PublishedTable, 'binary' | 'writes'>): boolean {
  return writes === undefined && !binary.includes(true);
}

/** The bytes of a bytea in hexadecimal form (`\x…`). */
export function byteaBytes(text: string): Buffer {
  return Buffer.from(text.slice(2), 'hex');
}
