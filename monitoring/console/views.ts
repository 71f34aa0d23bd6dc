/** What the console's API gives: docs/console.md describes it for people. Values that must not be shown are `HIDDEN`. */
import type { Alert } from '../alerts/evaluator.ts';

/** In place of a value of a column that must not be shown. */
export interface HiddenValue {
  readonly hidden: true;
}
export const HIDDEN: HiddenValue = { hidden: true };
/** A value as text, null, or left as it was by an update that did not send it. */
export type ShownValue = string | null | HiddenValue | { readonly unchanged: true };

export interface ProcessView {
  readonly process: string;
  readonly startedAt: string;
  readonly stages: readonly string[];
}

/** A source; or the transform of a flow of records, which is where its stream comes from. */
export interface SourceView {
  /** `flow:NAME` for a transform. */
  readonly name: string;
  readonly role: 'source' | 'transform';
  readonly title: string;
  readonly kind: string;
  /** The sources whose streams a transform reads. */
  readonly reads?: readonly string[];
  /** `silent`: no process says anything of it. */
  readonly state: string;
  readonly detail?: string;
  readonly position?: string;
  readonly lagSeconds: number | null;
  readonly rowsPerSecond: number;
  readonly retainedLogBytes?: number;
  readonly logBudgetSeconds?: number;
}

export interface StreamView {
  /** As `SourceView.name`. */
  readonly source: string;
  readonly name: string;
  readonly state: 'here' | 'missing' | 'unreachable';
  readonly frames?: number;
  readonly bytes?: number;
  readonly lastFrameAt?: string;
}

export interface FlowView {
  readonly name: string;
  /** As `SourceView.name`. */
  readonly source: string;
  /** Of a fan-out, the stream of its messages. */
  readonly target: string;
  /** `nats` for a fan-out. */
  readonly targetKind: string;
  /** It passes records on as messages: nothing is compared, nothing waits in quarantine. */
  readonly fanOut?: true;
  readonly state: string;
  readonly detail?: string;
  readonly position?: string;
  readonly commitTime?: string;
  readonly lagSeconds: number | null;
  readonly rowsPerSecond: number;
  readonly pendingFrames?: number;
  /** Seconds until the stream drops a frame that waits; absent while none does. */
  readonly keptSeconds?: number;
  /** Changes that wait in quarantine; absent while the target cannot be asked. */
  readonly quarantined?: number;
  readonly drift?: number;
  readonly verifiedAt?: string;
  readonly coverage?: number;
  readonly heartbeatSeconds?: number;
}

/** The last ten minutes: one point for every five seconds, oldest first; null where nothing was known. */
export interface TrendView {
  readonly lag: readonly (number | null)[];
  readonly rows: readonly (number | null)[];
}

export interface OverviewView {
  readonly at: string;
  readonly installation: string;
  readonly sources: readonly SourceView[];
  readonly streams: readonly StreamView[];
  readonly flows: readonly FlowView[];
  readonly alerts: readonly Alert[];
  readonly processes: readonly ProcessView[];
  readonly snapshots: readonly SnapshotView[];
  /** By `source:NAME` and `flow:NAME`. */
  readonly trends: Readonly<Record<string, TrendView>>;
}

export interface SnapshotView {
  readonly source: string;
  readonly id: string;
  readonly asked: boolean;
  readonly tables: readonly { readonly table: string; readonly state: string; readonly rows: number }[];
}

export interface DriftFinding {
  readonly id: string;
  readonly table: string;
  readonly kind: string;
  readonly key: readonly ShownValue[] | null;
  readonly copies: number;
  readonly foundAt: string;
  readonly confirmedAt: string;
}

export interface DriftView {
  readonly flow: string;
  readonly total: number;
  readonly tables: readonly { readonly table: string; readonly kind: string; readonly rows: number }[];
  readonly findings: readonly DriftFinding[];
  readonly lastRun?: {
    readonly state: string;
    readonly startedAt: string;
    readonly finishedAt?: string;
    /** Some rows were neither proven equal nor found to differ: they changed at every look, or lack a column. */
    readonly unresolved?: true;
    /** Of records: what was not compared, and why; `*` stands for whole records. */
    readonly leftOut?: readonly { readonly what: string; readonly why: string; readonly records: number }[];
  };
}

export interface RowPairView {
  readonly finding: DriftFinding;
  /** When both rows were so; absent: now. */
  readonly readAt?: string;
  readonly columns: readonly {
    readonly name: string;
    readonly key: boolean;
    readonly source: ShownValue;
    readonly target: ShownValue;
    readonly differs: boolean;
  }[];
  readonly sourceRow: boolean;
  readonly targetRow: boolean;
  readonly note?: string;
}

export interface QuarantineItem {
  readonly id: string;
  readonly table: string;
  readonly key: string | null;
  readonly op: string;
  readonly reason: string;
  readonly message: string | null;
  readonly sqlState: string | null;
  readonly createdAt: string;
}

export interface QuarantinePage {
  readonly total: number;
  readonly offset: number;
  readonly items: readonly QuarantineItem[];
  readonly reasons: readonly { readonly reason: string; readonly count: number }[];
}

export interface QuarantineDetailView extends QuarantineItem {
  readonly flow: string;
  readonly source: string;
  readonly position: string;
  readonly target: string;
  /** Bytes of the change as it is stored. */
  readonly bytes: number;
  readonly columns: readonly {
    readonly name: string;
    readonly type: string;
    readonly key: boolean;
    readonly notNull: boolean;
    /** Values of binary columns are base64. */
    readonly binary: boolean;
    readonly before?: ShownValue;
    readonly after?: ShownValue;
  }[];
}

export interface AuditLineView {
  readonly id: number;
  readonly at: string;
  readonly actor: string;
  readonly action: string;
  readonly subject: string;
  readonly detail: unknown;
  readonly hash: string;
}

export interface AuditPage {
  readonly target: string;
  readonly lines: readonly AuditLineView[];
}

export interface AuditCheckView {
  readonly target: string;
  readonly entries: number;
  readonly problems: readonly string[];
}

export interface MetaView {
  readonly installation: string;
  /** Whether actions are possible at all: a token is configured. */
  readonly actions: boolean;
  readonly flows: readonly {
    readonly name: string;
    readonly target: string;
    /** Whether it is compared with its sources: those that bring records to other systems are not. */
    readonly compared: boolean;
  }[];
  /** Entities whose values can be explained. */
  readonly entities: readonly string[];
  readonly sources: readonly string[];
  readonly targets: readonly string[];
}

/** Where a value came from. */
export interface OriginView {
  readonly source?: string;
  readonly table?: string;
  readonly key?: string;
  readonly position?: string;
  readonly time?: string;
}

export interface ExplainView {
  readonly entity: string;
  readonly flow: string;
  readonly fields: readonly {
    readonly field: string;
    readonly value: ShownValue;
    readonly decided: string;
    readonly rule: string;
    readonly origin: OriginView;
    /** What others said that is part of the value as well. */
    readonly merged: readonly SaidView[];
    readonly lost: readonly SaidView[];
  }[];
}

export interface SaidView {
  readonly value: ShownValue;
  readonly origin: OriginView;
}

/** A change of a quarantined row by a person: new values by column. */
export type QuarantineEdit = Readonly<Record<string, string | null>>;

/** Who asks, as an audit line names it. */
export interface Actor {
  readonly name: string;
}

export interface ActionResult {
  readonly done: string;
  readonly failed?: readonly { readonly id: string; readonly message: string }[];
}

/** What the console asks of the installation. Errors are `ReplicationError`. */
export interface ConsoleData {
  meta(): MetaView;
  /** The configuration without secrets. */
  configuration(): unknown;
  overview(): Promise<OverviewView>;
  drift(flow: string, offset: number, limit: number): Promise<DriftView>;
  rowPair(flow: string, finding: string): Promise<RowPairView | undefined>;
  quarantine(flow: string, options: { offset: number; limit: number; reason?: string }): Promise<QuarantinePage>;
  quarantined(flow: string, id: string): Promise<QuarantineDetailView | undefined>;
  audit(target: string, before: number | undefined, limit: number): Promise<AuditPage>;
  checkAudit(target: string): Promise<AuditCheckView>;
  /** Where each field of a record came from; `key` as `waybill explain` takes it. undefined: there is no such record. */
  explain(entity: string, key: readonly string[]): Promise<ExplainView | undefined>;

  replay(actor: Actor, flow: string, ids: readonly string[] | 'all'): Promise<ActionResult>;
  discard(actor: Actor, flow: string, ids: readonly string[]): Promise<ActionResult>;
  edit(actor: Actor, flow: string, id: string, edit: QuarantineEdit, replay: boolean): Promise<ActionResult>;
  snapshot(actor: Actor, source: string, tables: readonly string[], cancel: boolean): Promise<ActionResult>;
  verify(actor: Actor, flow: string, repair: boolean): Promise<ActionResult>;
}
