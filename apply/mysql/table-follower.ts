/**
 * Makes target tables follow their source tables, one that cannot is stopped alone. DDL commits by itself here: it is
 * done between the transactions that bring rows, and finished after a kill (schema-intents.ts).
 */
import type { FlowConfig } from '../../core/config.ts';
import { asReplicationError, type ReplicationError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoint.ts';
import type { TableSchema } from '../../core/frame.ts';
import { nameOf, type FollowedTables, type SchemaStep, type TableRecord } from '../followed-tables.ts';
import { diffSchemas } from '../schema-diff.ts';
import { marked } from '../soft-problems.ts';
import { goneReason, isOfTheFlow, isRenamedAlong, stoppedRecord } from '../schema-stop.ts';
import { namesOf, planChanges, type ChangePlan, type PlanStep } from './change-plan.ts';
import { SchemaIntents, type Intent } from './schema-intents.ts';
import type { MysqlSession } from './session.ts';
import type { SnapshotMarks } from './snapshot-marks.ts';
import { qualifiedName, quoteLiteral, quoteName } from './sql.ts';
import type { TablePlaces } from './table-places.ts';
import { deleteRecordSql, readTableRecords, storeRecordSql } from './table-records.ts';
import { isRowError, targetError } from './target-error.ts';
import {
  addDeletedAt,
  ensureTargetTable,
  readTable,
  refuseLost,
  shapeError,
  surroundings,
  type RunDdl,
} from './target-table.ts';
import type { TargetTransaction } from './target-transaction.ts';
import { TransactionDdl } from './transaction-ddl.ts';

const DROPPED = 'dropped';

export interface FollowerOptions {
  readonly session: MysqlSession;
  readonly flow: string;
  readonly settings: FlowConfig;
  readonly followed: FollowedTables;
  readonly places: TablePlaces;
  readonly marks: SnapshotMarks;
}

export class TableFollower {
  readonly #o: FollowerOptions;
  readonly #intents: SchemaIntents;
  #open = new Map<string, Intent>();
  /** Tables for which something is to be done as soon as no transaction is open. */
  readonly #due = new Set<string>();
  #superseded = false;
  /** Records were loaded before; a transaction may be under way, which changes of tables would commit. */
  #loaded = false;

  constructor(options: FollowerOptions) {
    this.#o = options;
    this.#intents = new SchemaIntents(options.session, options.flow, options.settings.mirror);
  }

  async load(): Promise<void> {
    const { session, flow, followed, marks } = this.#o;
    const records = await readTableRecords(session, flow);
    if (!this.#loaded) await this.#addDeletedAt(records);
    this.#loaded = true;
    followed.load(records);
    this.#open = await this.#intents.intents();
    this.#due.clear();
    for (const record of records) {
      const waits = record.pending.length > 0 && !marks.isUnderWay(nameOf(record));
      if (waits || this.#isToBeDropped(record)) this.#due.add(nameOf(record));
    }
    const superseded = await this.#intents.superseded();
    const at = superseded.size === 0 ? '' : await this.#position();
    for (const [name, { versions, at: place }] of superseded) if (place === at) followed.supersede(name, versions);
    this.#superseded = superseded.size > 0;
  }

  async #addDeletedAt(records: readonly TableRecord[]): Promise<void> {
    const { session, settings, places } = this.#o;
    const tables = marked(records, settings).map((table) => places.of(table));
    await addDeletedAt(
      session,
      tables.map(({ wanted, schema }) => ({ schema, name: wanted.name })),
    );
  }

  async #position(): Promise<string> {
    const { session, flow, settings } = this.#o;
    const [row] = await session.rows(
      `SELECT position FROM waybill.position WHERE flow = ${quoteLiteral(flow)} AND source = ${quoteLiteral(settings.mirror)}`,
    );
    return row?.[0] ?? '';
  }

  /**
   * Makes the target table fit, or stops the table. `open` is the transaction under way: it is given up when a table has
   * to be changed inside of it. Throws what concerns the flow as a whole.
   */
  async follow(step: SchemaStep, open: TargetTransaction | undefined): Promise<void> {
    const { session, followed } = this.#o;
    const { table, gone } = step;
    if (gone !== undefined) return await this.#goneBetween(table, gone, open);
    const ddl = new TransactionDdl(session, open);
    const before = followed.of(table);
    try {
      const wasStopped = (before ?? followed.underOtherName(table))?.state === 'stopped';
      const restart = step.restart && (wasStopped || followed.isLost(table) || followed.replaces(table));
      const record = await this.#fit({ ...step, restart }, before, ddl.run, open);
      if (ddl.done && before?.definition !== undefined) await this.#supersede(table, before.definition.version);
      if (open !== undefined && !ddl.done) this.#remember(record, open);
      else await this.#store(record);
    } catch (thrown) {
      const error = asReplicationError(targetError(thrown, `following the definition of ${nameOf(table)}`));
      await this.#stop(table, followed.of(table) ?? before, error, open === undefined || ddl.done ? undefined : open);
    }
  }

  async #stop(
    table: TableSchema,
    before: TableRecord | undefined,
    error: ReplicationError,
    open: TargetTransaction | undefined,
  ): Promise<void> {
    const stopped = stoppedRecord(table, before, error);
    this.#open.delete(nameOf(table));
    if (open !== undefined) {
      open.add(this.#intents.overSql(table));
      this.#remember(stopped, open);
    } else await this.#store(stopped);
  }

  /** Before the table counts as changed: after a kill its rows of this version come once more. */
  async #supersede(table: TableSchema, version: string): Promise<void> {
    const versions = await this.#intents.supersede(table, version, await this.#position());
    this.#o.followed.supersede(nameOf(table), versions);
  }

  async #fit(
    { table, restart, unasked = false, narrower = false }: SchemaStep,
    known: TableRecord | undefined,
    ddl: RunDdl,
    open: TargetTransaction | undefined,
  ): Promise<TableRecord> {
    const { session, places, marks } = this.#o;
    const { wanted, schema } = places.of(table);
    const renamed = known?.definition === undefined ? await this.#takeOverRenamed(table, schema, ddl, open) : undefined;
    const previous = renamed ?? known;
    let { definition: before, kept = [], pending = [] } = previous ?? {};
    const begun = this.#open.get(nameOf(table));
    if (begun !== undefined) {
      ({ kept, pending } = await this.#run(table, begun, ddl, restart));
      before = begun.definition;
    }
    if (before !== undefined) {
      const found = await readTable(session, schema, wanted.name);
      if (previous?.state === 'follows' && !restart) await refuseLost(session, places.of(before).wanted, schema, found);
      if (found === undefined) [kept, pending] = [[], []];
      else {
        const { settings } = this.#o;
        const around = await surroundings(session);
        const reading = { restart, unasked, narrower };
        const plan = planChanges({ settings, schema, before, after: wanted, found, around, kept, pending, ...reading });
        if (open !== undefined && plan.steps.length > 0 && (!plan.additive || plan.fills))
          throw midwayError(schema, table.name, 'changed');
        const intent: Intent = {
          schema,
          definition: wanted,
          plan: open === undefined ? plan : loosened(plan),
          done: 0,
        };
        ({ kept, pending } = await this.#run(table, intent, ddl, restart));
      }
    }
    const target = await ensureTargetTable(session, wanted, schema, ddl, this.#o.settings.deletes);
    if (before !== undefined) await marks.follow(nameOf(table), diffSchemas(before, wanted), wanted, target);
    return {
      schema: table.schema,
      name: table.name,
      definition: table,
      kept,
      pending,
      state: 'follows',
      reason: undefined,
    };
  }

  /** Does what is left of a change. */
  async #run(
    table: TableSchema,
    intent: Intent,
    ddl: RunDdl,
    restart: boolean,
  ): Promise<{ kept: readonly string[]; pending: readonly string[] }> {
    const { session } = this.#o;
    const { plan, schema, definition } = intent;
    const { steps, kept } = plan;
    const pending = new Set(plan.pending);
    if (steps.length > 0) {
      // Whoever waits for the table's lock must not wait for a transaction of ours.
      await ddl('DO 0');
      await this.#intents.store(table, intent);
    }
    for (let index = intent.done; index < steps.length; index++) {
      const step = steps[index]!;
      const there = namesOf((await readTable(session, schema, definition.name))?.columns.keys() ?? []);
      const last = index === 0 ? plan.names : steps[index - 1]!.names;
      if (there === last || there !== step.names) {
        const failure = await this.#try(step.sql, ddl);
        if (failure !== undefined) {
          const { refused } = step;
          if (typeof refused === 'object' && 'pending' in refused) pending.add(refused.pending);
          else if (refused === 'empty' && restart) {
            // All rows are read again now.
            await ddl(`DELETE FROM ${qualifiedName(schema, definition.name)}`);
            await ddl(step.sql);
          } else throw shapeError(schema, definition.name, refusal(refused, failure));
        }
      }
      failpoint('apply.table-changed');
      intent.done = index + 1;
      if (intent.done < steps.length) await this.#intents.store(table, intent);
    }
    this.#open.delete(nameOf(table));
    if (pending.size > 0) this.#due.add(nameOf(table));
    return { kept, pending: [...pending] };
  }

  /** What the server says when rows are in the way. */
  async #try(sql: string, ddl: RunDdl): Promise<ReplicationError | undefined> {
    try {
      await ddl(sql);
      return undefined;
    } catch (thrown) {
      if (!isRowError(thrown)) throw thrown;
      return targetError(thrown, 'changing the table');
    }
  }

  /** With renamed_tables: rename, the target table goes along with the name; its record under the old one is gone. */
  async #takeOverRenamed(
    table: TableSchema,
    schema: string,
    ddl: RunDdl,
    open: TargetTransaction | undefined,
  ): Promise<TableRecord | undefined> {
    const { followed, settings, session, places, flow } = this.#o;
    if (settings.renamed_tables !== 'rename') return undefined;
    const old = followed.underOtherName(table);
    if (old?.definition === undefined) return undefined;
    // Its rows under the old name would come once more.
    if (open !== undefined) throw midwayError(schema, table.name, 'was renamed');
    const place = places.of(old.definition).schema;
    const [there, done] = [await readTable(session, place, old.name), await readTable(session, schema, table.name)];
    if (there !== undefined && done !== undefined)
      throw shapeError(schema, table.name, `it is there, and so is ${old.name}, which has its name at the source now`);
    if (there !== undefined) {
      const [database] = await session.rows(
        `SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ${quoteLiteral(schema)}`,
      );
      if (database === undefined) await ddl(`CREATE DATABASE IF NOT EXISTS ${quoteName(schema)} CHARACTER SET utf8mb4`);
      await ddl(`RENAME TABLE ${qualifiedName(place, old.name)} TO ${qualifiedName(schema, table.name)}`);
    }
    const definition = { ...old.definition, schema: table.schema, name: table.name };
    const record = { ...old, schema: table.schema, name: table.name, definition };
    await session.run(
      `BEGIN; ${deleteRecordSql(flow, settings.mirror, old)}; ${storeRecordSql(flow, settings.mirror, record)}; COMMIT`,
    );
    followed.delete(old);
    followed.set(record);
    return record;
  }

  #recordSql(record: TableRecord): string {
    return storeRecordSql(this.#o.flow, this.#o.settings.mirror, record);
  }

  #remember(record: TableRecord, transaction: Pick<TargetTransaction, 'add'>): void {
    this.#o.followed.set(record);
    transaction.add(this.#recordSql(record));
  }

  async #store(record: TableRecord): Promise<void> {
    await this.#o.session.run(`BEGIN; ${this.#recordSql(record)}; ${this.#intents.overSql(record)}; COMMIT`);
    this.#o.followed.set(record);
  }

  /** As `gone`, before the part that says so; its own transaction where none is open. */
  async #goneBetween(table: TableSchema, why: string, open: TargetTransaction | undefined): Promise<void> {
    const sql: string[] = [];
    const add = (statement: string): void => void sql.push(statement);
    if (!this.gone(table, why, { add })) return;
    this.#o.marks.forget({ add }, nameOf(table));
    this.#open.delete(nameOf(table));
    add(this.#intents.overSql(table));
    if (open === undefined) await this.#o.session.run(['BEGIN', ...sql, 'COMMIT'].join('; '));
    else for (const statement of sql) open.add(statement);
  }

  /** The source no longer has the table under this name. False when nothing is to be done about it. */
  gone(table: TableSchema, why: string, transaction: Pick<TargetTransaction, 'add'>): boolean {
    const record = this.#o.followed.of(table);
    if (record === undefined) return false;
    // Of one that was stopped from its first row on, nothing is here.
    if (record.definition === undefined) {
      this.#o.followed.delete(table);
      transaction.add(deleteRecordSql(this.#o.flow, this.#o.settings.mirror, table));
      return true;
    }
    if (isRenamedAlong(this.#o.settings, why)) return false;
    const gone: TableRecord = { ...record, state: 'gone', reason: goneReason(why) };
    this.#remember(gone, transaction);
    if (this.#isToBeDropped(gone)) this.#due.add(nameOf(table));
    return true;
  }

  #isToBeDropped({ state, reason }: TableRecord): boolean {
    return this.#o.settings.dropped_tables === 'drop' && state === 'gone' && reason === goneReason(DROPPED);
  }

  /** All rows have been read again: what had to wait for them is done once they are stored. */
  loaded(table: TableSchema): void {
    if ((this.#o.followed.of(table)?.pending.length ?? 0) > 0) this.#due.add(nameOf(table));
  }

  /** A transaction has been committed, and none is open. */
  async committed(): Promise<void> {
    const { followed, marks } = this.#o;
    if (this.#superseded) {
      this.#superseded = false;
      followed.clearSuperseded();
      await this.#intents.clear();
    }
    if (this.#due.size === 0) return;
    const due = [...this.#due];
    this.#due.clear();
    for (const name of due) {
      const record = followed.byName(name);
      if (record?.definition === undefined) continue;
      if (this.#isToBeDropped(record)) await this.#dropTable(record, record.definition);
      else if (record.state === 'follows' && !marks.isUnderWay(name)) await this.#tighten(record, record.definition);
    }
  }

  async #dropTable(record: TableRecord, definition: TableSchema): Promise<void> {
    const { session, places, flow, settings, followed } = this.#o;
    const { wanted, schema } = places.of(definition);
    try {
      await session.run(`DROP TABLE IF EXISTS ${qualifiedName(schema, wanted.name)}`);
    } catch (thrown) {
      const error = asReplicationError(targetError(thrown, `dropping ${nameOf(record)}`));
      if (isOfTheFlow(error)) throw error;
      const reason = `dropped at the source; the table in the target could not be dropped: ${error.message}`;
      return await this.#store({ ...record, reason });
    }
    await session.run(deleteRecordSql(flow, settings.mirror, record));
    followed.delete(record);
  }

  async #tighten(record: TableRecord, definition: TableSchema): Promise<void> {
    const { session, places, settings } = this.#o;
    const { wanted, schema } = places.of(definition);
    const found = await readTable(session, schema, wanted.name);
    if (found === undefined) return;
    const around = await surroundings(session);
    const plan = planChanges({
      settings,
      schema,
      after: wanted,
      found,
      around,
      // As if NOT NULL had come just now.
      before: {
        ...wanted,
        columns: wanted.columns.map((c) => (record.pending.includes(c.name) ? { ...c, notNull: false } : c)),
      },
      kept: record.kept,
      pending: [],
      restart: false,
      unasked: false,
      narrower: false,
    });
    const left = new Set<string>();
    for (const { sql, refused } of plan.steps) {
      const failure = await this.#try(sql, async (text) => void (await session.run(text)));
      if (failure === undefined) continue;
      if (typeof refused !== 'object' || !('pending' in refused)) throw failure;
      left.add(refused.pending);
    }
    await this.#store({ ...record, pending: [...left] });
  }
}

/** A plan whose columns may all be NULL at first: rows of the version before are written once more. */
function loosened(plan: ChangePlan): ChangePlan {
  const steps = plan.steps.filter(({ refused }) => typeof refused !== 'object' || !('pending' in refused));
  const later = plan.steps.flatMap(({ refused }) =>
    typeof refused === 'object' && 'pending' in refused ? [refused.pending] : [],
  );
  return { ...plan, steps, pending: [...plan.pending, ...later] };
}

function midwayError(schema: string, name: string, what: string): ReplicationError {
  return shapeError(schema, name, `it ${what} in the middle of a transaction, which this kind of database cannot do`);
}

function refusal(refused: PlanStep['refused'], failure: ReplicationError): string {
  return typeof refused === 'object' && 'reason' in refused ? `${refused.reason}: ${failure.message}` : failure.message;
}
