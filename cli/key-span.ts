/** The range of keys that `waybill snapshot … --from … --to …` names, looked at before anything is asked for. */
import { spanOf, type AskedSpan } from '../capture/key-span.ts';
import type { KeySpan } from '../capture/snapshot-request.ts';
import { ColumnRules } from '../core/column-rules.ts';
import type { SourceConfig } from '../core/config.ts';
import { ReplicationError } from '../core/errors.ts';
import type { TableSchema } from '../core/frame.ts';
import { isOrdered } from '../core/key-order.ts';
import { unknownName } from './context.ts';

export interface CheckedSpan {
  readonly span: KeySpan;
  /** Whether targets can tell which of their rows lie in it. */
  readonly removes: boolean;
}

/** The table whose range is meant. Throws `config_invalid` for none, several, or one without its schema. */
export function tableOfSpan(tables: readonly string[]): string {
  if (tables.length === 1) return tables[0]!;
  throw new ReplicationError(
    'config_invalid',
    `--from and --to are for one table, and ${tables.length === 0 ? 'none is' : `${tables.length} are`} named; run the command once for each table`,
  );
}

/** Throws `config_invalid` for a table that is not captured, and for bounds that do not fit its key. */
export async function checkedSpan(settings: SourceConfig, table: string, asked: AskedSpan): Promise<CheckedSpan> {
  const rules = ColumnRules.compile(settings.columns);
  const find = <T extends { readonly schema: TableSchema }>(tables: readonly T[]): T =>
    tables.find(({ schema }) => nameOf(schema) === table) ??
    unknownName(
      'captured table',
      table,
      tables.map(({ schema }) => nameOf(schema)),
      'tables of the source that its configuration chooses',
    );
  const guarded = (schema: TableSchema): ReadonlySet<string> => new Set(rules.publish(schema).rules?.keys());
  if (settings.kind !== 'postgres') {
    const { connectChosen } = await import('../capture/mysql/choose-server.ts');
    const { matchingTables } = await import('../capture/mysql/catalog.ts');
    const { checkSpan } = await import('../capture/mysql/key-span.ts');
    const { client } = await connectChosen(settings);
    try {
      const found = find(await matchingTables(client, settings.kind, settings.tables));
      const span = await checkSpan(client, found, spanOf(found.schema, asked, guarded(found.schema)));
      return { span, removes: isOrdered(found.schema, span) };
    } finally {
      client.end();
    }
  }
  const { connectSource } = await import('../capture/postgres/connection.ts');
  const { matchingTables } = await import('../capture/postgres/publication.ts');
  const { checkSpan, framedBounds } = await import('../capture/postgres/key-span.ts');
  const client = await connectSource(settings, 'waybill snapshot');
  try {
    const found = find(await matchingTables(client, settings.tables));
    const span = await checkSpan(client, found, spanOf(found.schema, asked, guarded(found.schema)));
    return { span, removes: isOrdered(found.schema, framedBounds(found, span)) };
  } finally {
    await client.end().catch(() => undefined);
  }
}

function nameOf({ schema, name }: TableSchema): string {
  return `${schema}.${name}`;
}
