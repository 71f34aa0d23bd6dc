/** A target as the command line sees it, whatever kind of database it is. Each kind is loaded when it is asked for. */
import type { FlowConfig, TargetConfig } from '../core/config.ts';
import type { Finding } from '../core/finding.ts';
import type { OutboundPlan } from '../core/outbound.ts';
import type { TableSchema } from '../core/frame.ts';
import type { TableNotice } from '../core/metrics.ts';
import type { RowEdit } from './quarantine-edit.ts';
import type {
  QuarantineDetail,
  QuarantineEntry,
  QuarantineSlice,
  ReasonCount,
  ReplayChoice,
  ReplayResult,
} from './quarantine-entry.ts';
import type { OutboundTrace, TracesOf } from './outbound/outbound-traces.ts';
import type { TableRecord } from './followed-tables.ts';
import type { Rebuilt, RebuildOptions } from './rebuild.ts';
import type { OutboundFit } from './outbound/outbound-fit.ts';
import type { PositionRow, TargetStore } from './target-store.ts';

/** A session for looking at a target and for working on its quarantine. */
export interface TargetDesk {
  readPositions(): Promise<PositionRow[]>;
  /** The tables that a flow does not follow. */
  tableNotices(flow: string): Promise<TableNotice[]>;
  /** What a flow knows of its tables. */
  tableRecords(flow: string): Promise<TableRecord[]>;
  /** Puts a flow back to an earlier place of its stream; undefined for one that never wrote here. */
  rebuild(options: RebuildOptions): Promise<Rebuilt | undefined>;
  /** How many changes wait in quarantine, by flow. */
  countQuarantine(): Promise<Map<string, number>>;
  listQuarantine(flow?: string): Promise<QuarantineEntry[]>;
  /** How many changes of a flow wait, by reason. */
  countReasons(flow: string): Promise<ReasonCount[]>;
  pageQuarantine(flow: string, slice: QuarantineSlice): Promise<QuarantineEntry[]>;
  /** Puts new values into a quarantined row; the flow stands still meanwhile. Throws `config_invalid` for what cannot be. */
  editQuarantine(flow: string, id: string, edit: RowEdit): Promise<void>;
  showQuarantine(id: string | number): Promise<QuarantineDetail | undefined>;
  replayQuarantine(flow: string, which: ReplayChoice, settings: FlowConfig): Promise<ReplayResult>;
  discardQuarantine(flow: string, ids: readonly (string | number)[]): Promise<number>;
  /** The columns of the row that has these values, as text; undefined where there is none. */
  readRow(
    schema: string,
    table: string,
    columns: readonly string[],
    key: readonly (readonly [column: string, value: string])[],
  ): Promise<readonly (string | null)[] | undefined>;
  close(): Promise<void>;
}

export interface Target {
  readonly store: TargetStore;
  /** The store of an outbound flow: it writes to tables of another system, and neither makes nor alters one. */
  outboundStore(plan: OutboundPlan): TargetStore;
  /** How an outbound mapping fits the real tables. Throws `target_unreachable` or another classified error. */
  checkOutbound(plan: OutboundPlan): Promise<OutboundFit>;
  /** What an outbound flow left there, and removes it if that is asked for. Throws classified errors. */
  outboundTraces(of: TracesOf): Promise<OutboundTrace[]>;
  /** Connects. Throws `target_unreachable`, `target_auth` or another classified error. */
  openDesk(applicationName: string): Promise<TargetDesk>;
  /**
   * What `waybill check` says. `tables` are the tables of each flow's source, where they are known: whatever of them
   * does not fit is an error. An unreachable target is a finding, not an error.
   */
  check(
    name: string,
    flows: Readonly<Record<string, FlowConfig>>,
    tables: Readonly<Record<string, readonly TableSchema[]>>,
  ): Promise<Finding[]>;
  /**
   * The least that the user of the url needs, as SQL. `schemas` are those that flows write into, `outbound` what brings
   * records to tables that are there.
   */
  grantsSql(user: string, schemas: readonly string[], outbound: readonly OutboundPlan[]): string;
}

/** The target of a configuration, by its kind. */
export async function targetOf(settings: TargetConfig): Promise<Target> {
  if (settings.kind === 'postgres') {
    const { createPostgresTarget } = await import('./postgres/target.ts');
    return createPostgresTarget(settings);
  }
  const { createMysqlTarget } = await import('./mysql/target.ts');
  return createMysqlTarget(settings);
}
