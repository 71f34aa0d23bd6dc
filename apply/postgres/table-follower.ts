/** Makes target tables follow their source tables, each under a savepoint of its own: one that cannot is stopped alone. */
import type { ClientBase } from 'pg';
import type { FlowConfig } from '../../core/config.ts';
import { asReplicationError } from '../../core/errors.ts';
import type { TableSchema } from '../../core/frame.ts';
import { nameOf, type FollowedTables, type SchemaStep, type TableRecord } from '../followed-tables.ts';
import { marked } from '../soft-problems.ts';
import { goneReason, isOfTheFlow, isRenamedAlong, stoppedRecord } from '../schema-stop.ts';
import { targetSchema } from '../target-schema.ts';
import { followChanges } from './follow-changes.ts';
import { qualifiedName, quoteName } from './sql.ts';
import { deleteRecordSql, readTableRecords, storeRecordSql } from './table-records.ts';
import { isRowError, targetError } from './target-error.ts';
import type { TargetTable } from './table-plan.ts';
import { addDeletedAt, ensureTargetTable, ensureTargetTables } from './target-table.ts';
import type { TargetTransaction } from './target-transaction.ts';

const NOTHING_KEPT = { kept: [], pending: [] } as const;

export class TableFollower {
  readonly #client: ClientBase;
  readonly #flow: string;
  readonly #settings: FlowConfig;
  readonly #followed: FollowedTables;

  /** Records were loaded before; a transaction may be under way. */
  #loaded = false;

  constructor(client: ClientBase, flow: string, settings: FlowConfig, followed: FollowedTables) {
    this.#client = client;
    this.#flow = flow;
    this.#settings = settings;
    this.#followed = followed;
  }

  async load(): Promise<void> {
    const records = await readTableRecords(this.#client, this.#flow);
    if (!this.#loaded)
      await addDeletedAt(
        this.#client,
        marked(records, this.#settings).map((table) => ({
          schema: targetSchema(table, this.#settings),
          name: table.name,
        })),
      );
    this.#loaded = true;
    this.#followed.load(records);
  }

  /** `follow` for several steps, in their order. Gives the target tables that the flow did not know of before. */
  async followAll(
    steps: readonly SchemaStep[],
    transaction: TargetTransaction,
  ): Promise<Map<TableSchema, TargetTable>> {
    const found = new Map<TableSchema, TargetTable>();
    for (const [table, target] of await this.#makeNew(steps, transaction)) found.set(table, target);
    for (const step of steps) {
      if (found.has(step.table)) continue;
      const target = await this.follow(step, transaction);
      if (target !== undefined) found.set(step.table, target);
    }
    return found;
  }

  /** Makes tables together that the flow did not know of before. None where one of them cannot be made. */
  async #makeNew(
    steps: readonly SchemaStep[],
    transaction: TargetTransaction,
  ): Promise<readonly (readonly [TableSchema, TargetTable])[]> {
    // One of another name may have to be taken along instead.
    if (this.#settings.renamed_tables === 'rename') return [];
    const names = steps.map(({ table }) => nameOf(table));
    const fresh = steps
      .map(({ table }) => table)
      .filter(
        (table, n) =>
          this.#followed.of(table) === undefined && names.indexOf(names[n]!) === names.lastIndexOf(names[n]!),
      );
    if (fresh.length < 2) return [];
    transaction.add('SAVEPOINT new_tables');
    await transaction.flush();
    let targets: TargetTable[];
    try {
      const wanted = fresh.map((table) => ({ table, schema: targetSchema(table, this.#settings) }));
      targets = await ensureTargetTables(this.#client, wanted, this.#settings);
    } catch {
      // Which one it is, and what becomes of it, shows when each is made by itself. A connection that broke fails here.
      await this.#client.query('ROLLBACK TO SAVEPOINT new_tables');
      return [];
    }
    transaction.add('RELEASE SAVEPOINT new_tables');
    for (const table of fresh)
      this.#remember(
        {
          schema: table.schema,
          name: table.name,
          definition: table,
          ...NOTHING_KEPT,
          state: 'follows',
          reason: undefined,
        },
        transaction,
      );
    await transaction.flush();
    return fresh.map((table, n) => [table, targets[n]!] as const);
  }

  /**
   * Makes the target table fit, or stops the table. Throws what concerns the flow as a whole. Gives the target table where
   * the flow did not know of it before.
   */
  async follow(step: SchemaStep, transaction: TargetTransaction): Promise<TargetTable | undefined> {
    const { table } = step;
    const before = this.#followed.of(table);
    const old = this.#followed.underOtherName(table);
    let found: TargetTable | undefined;
    transaction.add('SAVEPOINT schema_step');
    await transaction.flush();
    try {
      const { record, target } = await this.#fit(step, before);
      transaction.add('RELEASE SAVEPOINT schema_step');
      this.#remember(record, transaction);
      if (before === undefined) found = target;
    } catch (thrown) {
      const error = asReplicationError(targetError(thrown, `following the definition of ${nameOf(table)}`));
      const stopped = stoppedRecord(table, before, error);
      await this.#client.query('ROLLBACK TO SAVEPOINT schema_step');
      // The target has it under its old name again.
      if (old !== undefined && this.#followed.of(old) === undefined) this.#followed.set(old);
      this.#remember(stopped, transaction);
    }
    await transaction.flush();
    return found;
  }

  async #fit(
    { table, restart: begins, unasked = false, narrower = false }: SchemaStep,
    known: TableRecord | undefined,
  ): Promise<{ record: TableRecord; target: TargetTable }> {
    const { schema: source, name } = table;
    const schema = targetSchema(table, this.#settings);
    // One that was stopped when it got its name is there under the old one still.
    const renamed = known?.definition === undefined ? await this.#takeOverRenamed(table, schema) : undefined;
    const previous = renamed ?? known;
    const { definition: before, kept = [], pending = [] } = previous ?? {};
    const wasStopped = known?.state === 'stopped' || previous?.state === 'stopped';
    const restart = begins && (wasStopped || this.#followed.isLost(table) || this.#followed.replaces(table));
    const followed =
      before === undefined
        ? NOTHING_KEPT
        : await followChanges({
            client: this.#client,
            settings: this.#settings,
            schema,
            before,
            after: table,
            kept,
            pending,
            restart,
            unasked,
            narrower,
            written: previous?.state === 'follows' && !restart,
          });
    const target = await ensureTargetTable(this.#client, table, schema, this.#settings);
    const record = {
      ...followed,
      schema: source,
      name,
      definition: table,
      state: 'follows',
      reason: undefined,
    } as const;
    return { record, target };
  }

  /** With renamed_tables: rename, the target table goes along with the name; its record under the old one is gone. */
  async #takeOverRenamed(table: TableSchema, schema: string): Promise<TableRecord | undefined> {
    if (this.#settings.renamed_tables !== 'rename') return undefined;
    const old = this.#followed.underOtherName(table);
    if (old === undefined) return undefined;
    const oldSchema = targetSchema(old, this.#settings);
    if (old.name !== table.name)
      await this.#client.query(`ALTER TABLE ${qualifiedName(oldSchema, old.name)} RENAME TO ${quoteName(table.name)}`);
    if (oldSchema !== schema) {
      await this.#client.query(`CREATE SCHEMA IF NOT EXISTS ${quoteName(schema)}`);
      await this.#client.query(`ALTER TABLE ${qualifiedName(oldSchema, table.name)} SET SCHEMA ${quoteName(schema)}`);
    }
    await this.#client.query(deleteRecordSql(this.#flow, this.#settings.mirror, old));
    this.#followed.delete(old);
    return old;
  }

  #remember(record: TableRecord, transaction: TargetTransaction): void {
    this.#followed.set(record);
    transaction.add(storeRecordSql(this.#flow, this.#settings.mirror, record));
  }

  /** Stops a table for what the target said when its rows were to be changed. Throws what concerns the flow as a whole. */
  stop(table: TableSchema, thrown: unknown, doing: string, transaction: TargetTransaction): void {
    const error = asReplicationError(targetError(thrown, doing));
    this.#remember(stoppedRecord(table, this.#followed.of(table), error), transaction);
  }

  /** The source no longer has the table under this name. False when nothing is to be done about it. */
  async gone(table: TableSchema, why: string, transaction: TargetTransaction): Promise<boolean> {
    const record = this.#followed.of(table);
    if (record === undefined) return false;
    // Of one that was stopped from its first row on, or when it got this name, nothing is here.
    if (record.definition === undefined) {
      this.#followed.delete(table);
      transaction.add(deleteRecordSql(this.#flow, this.#settings.mirror, table));
      return true;
    }
    if (isRenamedAlong(this.#settings, why)) return false;
    let reason = goneReason(why);
    if (this.#settings.dropped_tables === 'drop' && why === 'dropped') {
      const kept = await this.#dropTable(table, transaction);
      if (kept === undefined) {
        this.#followed.delete(table);
        transaction.add(deleteRecordSql(this.#flow, this.#settings.mirror, table));
        return true;
      }
      reason = `dropped at the source; the table in the target could not be dropped: ${kept}`;
    }
    this.#remember({ ...record, state: 'gone', reason }, transaction);
    return true;
  }

  /** Why it could not be dropped. */
  async #dropTable(table: TableSchema, transaction: TargetTransaction): Promise<string | undefined> {
    await transaction.flush();
    await this.#client.query('SAVEPOINT drop_table');
    try {
      await this.#client.query(
        `DROP TABLE IF EXISTS ${qualifiedName(targetSchema(table, this.#settings), table.name)}`,
      );
      await this.#client.query('RELEASE SAVEPOINT drop_table');
      return undefined;
    } catch (thrown) {
      const error = asReplicationError(targetError(thrown, `dropping ${nameOf(table)}`));
      if (isOfTheFlow(error)) throw error;
      await this.#client.query('ROLLBACK TO SAVEPOINT drop_table');
      return error.message;
    }
  }

  /** All rows have been read again: what had to wait for them is done. */
  async loaded(table: TableSchema, transaction: TargetTransaction): Promise<void> {
    const record = this.#followed.of(table);
    if (record === undefined || record.pending.length === 0) return;
    await transaction.flush();
    const left: string[] = [];
    const qualified = qualifiedName(targetSchema(table, this.#settings), table.name);
    for (const column of record.pending) {
      await this.#client.query('SAVEPOINT tighten');
      try {
        await this.#client.query(`ALTER TABLE ${qualified} ALTER COLUMN ${quoteName(column)} SET NOT NULL`);
        await this.#client.query('RELEASE SAVEPOINT tighten');
      } catch (thrown) {
        if (!isRowError(thrown)) throw thrown;
        await this.#client.query('ROLLBACK TO SAVEPOINT tighten');
        left.push(column);
      }
    }
    this.#remember({ ...record, pending: left }, transaction);
  }
}
