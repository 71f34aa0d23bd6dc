/** Where in a target the rows of source tables go. */
import type { FlowConfig } from '../../core/config.ts';
import type { TableSchema } from '../../core/frame.ts';
import { isQuarantine, WAYBILL_SCHEMA } from '../target-schema.ts';
import { HELD_TABLE } from './waybill-database.ts';

/** The database in the target that a source table goes to: the flow's, or the schema's own; for `public` the url's. */
export function targetDatabase(
  table: Pick<TableSchema, 'schema'>,
  settings: Pick<FlowConfig, 'schema'>,
  ofUrl: string | undefined,
): string {
  return settings.schema ?? (table.schema === 'public' && ofUrl !== undefined ? ofUrl : table.schema);
}

export class TablePlaces {
  readonly #settings: FlowConfig;
  readonly #database: string | undefined;

  /** `database`: the one that the target's url names. */
  constructor(settings: FlowConfig, database: string | undefined) {
    this.#settings = settings;
    this.#database = database;
  }

  /** The table under the name that it has in the target, and its database there. */
  of(table: TableSchema): { readonly wanted: TableSchema; readonly schema: string } {
    // What mappings hold has keys of its own here: those of the quarantine do not compare bytes.
    if (isQuarantine(table, this.#settings)) return { wanted: { ...table, name: HELD_TABLE }, schema: WAYBILL_SCHEMA };
    return { wanted: table, schema: targetDatabase(table, this.#settings, this.#database) };
  }
}
