/** What the tables in the log are, while DDL changes them: the catalog, asked again when it may be out of date. */
import type { ColumnRules } from '../../core/column-rules.ts';
import { asReplicationError } from '../../core/errors.ts';
import type { Logger } from '../../core/logger.ts';
import { compileTablePatterns } from '../../core/table-pattern.ts';
import type { Flavour, LoggedStatement } from './binlog-handler.ts';
import {
  matchingTables,
  readTable,
  reconcile,
  tableName,
  withLabels,
  type CapturedTable,
  type LoggedTable,
} from './catalog.ts';
import type { SqlClient } from './connection.ts';
import { publishLogged, publishRead } from './published-table.ts';
import type { TableMap } from './table-map.ts';

interface TableName {
  readonly schema: string;
  readonly name: string;
}

export interface LiveCatalogOptions {
  readonly client: SqlClient;
  readonly flavour: Flavour;
  readonly patterns: readonly string[];
  readonly rules: ColumnRules;
  /** The tables that the patterns chose when the capture began. */
  readonly tables: readonly CapturedTable[];
  readonly log: Logger;
  /** Delivery of the log stands still until `work` is done. */
  readonly hold: (work: Promise<void>) => void;
  /** A table that was not there when the capture began: it may hold rows from before. */
  readonly onNewTable: (schema: string, name: string) => Promise<void>;
  /** Tables whose rows changed without being logged: they must be read again. Stored when it resolves. */
  readonly onRowsMoved: (tables: readonly TableName[]) => Promise<void>;
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
  /** Raised by DDL: what the catalog said before may be out of date. */
  #epoch = 0;
  readonly #checkedAt = new Map<string, number>();

  constructor(options: LiveCatalogOptions) {
    this.#o = options;
    this.#included = compileTablePatterns(options.patterns);
    for (const table of options.tables) {
      const id = tableName(table.schema);
      this.#catalog.set(id, table);
      this.#planned.add(id);
    }
  }

  /** A map that is new or differs from the last one of its table. */
  onTableMap(map: TableMap): void {
    if (!this.#included(map.schema, map.name)) return;
    const id = tableName(map);
    this.#maps.set(id, map);
    const known = this.#catalog.get(id);
    const current = this.#checkedAt.get(id) === this.#epoch || (this.#epoch === 0 && known !== undefined);
    if (current && reconcile(map, known, this.#o.flavour).exact) return;
    // Asked once for each map and DDL; when they still differ the log lags behind the catalog, and the map decides.
    this.#o.hold(this.#refresh(map, id));
  }

  async #refresh(map: TableMap, id: string): Promise<void> {
    const { log, onNewTable } = this.#o;
    const table = await this.read(map.schema, map.name);
    this.#checkedAt.set(id, this.#epoch);
    if (table === undefined) this.#catalog.set(id, undefined);
    else if (table === 'absent') this.#catalog.delete(id);
    else this.#catalog.set(id, table);
    this.#notATable.delete(id);
    if (table === undefined) this.#notATable.add(id);
    else if (!this.#planned.has(id)) {
      log.info({ table: id }, 'a table that was not known before');
      if (table === 'absent') return;
      this.#planned.add(id);
      await onNewTable(map.schema, map.name);
    }
  }

  /** A table as the catalog has it now; `absent` when there is none, undefined when it is no base table. */
  async read(schema: string, name: string): Promise<CapturedTable | 'absent' | undefined> {
    const { client, flavour } = this.#o;
    const table = await readTable(client, flavour, schema, name);
    const map = this.#maps.get(`${schema}.${name}`);
    return table === undefined || table === 'absent' || map === undefined ? table : withLabels(flavour, table, map);
  }

  /** The tables that the configuration chooses now, of which the caller sees to it that they are read. */
  async current(): Promise<readonly TableName[]> {
    const tables = await this.#matching();
    for (const table of tables) this.#planned.add(tableName(table));
    return tables;
  }

  async #matching(): Promise<readonly TableName[]> {
    const { client, flavour, patterns } = this.#o;
    try {
      return (await matchingTables(client, flavour, patterns)).map(({ schema }) => schema);
    } catch (thrown) {
      // For a moment, while a table is made anew.
      if (asReplicationError(thrown).code === 'source_table_missing') return [];
      throw thrown;
    }
  }

  /** The table of a map as frames carry it; undefined for one that is left out. */
  tableOf(map: TableMap): LoggedTable | undefined {
    if (!this.#included(map.schema, map.name)) return undefined;
    const id = tableName(map);
    if (this.#notATable.has(id)) return undefined;
    return publishLogged(reconcile(map, this.#catalog.get(id), this.#o.flavour).table, map, this.#o.rules);
  }

  /** A captured table by its name. */
  tableByName(schema: string, name: string): LoggedTable | undefined {
    const known = this.#included(schema, name) ? this.#catalog.get(`${schema}.${name}`) : undefined;
    return known === undefined ? undefined : publishRead(known, this.#o.rules).table;
  }

  /** A statement that may have changed tables. */
  onStatement(statement: LoggedStatement): void {
    this.#epoch += 1;
    if (statement.movesRows) this.#o.hold(this.#rowsMoved(statement));
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
