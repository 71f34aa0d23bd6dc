/** The statements that make a target table fit the next version of its source table. docs/schema-changes.md. */
import type { ClientBase } from 'pg';
import { dialectOf } from '../../core/column-kind.ts';
import type { FlowConfig } from '../../core/config.ts';
import type { ColumnSchema, TableSchema } from '../../core/frame.ts';
import { classifyTypeChange } from '../../core/type-widening.ts';
import { describeDiff, diffSchemas, isEmptyDiff, orderRenames, spareName, type SchemaDiff } from '../schema-diff.ts';
import { lostReason } from '../schema-stop.ts';
import { byteaText, qualifiedName, quoteLiteral, quoteName } from './sql.ts';
import { accepts, type FoundColumn, type FoundTable } from './table-shape.ts';
import { hasUniqueKey, mayBeNull, missingColumns, readTable, shapeError, targetTypes } from './target-table.ts';
import { isRowError, sqlStateOf } from './target-error.ts';

export interface FollowOptions {
  readonly client: ClientBase;
  readonly settings: FlowConfig;
  /** Schema of the table in the target. */
  readonly schema: string;
  readonly before: TableSchema;
  readonly after: TableSchema;
  readonly kept: readonly string[];
  readonly pending: readonly string[];
  /** The table is about to be read from the beginning: types that cannot be followed are changed all the same. */
  readonly restart: boolean;
  /** With `restart`: nobody asked for it, so that narrower types of what is certainly the same column stop the table. */
  readonly unasked: boolean;
  /** With `unasked`: columns of one name are the same for certain, whatever the versions tell. */
  readonly narrower: boolean;
  /** The target has had the version before, and rows of it: what is missing of that cannot be made up for. */
  readonly written: boolean;
}

/** What the flow remembers of the table from now on. */
export interface Followed {
  readonly kept: readonly string[];
  readonly pending: readonly string[];
}

/** Column names that are in the target, as each statement leaves them. */
type Columns = Map<string, FoundColumn>;

/**
 * Changes the target table, inside the transaction at hand. Throws `target_shape` for what cannot be followed, or what
 * the server says; the caller goes back to a savepoint then.
 */
export async function followChanges(options: FollowOptions): Promise<Followed> {
  const { client, settings, schema, before, after, kept, pending, restart } = options;
  const diff = diffSchemas(before, after);
  const found = await readTable(client, schema, after.name);
  if (options.written) refuseLost(before, schema, found, after.name);
  if (found === undefined) return { kept: [], pending: [] };
  if (isEmptyDiff(diff) && !restart) return { kept, pending };
  if (settings.schema_changes === 'stop' && !restart && !isEmptyDiff(diff))
    throw shapeError(schema, after.name, `its source changed (${describeDiff(diff)}), and schema_changes is stop`);
  const change = new TableChange(options, diff, found);
  await change.run();
  return { kept: [...change.kept], pending: [...change.pending] };
}

/** Throws `target_shape` where the target lacks the table, or columns that it had. */
function refuseLost(before: TableSchema, schema: string, found: FoundTable | undefined, name: string): void {
  if (found === undefined) throw shapeError(schema, name, lostReason());
  const missing = missingColumns(before, found);
  if (missing.length > 0) throw shapeError(schema, name, lostReason(missing));
}

class TableChange {
  readonly #o: FollowOptions;
  readonly #diff: SchemaDiff;
  readonly #oid: number;
  readonly #columns: Columns;
  /** The columns to add: also those that the target has lost, where the table is read anew. */
  readonly #added: readonly ColumnSchema[];
  readonly #table: string;
  readonly kept: Set<string>;
  readonly pending: Set<string>;

  constructor(options: FollowOptions, diff: SchemaDiff, found: { oid: number; columns: FoundColumn[] }) {
    this.#o = options;
    this.#diff = diff;
    this.#oid = found.oid;
    this.#columns = new Map(found.columns.map((column) => [column.name, column]));
    const lost = diff.kept.filter(({ before, after }) => ![before, after].some(({ name }) => this.#columns.has(name)));
    this.#added = [...diff.added, ...lost.map(({ after }) => after)];
    this.#table = qualifiedName(options.schema, options.after.name);
    this.kept = new Set(options.kept.filter((name) => this.#columns.has(name)));
    this.pending = new Set(options.pending);
  }

  async run(): Promise<void> {
    const { client, before, after, settings } = this.#o;
    const types = {
      before: await targetTypes(client, before, settings),
      after: await targetTypes(client, after, settings),
    };
    if (this.#diff.key) await this.#dropKey();
    await this.#drop();
    await this.#clearNames();
    for (const { from, to } of orderRenames(this.#diff.renamed.filter(({ from: name }) => this.#columns.has(name))))
      await this.#rename(from, to);
    await this.#retype(types);
    await this.#add(types.after);
    await this.#nulls(types.after);
    await this.#defaults();
    if (this.#diff.key) await this.#addKey();
  }

  async #alter(what: string): Promise<void> {
    await this.#o.client.query(`ALTER TABLE ${this.#table} ${what}`);
  }

  async #dropKey(): Promise<void> {
    const { rows } = await this.#o.client.query<{ name: string; columns: string[] }>(
      `SELECT conname AS name, ARRAY(SELECT attname::text FROM pg_attribute a WHERE a.attrelid = conrelid
          AND a.attnum = ANY (conkey)) AS columns FROM pg_constraint WHERE conrelid = $1 AND contype = 'p'`,
      [this.#oid],
    );
    const [primary] = rows;
    const { key } = this.#o.before;
    if (primary === undefined || primary.columns.length !== key.length) return;
    if (primary.columns.every((name) => key.includes(name)))
      await this.#alter(`DROP CONSTRAINT ${quoteName(primary.name)}`);
  }

  async #drop(): Promise<void> {
    for (const { name } of this.#diff.dropped) {
      const found = this.#columns.get(name);
      this.pending.delete(name);
      if (found === undefined) continue;
      if (this.#o.settings.dropped_columns === 'drop') {
        await this.#alter(`DROP COLUMN ${quoteName(name)}`);
        this.#columns.delete(name);
        continue;
      }
      // New rows have no value for it.
      if (found.notNull && !found.generated) await this.#alter(`ALTER COLUMN ${quoteName(name)} DROP NOT NULL`);
      this.#columns.set(name, { ...found, notNull: false });
      this.kept.add(name);
    }
  }

  /** A column that stayed behind gives its name up to the one that has it now. */
  async #clearNames(): Promise<void> {
    for (const name of [...this.#diff.added.map((column) => column.name), ...this.#diff.renamed.map(({ to }) => to)]) {
      if (!this.kept.has(name) || !this.#columns.has(name)) continue;
      const spare = spareName(name, (each) => this.#columns.has(each));
      await this.#rename(name, spare);
      this.kept.delete(name);
      this.kept.add(spare);
    }
  }

  async #rename(from: string, to: string): Promise<void> {
    await this.#alter(`RENAME COLUMN ${quoteName(from)} TO ${quoteName(to)}`);
    this.#columns.set(to, { ...this.#columns.get(from)!, name: to });
    this.#columns.delete(from);
    if (this.pending.delete(from)) this.pending.add(to);
  }

  async #retype(types: { before: ReadonlyMap<string, string>; after: ReadonlyMap<string, string> }): Promise<void> {
    const { restart, unasked, narrower: isSame, schema, after } = this.#o;
    const changes: { column: ColumnSchema; to: string; force: boolean }[] = [];
    const problems: string[] = [];
    for (const pair of this.#diff.kept) {
      const [from, to] = [types.before.get(pair.before.name)!, types.after.get(pair.after.name)!];
      const found = this.#columns.get(pair.after.name);
      if (found === undefined || found.type === to) continue;
      const narrower = from !== to && classifyTypeChange(from, to) === 'narrower';
      if (narrower && (!restart || (unasked && (isSame || this.#diff.certain))))
        problems.push(
          `column ${pair.after.name} was ${pair.before.type} and is ${pair.after.type}, which may lose values`,
        );
      // A type that somebody chose in the target, and that takes the values, stays.
      else if (found.type === from ? from !== to : !accepts(found.type, to) && restart)
        changes.push({ column: pair.after, to, force: narrower || restart });
    }
    if (problems.length > 0) throw shapeError(schema, after.name, problems.join('. '));
    if (changes.length === 0) return;
    for (const { column } of changes)
      if (this.#columns.get(column.name)!.defaulted)
        await this.#alter(`ALTER COLUMN ${quoteName(column.name)} DROP DEFAULT`);
    const list = (using: (name: string, to: string, force: boolean) => string): string =>
      changes
        .map(
          ({ column, to, force }) =>
            `ALTER COLUMN ${quoteName(column.name)} TYPE ${to}${using(quoteName(column.name), to, force)}`,
        )
        .join(', ');
    const gentle = list((name, to, force) => (force ? ` USING ${name}::text::${to}` : ''));
    const done = await this.#attempt(() => this.#alter(gentle), restart);
    if (!done) {
      // All rows are read again now.
      await this.#o.client.query(`TRUNCATE ${this.#table}`);
      await this.#alter(list((_, to) => ` USING NULL::${to}`));
    }
    for (const { column, to } of changes)
      this.#columns.set(column.name, { ...this.#columns.get(column.name)!, type: to, defaulted: false });
  }

  /** False when it failed because of rows; what failed is undone. */
  async #attempt(work: () => Promise<void>, tolerate: boolean): Promise<boolean> {
    const { client } = this.#o;
    if (!tolerate) {
      await work();
      return true;
    }
    await client.query('SAVEPOINT attempt');
    try {
      await work();
      await client.query('RELEASE SAVEPOINT attempt');
      return true;
    } catch (thrown) {
      if (!isRowError(thrown) && !/^42(804|846)/.test(sqlStateOf(thrown) ?? '')) throw thrown;
      await client.query('ROLLBACK TO SAVEPOINT attempt');
      return false;
    }
  }

  async #add(types: ReadonlyMap<string, string>): Promise<void> {
    for (const column of this.#added) {
      if (this.#columns.has(column.name)) continue;
      const type = types.get(column.name)!;
      const { existing } = column;
      const filled =
        existing === undefined ? '' : ` DEFAULT ${quoteLiteral(type === 'bytea' ? byteaText(existing) : existing)}`;
      await this.#alter(`ADD COLUMN ${quoteName(column.name)} ${type}${filled}`);
      this.#columns.set(column.name, {
        name: column.name,
        type,
        notNull: false,
        defaulted: existing !== undefined,
        generated: false,
        identityAlways: false,
      });
    }
  }

  async #nulls(types: ReadonlyMap<string, string>): Promise<void> {
    const { after } = this.#o;
    const tightened = (column: ColumnSchema): boolean =>
      column.notNull && !mayBeNull(after, column, types.get(column.name)!, this.#o.settings);
    const changed = [
      ...this.#added,
      ...this.#diff.kept.filter((pair) => pair.before.notNull !== pair.after.notNull).map((pair) => pair.after),
    ];
    for (const column of changed) {
      const found = this.#columns.get(column.name);
      if (found === undefined || found.generated) continue;
      this.pending.delete(column.name);
      if (!column.notNull) {
        if (found.notNull && !after.key.includes(column.name))
          await this.#alter(`ALTER COLUMN ${quoteName(column.name)} DROP NOT NULL`);
      } else if (!found.notNull && tightened(column)) await this.tighten(column.name);
    }
  }

  /** Rows that have no value yet are being read again: then it waits for the end of that. */
  async tighten(name: string): Promise<void> {
    const set = (): Promise<void> => this.#alter(`ALTER COLUMN ${quoteName(name)} SET NOT NULL`);
    if (!(await this.#attempt(set, true))) this.pending.add(name);
  }

  /** Defaults mean the same only in the same kind of database. */
  async #defaults(): Promise<void> {
    const { after } = this.#o;
    if (dialectOf(after) !== 'postgres') {
      for (const column of this.#added)
        if (column.existing !== undefined) await this.#alter(`ALTER COLUMN ${quoteName(column.name)} DROP DEFAULT`);
      return;
    }
    const retyped = this.#diff.kept.filter((pair) => pair.before.type !== pair.after.type);
    const changed = [
      ...this.#added,
      ...this.#diff.kept
        .filter((pair) => pair.before.default !== pair.after.default || retyped.includes(pair))
        .map((pair) => pair.after),
    ];
    for (const column of changed) {
      const found = this.#columns.get(column.name);
      if (found === undefined || found.generated || (column.default === undefined && !found.defaulted)) continue;
      const action = column.default === undefined ? 'DROP DEFAULT' : `SET DEFAULT ${column.default}`;
      await this.#alter(`ALTER COLUMN ${quoteName(column.name)} ${action}`);
    }
  }

  async #addKey(): Promise<void> {
    const { after, client, schema } = this.#o;
    if (after.key.length === 0 || (await hasUniqueKey(client, this.#oid, after.key))) return;
    const { rowCount } = await client.query("SELECT 1 FROM pg_constraint WHERE conrelid = $1 AND contype = 'p'", [
      this.#oid,
    ]);
    const columns = after.key.map(quoteName).join(', ');
    const add = (): Promise<void> => this.#alter(`ADD ${rowCount === 0 ? 'PRIMARY KEY' : 'UNIQUE'} (${columns})`);
    if (await this.#attempt(add, true)) return;
    if (!this.#o.restart)
      throw shapeError(
        schema,
        after.name,
        `its rows are not told apart by the new key (${after.key.join(', ')}) before they are read again`,
      );
    await client.query(`TRUNCATE ${this.#table}`);
    await add();
  }
}
