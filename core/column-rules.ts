/** The `columns` of a source: what is left out, hashed, masked or encrypted at capture. Compiled once for each table. */
import { createHash, createHmac } from 'node:crypto';
import { z } from 'zod';
import { encryptGuard, hashGuard, maskGuard, seal, unseal, type ColumnGuard } from './column-guard.ts';
import { dialectOf, isBinaryColumn } from './column-kind.ts';
import { ReplicationError } from './errors.ts';
import type { ColumnSchema, TableSchema } from './frame.ts';
import { globToRegExp } from './table-pattern.ts';

const columnPatterns = z
  .array(z.string().regex(/^[^.]+\..+\.[^.]+$/, 'must have the form schema.table.column, with * for any characters'))
  .min(1);
const kept = z.number().int().min(0).max(64).default(0);
const KEY_BYTES = 32;

/** 32 bytes as base64 or as hexadecimal digits; undefined for anything else. */
function keyBytes(text: string): Buffer | undefined {
  const bytes = /^[0-9a-f]{64}$/i.test(text) ? Buffer.from(text, 'hex') : Buffer.from(text, 'base64');
  return bytes.length === KEY_BYTES ? bytes : undefined;
}

export const columnRulesSchema = z.strictObject({
  exclude: columnPatterns.optional(),
  hash: z
    .strictObject({ columns: columnPatterns, salt: z.string().min(16, 'must have at least 16 characters') })
    .optional(),
  mask: z
    .array(z.strictObject({ columns: columnPatterns, keep_first: kept, keep_last: kept }))
    .min(1)
    .optional(),
  encrypt: z
    .strictObject({
      columns: columnPatterns,
      key_id: z.string().regex(/^[A-Za-z0-9_-]{1,32}$/, 'must be letters, digits, - and _, at most 32'),
      encryption_key: z
        .string()
        .refine((text) => keyBytes(text) !== undefined, 'must be 32 bytes, as base64 or hexadecimal digits'),
    })
    .optional(),
});

export type ColumnRulesConfig = z.infer<typeof columnRulesSchema>;

/** What is done with a column. */
export type ColumnRule = 'exclude' | ColumnGuard;

/** A table as frames carry it, and how its columns come to that. */
export interface Publication {
  readonly schema: TableSchema;
  /** By the name of the column; undefined where no rule names a column of the table. */
  readonly rules: ReadonlyMap<string, ColumnRule> | undefined;
}

interface CompiledRule {
  readonly kind: 'exclude' | ColumnGuard['rule'];
  readonly pattern: string;
  readonly schema: RegExp;
  readonly table: RegExp;
  readonly column: RegExp;
  readonly rule: ColumnRule;
}

const SEALED = 'sealed:1:';

export class ColumnRules {
  readonly #rules: readonly CompiledRule[];
  readonly #cursorKey: Buffer | undefined;
  readonly #published = new WeakMap<TableSchema, Publication>();

  private constructor(rules: readonly CompiledRule[], cursorKey: Buffer | undefined) {
    this.#rules = rules;
    this.#cursorKey = cursorKey;
  }

  static compile(config: ColumnRulesConfig | undefined): ColumnRules {
    const { exclude = [], hash, mask = [], encrypt } = config ?? {};
    const rules = exclude.map((pattern) => compiled('exclude', pattern, 'exclude'));
    const add = (columns: readonly string[], guard: ColumnGuard): void => {
      for (const pattern of columns) rules.push(compiled(guard.rule, pattern, guard));
    };
    if (hash !== undefined) add(hash.columns, hashGuard(hash.salt));
    for (const { columns, keep_first, keep_last } of mask)
      add(columns, maskGuard({ keepFirst: keep_first, keepLast: keep_last }));
    if (encrypt !== undefined) add(encrypt.columns, encryptGuard(encrypt.key_id, keyBytes(encrypt.encryption_key)!));
    const cursorKey =
      hash === undefined ? undefined : createHmac('sha256', hash.salt).update('waybill snapshot cursor').digest();
    return new ColumnRules(rules, cursorKey);
  }

  /** What is done with a column; undefined: it is carried as it is. Throws `source_columns` where two rules differ. */
  ruleOf(schema: string, table: string, column: string): ColumnRule | undefined {
    let found: CompiledRule | undefined;
    for (const each of this.#rules) {
      if (!each.schema.test(schema) || !each.table.test(table) || !each.column.test(column)) continue;
      if (found !== undefined && found.rule !== each.rule)
        throw new ReplicationError(
          'source_columns',
          `column ${schema}.${table}.${column} is named by ${found.kind} "${found.pattern}" and by ${each.kind} "${each.pattern}"`,
        );
      found = each;
    }
    return found?.rule;
  }

  /**
   * The table as frames carry it; the same object for the same schema. Throws `source_columns` for a rule that its
   * column does not allow.
   */
  publish(schema: TableSchema): Publication {
    const known = this.#published.get(schema);
    if (known !== undefined) return known;
    const rules = new Map<string, ColumnRule>();
    for (const column of schema.columns) {
      const rule = this.ruleOf(schema.schema, schema.name, column.name);
      if (rule === undefined) continue;
      requireAllowed(schema, column, rule);
      rules.set(column.name, rule);
    }
    const published = rules.size === 0 ? { schema, rules: undefined } : { schema: guardedSchema(schema, rules), rules };
    this.#published.set(schema, published);
    return published;
  }

  /** A column as it may be stored outside of its source: without values, which defaults are, where a rule names it. */
  storable({ schema, name }: Pick<TableSchema, 'schema' | 'name'>, column: ColumnSchema): ColumnSchema {
    if (this.ruleOf(schema, name, column.name) === undefined) return column;
    const { default: _, existing: __, ...rest } = column;
    return rest;
  }

  /** Rules, as `exclude "public.users.pasword"`, that name no column of these tables. */
  unmatched(tables: readonly TableSchema[]): string[] {
    return this.#rules
      .filter(
        ({ schema, table, column }) =>
          !tables.some(
            (each) =>
              schema.test(each.schema) && table.test(each.name) && each.columns.some(({ name }) => column.test(name)),
          ),
      )
      .map(({ kind, pattern }) => `${kind} "${pattern}"`);
  }

  /** The cursor of a snapshot as it may be stored: sealed where it holds values that the stream must not show. */
  sealCursor({ schema, rules }: Publication, cursor: readonly string[]): string[] {
    if (this.#cursorKey === undefined || !schema.key.some((name) => rules?.has(name) === true)) return [...cursor];
    return [SEALED + seal(this.#cursorKey, SEALED, Buffer.from(JSON.stringify(cursor))).toString('base64')];
  }

  /** The cursor that was stored; null (the table is read from its beginning) where it cannot be read any more. */
  openCursor({ schema, rules }: Publication, stored: readonly string[] | null): readonly string[] | null {
    if (stored === null) return null;
    const isSealed = stored.length === 1 && stored[0]!.startsWith(SEALED);
    const wanted = this.#cursorKey !== undefined && schema.key.some((name) => rules?.has(name) === true);
    if (!wanted) return isSealed ? null : stored;
    if (!isSealed) return null;
    try {
      const sealed = Buffer.from(stored[0]!.slice(SEALED.length), 'base64');
      return JSON.parse(unseal(this.#cursorKey, SEALED, sealed).toString('utf8')) as string[];
    } catch {
      // Another salt since then.
      return null;
    }
  }
}

/** A source without rules. */
export const NO_COLUMN_RULES = ColumnRules.compile(undefined);

function compiled(kind: CompiledRule['kind'], pattern: string, rule: ColumnRule): CompiledRule {
  const [first, last] = [pattern.indexOf('.'), pattern.lastIndexOf('.')];
  return {
    kind,
    pattern,
    schema: globToRegExp(pattern.slice(0, first)),
    table: globToRegExp(pattern.slice(first + 1, last)),
    column: globToRegExp(pattern.slice(last + 1)),
    rule,
  };
}

function requireAllowed(table: TableSchema, column: ColumnSchema, rule: ColumnRule): void {
  const kind = rule === 'exclude' ? 'exclude' : rule.rule;
  const place = `column ${table.schema}.${table.name}.${column.name}`;
  if (kind === 'hash') return;
  if (table.key.includes(column.name))
    throw new ReplicationError(
      'source_columns',
      `${place} is part of the key, by which rows are told apart: it may be hashed, but not be under ${kind}`,
    );
  if (kind === 'encrypt' && table.key.length === 0)
    throw new ReplicationError(
      'source_columns',
      `${place} cannot be encrypted: the table has no key, and rows that are told apart by all their values must look the same each time`,
    );
  if (kind === 'mask' && isBinaryColumn(dialectOf(table), column))
    throw new ReplicationError('source_columns', `${place} holds bytes, which cannot be masked`);
}

function guardedSchema(table: TableSchema, rules: ReadonlyMap<string, ColumnRule>): TableSchema {
  const columns = table.columns.flatMap((column): ColumnSchema[] => {
    const rule = rules.get(column.name);
    if (rule === undefined) return [column];
    if (rule === 'exclude') return [];
    const type = guardedType(table, rule);
    const { id, name, notNull, existing } = column;
    const binary = isBinaryColumn(dialectOf(table), column);
    return [
      {
        name,
        type,
        portable: type,
        notNull,
        ...(id === undefined ? {} : { id }),
        ...(existing === undefined ? {} : { existing: rule.apply(Buffer.from(existing, binary ? 'base64' : 'utf8')) }),
        ...(table.dialect === undefined ? {} : { collation: 'utf8mb4_bin' }),
      },
    ];
  });
  const version = createHash('sha256')
    .update(JSON.stringify([table.version, columns.map(({ existing: _, ...column }) => column)]))
    .digest('hex')
    .slice(0, 12);
  return { ...table, version, columns };
}

/** Types that hold what a guard gives: a text, short enough for a key where it is one. */
function guardedType(table: TableSchema, { rule }: ColumnGuard): string {
  if (dialectOf(table) === 'postgres') return 'text';
  return rule === 'hash' ? 'varchar(64)' : rule === 'mask' ? 'varchar(255)' : 'longtext';
}
