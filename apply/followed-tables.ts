/** What a flow knows of the tables that it follows: the version that the target has, and what it does not follow. */
import type { FlowConfig } from '../core/config.ts';
import type { TableSchema } from '../core/frame.ts';
import type { Finding } from '../core/finding.ts';
import type { TableNotice } from '../core/metrics.ts';
import { compileTablePatterns, type TableFilter } from '../core/table-pattern.ts';
import { REBUILDING } from './rebuilding.ts';

/** One row of the table `tables` that Waybill keeps in a target. */
export interface TableRecord {
  readonly schema: string;
  readonly name: string;
  /** The version that the target table was last made to fit; undefined when none ever did. */
  readonly definition: TableSchema | undefined;
  /** Names in the target of columns that the source dropped. */
  readonly kept: readonly string[];
  /** Columns that become NOT NULL once the rows that are being read again are there. */
  readonly pending: readonly string[];
  /** `stopped`: nothing is written until the table is read again. `gone`: the source no longer has it. */
  readonly state: 'follows' | 'stopped' | 'gone';
  readonly reason: string | undefined;
}

/** A table whose target must be made to fit `table` before rows of it are written, or that came to its end. */
export interface SchemaStep {
  readonly table: TableSchema;
  /** It is now read from the beginning: where it was stopped, or is lost, what the target has of it may go. */
  readonly restart: boolean;
  /** Nobody asked for it: what of a narrower type would lose values stays as it is. */
  readonly unasked?: boolean;
  /** With `unasked`: the source says for certain that columns of one name are the same, whose types may have lost values. */
  readonly narrower?: boolean;
  /**
   * What became of it at the source where that no longer has it, and the target is stopped or has another version than the
   * one named: nothing is made to fit any more.
   */
  readonly gone?: string;
}

export class FollowedTables {
  readonly #includes: TableFilter;
  readonly #stops: boolean;
  readonly #records = new Map<string, TableRecord>();
  /** By name: versions that a target left behind in the middle of the source transaction that is written again. */
  readonly #superseded = new Map<string, readonly string[]>();
  /** By name: tables that the flow has written, and that the target lacks now, wholly or in columns. */
  readonly #lost = new Set<string>();
  #changed = true;

  constructor({ tables, schema_changes }: Pick<FlowConfig, 'tables' | 'schema_changes'>) {
    this.#includes = tables === undefined ? () => true : compileTablePatterns(tables);
    this.#stops = schema_changes === 'stop';
  }

  /** Replaces everything that the target keeps. What it lacks is known until a step has made up for it. */
  load(records: readonly TableRecord[]): void {
    this.#records.clear();
    this.#superseded.clear();
    for (const record of records) this.#records.set(nameOf(record), record);
    this.#changed = true;
  }

  includes(table: TableSchema): boolean {
    return this.#includes(table.schema, table.name);
  }

  of(table: { readonly schema: string; readonly name: string }): TableRecord | undefined {
    return this.#records.get(nameOf(table));
  }

  byName(name: string): TableRecord | undefined {
    return this.#records.get(name);
  }

  /** The table that had this id in the source under another name. What is left of names before that, for good, is not it. */
  underOtherName(table: TableSchema): TableRecord | undefined {
    if (table.id === undefined) return undefined;
    for (const record of this.#records.values())
      if (record.definition?.id === table.id && record.state !== 'gone' && nameOf(record) !== nameOf(table))
        return record;
    return undefined;
  }

  /** Whether rows of this version may be written as they are. */
  isCurrent(table: TableSchema): boolean {
    const record = this.of(table);
    if (this.isLost(table)) return false;
    return record?.state === 'follows' && (record.definition?.version === table.version || this.isSuperseded(table));
  }

  /** Rows of these versions are written as they are, although the target has a later one. */
  supersede(name: string, versions: readonly string[]): void {
    this.#superseded.set(name, versions);
  }

  clearSuperseded(): void {
    this.#superseded.clear();
  }

  isSuperseded(table: TableSchema): boolean {
    return this.#superseded.size > 0 && this.#superseded.get(nameOf(table))?.includes(table.version) === true;
  }

  /**
   * Whether rows of a table are passed over: it is not of this flow, or is stopped. Any other has a plan: one that was gone
   * comes back with its first row.
   */
  leavesOut(table: TableSchema): boolean {
    return !this.includes(table) || this.isStopped(table);
  }

  /** Another table of the source had this name: nothing of what the target has is of this one. */
  replaces(table: TableSchema): boolean {
    const id = this.of(table)?.definition?.id;
    return id !== undefined && table.id !== undefined && id !== table.id;
  }

  /** Where a reading begins for which nobody asked. One that is rebuilt was asked for. */
  isUnasked(table: TableSchema, marked: boolean): boolean {
    return marked && this.of(table)?.reason !== REBUILDING;
  }

  /** Whether the target table may be changed, or emptied, where a reading begins. With schema_changes: stop somebody must ask. */
  mayRestart(unasked: boolean): boolean {
    return !this.#stops || !unasked;
  }

  isStopped(table: TableSchema): boolean {
    return this.of(table)?.state === 'stopped';
  }

  /** The tables that the target has and the flow does not write any more. */
  unwritten(): TableRecord[] {
    return [...this.#records.values()].filter(({ state }) => state !== 'follows');
  }

  /** The target lacks what the flow has written: made again it would be empty, so the next step stops the table. */
  lose(table: TableSchema): void {
    this.#lost.add(nameOf(table));
  }

  isLost(table: TableSchema): boolean {
    return this.#lost.has(nameOf(table));
  }

  set(record: TableRecord): void {
    this.#records.set(nameOf(record), record);
    this.#lost.delete(nameOf(record));
    this.#changed = true;
  }

  delete(table: { readonly schema: string; readonly name: string }): void {
    this.#records.delete(nameOf(table));
    this.#lost.delete(nameOf(table));
    this.#changed = true;
  }

  /** What to report when something may have changed since the last call; undefined when nothing did. */
  takeNotices(): readonly TableNotice[] | undefined {
    if (!this.#changed) return undefined;
    this.#changed = false;
    return noticesOf([...this.#records.values()]);
  }
}

/** The tables that are not followed. */
export function noticesOf(records: readonly TableRecord[]): TableNotice[] {
  return records.flatMap(({ schema, name, state, reason }) =>
    state === 'follows' ? [] : [{ schema, name, state, reason: reason ?? '' }],
  );
}

/** What `waybill check` says of tables of a source that a flow does not follow. */
export function addNotices(
  notices: readonly TableNotice[],
  source: string,
  what: string,
  add: (severity: Finding['severity'], what: string, message: string, remedy?: string) => void,
): void {
  for (const { schema, name, state, reason } of notices)
    if (state === 'stopped' && reason !== REBUILDING)
      add(
        'error',
        what,
        `table ${schema}.${name} is not followed: ${reason}`,
        `mend what it says, then: waybill snapshot ${source} ${schema}.${name}`,
      );
    else add('warning', what, `table ${schema}.${name}: ${reason}`);
}

export function nameOf(table: { readonly schema: string; readonly name: string }): string {
  return `${table.schema}.${table.name}`;
}
