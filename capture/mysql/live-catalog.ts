/** What the tables in the log are, while DDL changes them: the catalog, asked again when it may be out of date. */
import type { ColumnRules } from '../../core/column-rules.ts';
import type { Logger } from '../../core/logger.ts';
import { compileTablePatterns } from '../../core/table-pattern.ts';
import type { Flavour, LoggedStatement } from './binlog-handler.ts';
import { readTable, reconcile, tableName, type CapturedTable, type LoggedTable } from './catalog.ts';
import type { SqlClient } from './connection.ts';
import { publishLogged, publishRead } from './published-table.ts';
import type { TableMap } from './table-map.ts';

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
}

export class LiveCatalog {
  readonly #o: LiveCatalogOptions;
  readonly #included: (schema: string, name: string) => boolean;
  readonly #catalog = new Map<string, CapturedTable | undefined>();
  /** Tables that the stored progress of snapshots knows. */
  readonly #planned = new Set<string>();
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
    const known = this.#catalog.get(id);
    const current = this.#checkedAt.get(id) === this.#epoch || (this.#epoch === 0 && known !== undefined);
    if (current && reconcile(map, known, this.#o.flavour).exact) return;
    // Asked once for each map and DDL; when they still differ the log lags behind the catalog, and the map decides.
    this.#o.hold(this.#refresh(map, id));
  }

  async #refresh(map: TableMap, id: string): Promise<void> {
    const { client, flavour, log, onNewTable } = this.#o;
    const table = await readTable(client, flavour, map.schema, map.name);
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
  onStatement(_statement: LoggedStatement): void {
    this.#epoch += 1;
  }
}
