/** Ranges of keys as somebody asks for them: `--from 1000`, `--to '["10", "A-1"]'`. */
import { ReplicationError } from '../core/errors.ts';
import type { TableSchema } from '../core/frame.ts';
import type { KeySpan, KeyTexts } from './snapshot-request.ts';

/** A span whose values nobody has looked at yet. */
export interface AskedSpan {
  readonly from: string | undefined;
  readonly to: string | undefined;
}

/** The values of a bound: a JSON array of those of a key's first columns, or the one of its first column as it is. */
export function parseBound(text: string, option: string): KeyTexts {
  if (!text.trimStart().startsWith('[')) return [text];
  const wrong = (what: string): never => {
    throw new ReplicationError('config_invalid', `${option}: ${what}; give it as in ${option} '["10", "A-1"]'`);
  };
  let values: unknown;
  try {
    values = JSON.parse(text);
  } catch {
    return wrong(`${text} begins like a JSON array and is none`);
  }
  if (!Array.isArray(values) || values.length === 0) return wrong('the array has no values');
  return values.map((value: unknown) => {
    if (typeof value === 'string') return value;
    // Others have lost digits by now.
    if (typeof value === 'number' && Number.isSafeInteger(value)) return String(value);
    return wrong(`${JSON.stringify(value)} is neither a text nor an integer of up to 15 digits, so put it into quotes`);
  });
}

/**
 * What was asked for, for the key of this table. Throws `config_invalid` for a table without a key, and for more values
 * than the key has columns. `guarded`: columns whose values are not to leave the source.
 */
export function spanOf(table: TableSchema, asked: AskedSpan, guarded: ReadonlySet<string>): KeySpan {
  const name = `${table.schema}.${table.name}`;
  if (table.key.length === 0)
    throw new ReplicationError(
      'config_invalid',
      `${name} has no key by which a range could be told; read the whole table: leave out --from and --to`,
    );
  const from = asked.from === undefined ? null : parseBound(asked.from, '--from');
  const to = asked.to === undefined ? null : parseBound(asked.to, '--to');
  for (const [option, bound] of [['--from', from] as const, ['--to', to] as const])
    if (bound !== null && bound.length > table.key.length)
      throw new ReplicationError(
        'config_invalid',
        `${option} has ${bound.length} values, and the key of ${name} has ${table.key.length} (${table.key.join(', ')})`,
      );
  const columns = table.key.slice(0, Math.max(from?.length ?? 0, to?.length ?? 0)).map((column) => ({
    name: column,
    type: table.columns.find((each) => each.name === column)!.type,
  }));
  const secret = columns.find((column) => guarded.has(column.name));
  if (secret !== undefined)
    throw new ReplicationError(
      'config_invalid',
      `column ${secret.name} of ${name} is under a rule of sources.<name>.columns, and its values must not leave the source; read the whole table: leave out --from and --to`,
    );
  return { columns, from, to };
}

/** Whether a table still has the key by which a span was told. */
export function spanFits({ columns }: KeySpan, table: TableSchema): boolean {
  return columns.every(
    ({ name, type }, i) => table.key[i] === name && table.columns.find((each) => each.name === name)?.type === type,
  );
}

/** Throws `config_invalid` for a value that is none of its column. */
export function refuseBound(table: TableSchema, { columns }: Pick<KeySpan, 'columns'>, why: string): never {
  const types = columns.map(({ name, type }) => `${name} ${type}`).join(', ');
  throw new ReplicationError(
    'config_invalid',
    `--from and --to do not fit the key of ${table.schema}.${table.name} (${types}): ${why}`,
  );
}

/** Throws `config_invalid` for a span in which nothing can lie. */
export function refuseEmpty(table: TableSchema): never {
  throw new ReplicationError(
    'config_invalid',
    `no key of ${table.schema}.${table.name} lies from --from on to before --to: the first must be the smaller one`,
  );
}
