/** What the tables in the log are, while DDL changes them: the catalog, asked again when it may be out of date. */
import type { ColumnRules } from '../../core/column-rules.ts';
import { asReplicationError } from '../../core/errors.ts';
import { containsGtid } from '../../core/gtid-position.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import type { Gtid } from '../../core/gtid.ts';
import type { Logger } from '../../core/logger.ts';
import { compileTablePatterns } from '../../core/table-pattern.ts';
import type { Flavour, LoggedStatement } from './binlog-handler.ts';
import {
  matchingTables,
  readMissing,
  readTable,
  reconcile,
  tableName,
  withLabels,
  type CapturedTable,
  type LoggedTable,
} from './catalog.ts';
import type { SqlClient } from './connection.ts';
import { hiddenDifferences, makesDifference, type EarlierTable } from './earlier-table.ts';
import { publishLogged, publishRead } from './published-table.ts';
import { contains, readExecuted } from './executed.ts';
import { aboutStatement, renamesTable } from './statement-words.ts';
import { compareTables } from './table-change.ts';
import { hasColumnsOfSequence, type TableMap } from './table-map.ts';
import { sumOf, type Statements, type ToldTable, type ToldTables } from './told-tables.ts';

interface TableName {
  readonly schema: string;
  readonly name: string;
}

export interface LiveCatalogOptions {
  readonly client: SqlClient;
  readonly flavour: Flavour;
  readonly patterns: readonly string[];
  /** Statements may name a table in letters of another case than the log. */
  readonly foldsNames: boolean;
  readonly rules: ColumnRules;
  /** The tables that the patterns chose when the capture began. */
  readonly tables: readonly CapturedTable[];
  /** What the source had executed when they were read, or more. */
  readonly executed: GtidSet;
  /** What the stream was told of them. */
  readonly told: ToldTables;
  readonly log: Logger;
  /** Delivery of the log stands still until `work` is done. */
  readonly hold: (work: Promise<void>) => void;
  /** A table that was not there when the capture began: it may hold rows from before. */
  readonly onNewTable: (schema: string, name: string) => Promise<void>;
  /** Tables whose rows changed without being logged: they must be read again. Stored when it resolves. */
  readonly onRowsMoved: (tables: readonly TableName[]) => Promise<void>;
  /** A table may be read that was left out before: what its map means is asked for again. */
  readonly onShown: (map: TableMap) => void;
  /**
   * A table got a version in which rows are not what the log says they are: it must be read again, as above. `narrower`:
   * targets that a narrower type has stopped stay so.
   */
  readonly onChanged: (table: TableName, why: string, narrower: boolean) => Promise<void>;
}

/** What the stream is to be told of a table, apart from its rows. */
export interface TableMark {
  readonly table: CapturedTable;
  /** What happened to it where it is gone. */
  readonly what: string;
  readonly mark: 'schema' | 'gone';
}

export class LiveCatalog {
  readonly #o: LiveCatalogOptions;
  readonly #included: (schema: string, name: string) => boolean;
  readonly #catalog = new Map<string, CapturedTable | undefined>();
  /** Tables that the stored progress of snapshots knows. */
  readonly #planned = new Set<string>();
  /** The last map of each table, for its labels. */
  readonly #maps = new Map<string, TableMap>();
  /** Sequences and the like, whose rows are nobody's. */
  readonly #notATable = new Set<string>();
  /** Tables that this user may not read: nothing but their changes could be had. */
  readonly #hidden = new Set<string>();
  /** Raised by DDL: what the catalog said before may be out of date. */
  #epoch = 0;
  /** Statements since the catalog was last compared with what the stream was told. */
  #statements: LoggedStatement[] = [];
  #dirty = false;
  /** The version of each table that the stream was told. */
  readonly #told = new Map<string, string>();
  /** What the source had executed when each table was read from the catalog: what came before is in it already. */
  readonly #readAt = new Map<string, GtidSet>();
  readonly #checkedAt = new Map<string, number>();
  /** Statements about a table since it was read from the catalog last. */
  readonly #statementsOf = new Map<string, Statements>();
  /** What tables were, as the rows are that come from the log. */
  readonly #earlier = new Map<string, EarlierTable>();
  /** Tables of which a type may have lost values, until somebody has them read, and that begins. */
  readonly #narrower = new Set<string>();

  constructor(options: LiveCatalogOptions) {
    this.#o = options;
    this.#included = compileTablePatterns(options.patterns);
    for (const table of options.tables) {
      const id = tableName(table.schema);
      this.#catalog.set(id, options.told.labelled(table));
      this.#planned.add(id);
      this.#readAt.set(id, options.executed);
    }
    for (const [id, told] of options.told.entries) this.#resume(id, told);
  }

  /** Goes on where the capture before this one ended: what it did not tell is told at the first look. */
  #resume(id: string, { table, since }: ToldTable): void {
    this.#told.set(id, table.schema.version);
    this.#planned.add(id);
    const now = this.#catalog.get(id);
    if (now !== undefined && since === undefined) this.#noteEarlier(id, table, now, this.#o.executed);
    if (now?.schema.version === table.schema.version && since === undefined) return;
    this.#dirty = true;
    // Without statements that have passed, one that is still to come in the log made the difference.
    if (now !== undefined && since === undefined) return;
    this.#catalog.set(id, table);
    this.#readAt.delete(id);
    if (since !== undefined) this.#statementsOf.set(id, since);
  }

  /** The log may yet bring rows of a table as it was, unless the statement has passed that made it another one. */
  #noteEarlier(id: string, table: CapturedTable, now: CapturedTable, until: GtidSet): void {
    if (this.#earlier.has(id)) return;
    const names = hiddenDifferences(table, now);
    if (names.length === 0) return;
    const passed = this.#statements.some((each) => mentions(each, table.schema) && makesDifference(each, names));
    if (passed) return;
    this.#earlier.set(id, { table, names, until });
    this.#dirty = true;
  }

  /** The log has come to a place. */
  #forgetEarlier(place: GtidSet): void {
    for (const [id, { until }] of this.#earlier) if (contains(place, until)) this.#earlier.delete(id);
    if (this.#earlier.size > 0) this.#dirty = true;
  }

  #reconcile(map: TableMap, id: string): ReturnType<typeof reconcile> {
    return reconcile(map, this.#catalog.get(id), this.#o.flavour, this.#earlier.get(id)?.table);
  }

  /** A map that is new or differs from the last one of its table. */
  onTableMap(map: TableMap): void {
    if (!this.#included(map.schema, map.name)) return;
    const id = tableName(map);
    this.#maps.set(id, map);
    const known = this.#catalog.get(id);
    const current = this.#checkedAt.get(id) === this.#epoch || (this.#epoch === 0 && known !== undefined);
    if (current && this.#reconcile(map, id).exact) return;
    // Asked once for each map and DDL; when they still differ the log lags behind the catalog, and the map decides.
    this.#o.hold(this.#refresh(map, id));
  }

  async #refresh(map: TableMap, id: string): Promise<void> {
    const { log, onNewTable } = this.#o;
    const table = await this.read(map.schema, map.name);
    this.#checkedAt.set(id, this.#epoch);
    if (table === undefined) this.#catalog.set(id, undefined);
    // One that is absent by now may have changed before: the map decides.
    this.#notATable.delete(id);
    if (table === undefined) this.#notATable.add(id);
    else if (table === 'absent') await this.#noteAbsent(map, id);
    else if (!this.#planned.has(id)) {
      log.info({ table: id }, 'a table that was not known before');
      this.#planned.add(id);
      await this.#o.told.add(table);
      await onNewTable(map.schema, map.name);
    }
  }

  /** Of a table that has come and gone since the last look the log has rows: the stream has it, until it is told of the end. */
  async #noteAbsent(map: TableMap, id: string): Promise<void> {
    if (this.#catalog.get(id) !== undefined) return;
    if ((await readMissing(this.#o.client, this.#o.flavour, map)) === 'denied') {
      if (!this.#hidden.has(id)) this.#o.log.warn({ table: id }, 'a table is left out: this user may not read it');
      this.#hidden.add(id);
      return;
    }
    if (this.#o.flavour === 'mariadb' && hasColumnsOfSequence(map)) {
      this.#notATable.add(id);
      return;
    }
    const { schema, transactional } = reconcile(map, undefined, this.#o.flavour).table;
    const table: CapturedTable = { schema, columns: [], transactional };
    this.#catalog.set(id, table);
    this.#told.set(id, schema.version);
    this.#dirty = true;
    await this.#o.told.add(table);
  }

  /** A table as the catalog has it now; `absent` when there is none, undefined when it is no base table. */
  async read(schema: string, name: string): Promise<CapturedTable | 'absent' | undefined> {
    const { client, flavour } = this.#o;
    const table = await readTable(client, flavour, schema, name);
    if (table === undefined || table === 'absent') return table;
    return await this.#take(table);
  }

  /** A table as the catalog has it, with what that means for the rows of the version that was known. */
  async #take(found: CapturedTable): Promise<CapturedTable> {
    const id = tableName(found.schema);
    const map = this.#maps.get(id);
    if (this.#hidden.delete(id) && map !== undefined) this.#o.onShown(map);
    const table = map === undefined ? this.#o.told.labelled(found) : withLabels(found, map);
    const executed = await readExecuted(this.#o.client, this.#o.flavour);
    this.#readAt.set(id, executed);
    const statements = this.#statementsOf.get(id);
    this.#statementsOf.delete(id);
    // What a column was in between, such as the default that its rows got or a generated one, nobody knows.
    const isUnknown =
      statements?.exchanges === true ||
      (statements?.changesRows === true && (statements.drops || statements.count > 1));
    const before = this.#catalog.get(id);
    if (before !== undefined) this.#noteEarlier(id, before, table, executed);
    const isSame = before?.schema.version === table.schema.version;
    if (before !== undefined && isSame) {
      if (isUnknown) {
        const why = statements.drops ? 'a column may have come again' : 'it changed, and changed back';
        await this.#changed(before, why);
      }
      const same = withSameRows(before, table);
      this.#catalog.set(id, same);
      return same;
    }
    if (before === undefined) {
      this.#catalog.set(id, table);
      return table;
    }
    const isTold = this.#told.get(id) === before.schema.version;
    const change = compareTables(before, table, { isTold, statements, rules: this.#o.rules });
    this.#catalog.set(id, change.table);
    if (change.isNarrower) this.#narrower.add(id);
    else this.#narrower.delete(id);
    const why = change.reread ?? (isUnknown ? 'it changed more than once' : undefined);
    if (why !== undefined) await this.#changed(table, why);
    return change.table;
  }

  /** The stream has that the reading of a table begins which somebody asked for: where it was stopped in targets it goes on. */
  begins(table: TableName): void {
    this.#narrower.delete(tableName(table));
  }

  async #changed({ schema }: CapturedTable, why: string): Promise<void> {
    const id = tableName(schema);
    if (this.#planned.has(id)) await this.#o.onChanged(schema, why, this.#narrower.has(id));
  }

  /**
   * Looks whether DDL changed what the stream was told, and where. `atPlace` does the work it is given once the log has
   * come to a place, so that what was found is true there, unless there was more DDL on the way. It resolves when the
   * stream holds the marks.
   */
  async look(
    atPlace: (ready: (taken: GtidSet) => boolean, work: () => readonly TableMark[]) => Promise<void>,
  ): Promise<void> {
    if (!this.#dirty) return;
    const { client, flavour } = this.#o;
    const epoch = this.#epoch;
    this.#dirty = false;
    const { tables, unsure, again } = await this.#list();
    const found: CapturedTable[] = [];
    for (const table of tables) found.push(await this.#take(table));
    for (const table of found) {
      const { schema } = table;
      const id = tableName(schema);
      if (this.#planned.has(id)) continue;
      this.#planned.add(id);
      this.#told.set(id, schema.version);
      this.#o.log.info({ table: id }, 'a table that was not known before');
      await this.#o.told.add(table);
      await this.#o.onNewTable(schema.schema, schema.name);
    }
    const place = await readExecuted(client, flavour);
    await atPlace(
      (taken) => contains(taken, place),
      () => {
        if (again || this.#epoch !== epoch) this.#dirty = true;
        this.#forgetEarlier(place);
        return this.#epoch === epoch ? this.#marks(found, unsure) : [];
      },
    );
    if (this.#epoch !== epoch) {
      // What came meanwhile is told first.
      this.#dirty = true;
      return;
    }
    await this.#o.told.settle(found);
  }

  #marks(found: readonly CapturedTable[], unsure: readonly TableName[]): TableMark[] {
    const marks: TableMark[] = [];
    const there = new Set<string>(unsure.map(tableName));
    for (const table of found) {
      const id = tableName(table.schema);
      there.add(id);
      if (this.#told.get(id) === table.schema.version) continue;
      this.#told.set(id, table.schema.version);
      marks.push({ table, what: '', mark: 'schema' });
    }
    const { told } = this.#o;
    for (const id of new Set([...this.#catalog.keys(), ...told.entries.keys()])) {
      // What is no table any more has no entry in the catalog, and was told all the same.
      const table = this.#catalog.get(id) ?? told.get(id)?.table;
      if (there.has(id) || table === undefined) continue;
      const last = this.#statements.findLast((statement) => mentions(statement, table.schema));
      const renamed = last === undefined ? told.get(id)?.since?.renames === true : renamesTable(last);
      this.#catalog.delete(id);
      this.#told.delete(id);
      told.forget(id);
      marks.push({ table, what: renamed ? 'renamed' : 'dropped', mark: 'gone' });
    }
    this.#statements = [];
    return marks;
  }

  /**
   * The tables that the configuration chooses now. The caller sees to it that those are read whole of which `isRead` says
   * so: they are not new any more.
   */
  async current(isRead: (table: TableName) => boolean = () => true): Promise<readonly TableName[]> {
    const tables = await this.#matching();
    for (const table of tables) if (isRead(table)) this.#planned.add(tableName(table));
    return tables;
  }

  async #matching(): Promise<readonly TableName[]> {
    const { tables, unsure } = await this.#list();
    return [...tables.map(({ schema }) => schema), ...unsure];
  }

  /**
   * The tables that the configuration chooses, and those of which it could not be seen whether they are still there;
   * `again`: soon it may be.
   */
  async #list(): Promise<{
    readonly tables: readonly CapturedTable[];
    readonly unsure: readonly TableName[];
    readonly again: boolean;
  }> {
    const { client, flavour, patterns } = this.#o;
    const tables = await matchingTables(client, flavour, patterns).catch((thrown: unknown): CapturedTable[] => {
      // All of them may have gone.
      if (asReplicationError(thrown).code === 'source_table_missing') return [];
      throw thrown;
    });
    const there = new Set(tables.map(({ schema }) => tableName(schema)));
    const unsure: TableName[] = [];
    let again = false;
    for (const [id, known] of this.#catalog) {
      if (known === undefined || there.has(id)) continue;
      const missing = await readMissing(client, flavour, known.schema);
      if (missing === 'unsure' || missing === 'denied') {
        unsure.push(known.schema);
        again ||= missing === 'unsure';
      } else if (missing !== 'gone') tables.push(missing);
    }
    return { tables, unsure, again };
  }

  /** The table of a map as frames carry it; undefined for one that is left out. */
  tableOf(map: TableMap): LoggedTable | undefined {
    if (!this.#included(map.schema, map.name)) return undefined;
    const id = tableName(map);
    if (this.#notATable.has(id) || this.#hidden.has(id)) return undefined;
    return publishLogged(this.#reconcile(map, id).table, map, this.#o.rules);
  }

  /** Tables that the patterns choose, and this user may not read: of those that the log had changes of. */
  get hidden(): Iterable<string> {
    return this.#hidden;
  }

  /** Grows with each statement of the log that may have changed tables. */
  get changes(): number {
    return this.#epoch;
  }

  /** A captured table by the name that a statement gives it. */
  tableByName(schema: string, name: string): LoggedTable | undefined {
    const id = `${schema}.${name}`;
    const known = this.#catalog.get(id) ?? (this.#o.foldsNames ? this.#byFoldedName(id.toLowerCase()) : undefined);
    if (known === undefined || !this.#included(known.schema.schema, known.schema.name)) return undefined;
    return publishRead(known, this.#o.rules).table;
  }

  #byFoldedName(wanted: string): CapturedTable | undefined {
    for (const [id, table] of this.#catalog) if (id.toLowerCase() === wanted) return table;
    return undefined;
  }

  /** A statement that may have changed tables. */
  onStatement(statement: LoggedStatement, gtid: Gtid): void {
    this.#epoch += 1;
    this.#dirty = true;
    this.#statements.push(statement);
    const late: CapturedTable[] = [];
    const noted = new Map<string, Omit<Statements, 'count'>>();
    for (const [id, table] of this.#catalog) {
      if (table === undefined || !mentions(statement, table.schema)) continue;
      // The stream may not know a version of the table that was seen in between.
      const about = aboutStatement(statement, table, this.#o.told.get(id)?.since);
      noted.set(id, about);
      const earlier = this.#earlier.get(id);
      if (earlier !== undefined && makesDifference(statement, earlier.names)) this.#earlier.delete(id);
      this.#statementsOf.set(id, sumOf(this.#statementsOf.get(id), about));
      const readAt = this.#readAt.get(id);
      if (readAt === undefined || !containsGtid(readAt, gtid)) continue;
      this.#told.delete(id);
      if (about.changesRows || this.#gaveValues(id, table)) late.push(table);
    }
    if (noted.size > 0) this.#o.hold(this.#o.told.note(noted));
    // The catalog had the new version before the log told of it: what the version before was is not known.
    if (late.length > 0 && !statement.movesRows) this.#o.hold(this.#changedBefore(late));
    if (statement.movesRows) this.#o.hold(this.#rowsMoved(statement));
  }

  /** Whether rows have by now what the version that the stream was told last does not tell. */
  #gaveValues(id: string, now: CapturedTable): boolean {
    const before = this.#o.told.get(id)?.table;
    if (before === undefined || before.schema.version === now.schema.version) return false;
    const how = { isTold: true, statements: this.#statementsOf.get(id), rules: this.#o.rules };
    return compareTables(before, now, how).reread !== undefined;
  }

  async #changedBefore(tables: readonly CapturedTable[]): Promise<void> {
    for (const table of tables) await this.#changed(table, 'it changed before its version was known');
  }

  async #rowsMoved(statement: LoggedStatement): Promise<void> {
    // Also tables that the statement itself made, and a name that it gave; but a new table is read when rows come.
    const made = statement.verb === 'CREATE' || statement.verb === 'DROP';
    const tables = (await this.#matching()).filter(
      (table) => mentions(statement, table) && (!made || this.#planned.has(tableName(table))),
    );
    for (const table of tables) this.#planned.add(tableName(table));
    if (tables.length > 0) await this.#o.onRowsMoved(tables);
  }
}

/** A version whose frames are the same, with generated columns and a history that may be new: `before` where they are not. */
function withSameRows(before: CapturedTable, now: CapturedTable): CapturedTable {
  const generatedOf = ({ columns }: CapturedTable): string =>
    JSON.stringify(columns.map(({ schema, generated }) => [schema.name, generated]));
  if (before.rowEnd === now.rowEnd && generatedOf(before) === generatedOf(now)) return before;
  // What rows had in its columns when they were added is known of the one before alone.
  const known = new Map(before.columns.map((column) => [column.schema.name, column]));
  const columns = now.columns.map((column) => (column.generated ? column : (known.get(column.schema.name) ?? column)));
  return { ...now, schema: before.schema, columns };
}

/** Whether a statement may be about a table: it has the table's name in it, and the schema's or that as its default. */
function mentions(
  { sql, schema }: LoggedStatement,
  table: { readonly schema: string; readonly name: string },
): boolean {
  const has = (name: string): boolean => {
    const escaped = name.replaceAll('`', '``').replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
    return new RegExp(`(?<![\\p{L}\\p{N}_$])${escaped}(?![\\p{L}\\p{N}_$])`, 'iu').test(sql);
  };
  return has(table.name) && (schema === table.schema || has(table.schema));
}
