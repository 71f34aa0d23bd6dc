/**
 * What a comparison needs of a database: one implementation for each kind of engine. Nothing here is about which side it
 * is, but for `DriftSource` and `DriftTarget`.
 */
import type { ColumnGuard } from '../../core/column-guard.ts';
import type { FlowConfig } from '../../core/config.ts';
import type { Dialect } from '../../core/frame.ts';
import type { Transactions } from '../../core/pg-snapshot.ts';
import type { Position } from '../../core/position.ts';
import type { TextKind } from './canonical-text.ts';
import type { Buckets, DigestHash, RowDigest } from './digest.ts';
import type { Pace } from './pace.ts';

/** The order that is the same in every database. */
export const BY_VALUE = 'value';

export interface SideColumn {
  readonly name: string;
  /** As the engine prints it, with its modifiers. */
  readonly type: string;
  /** What a domain is made of; the type itself where it is none. */
  readonly base: string;
  /**
   * Columns of the same order sort alike: `BY_VALUE` is that of types without a collation and of texts by their code points;
   * that of a language names its collation, with the version where the engine knows of one. undefined: not known.
   */
  readonly order: string | undefined;
}

/** A table as one side has it. */
export interface SideTable {
  readonly dialect: Dialect;
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly SideColumn[];
  /** Names of columns that the engine makes by itself. */
  readonly generated?: readonly string[];
  /** Columns that tell rows apart; empty where only the whole row does. */
  readonly key: readonly string[];
  /** What the engine believes; only for the size of buckets and for shares. */
  readonly estimatedRows: number;
  /** Tables inherit from it (Postgres), whose rows are not its own. */
  readonly isParent?: boolean;
}

/** A column as it is compared. */
export interface ComparedColumn {
  readonly name: string;
  readonly type: string;
  readonly kind: TextKind;
  /** Only in a source of the MySQL kind whose target has no such dates: what they are taken for. */
  readonly zeroDates?: ZeroDates;
  /** What the column rules of the source made of its values on their way; such rows are digested here. */
  readonly guard?: ColumnGuard;
}

/** What becomes of 0000-00-00 on the way; left out where such rows go to quarantine. */
export type ZeroDates = Exclude<FlowConfig['zero_dates'], 'reject'>;

/** A table of one side as it is compared: the same columns and key, in the same order, on both sides. */
export interface ComparedTable {
  readonly dialect: Dialect;
  readonly hash: DigestHash;
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly ComparedColumn[];
  /** Positions in `columns`. */
  readonly key: readonly number[];
  /** As of `SideTable`. */
  readonly isParent?: boolean;
  /** A column that is NULL in rows that count: others are gone at the source (`deletes: soft`). */
  readonly deletedAt?: string;
}

/** Key values as canonical texts. */
export type KeyTexts = readonly string[];

/** Rows with keys in `(after, upTo]`, where null leaves an end open; or all rows of the table. */
export type Scope =
  | { readonly kind: 'range'; readonly after: KeyTexts | null; readonly upTo: KeyTexts | null }
  | { readonly kind: 'all' };

/** A row as far as a comparison looks at it. */
export interface DigestedRow {
  /** Empty in a table without a key. */
  readonly key: KeyTexts;
  readonly digest: RowDigest;
}

export interface DriftSide {
  /** Tables with what it takes to compare them. */
  tables(): Promise<SideTable[]>;
  /** The sums of a scope. */
  scan(table: ComparedTable, scope: Scope, mask: number, pace: Pace): Promise<Buckets>;
  /** The rows of a scope that fall into the buckets of `mask` named. */
  rows(table: ComparedTable, scope: Scope, mask: number, buckets: readonly number[], pace: Pace): Promise<Reading>;
  /** The rows that have these keys. */
  lookUp(table: ComparedTable, keys: readonly KeyTexts[]): Promise<Reading>;
  /** The canonical values of the rows that have these keys. */
  read(table: ComparedTable, keys: readonly KeyTexts[]): Promise<readonly (string | null)[][]>;
  /** Gives the canonical values of the rows that have one of these digests (`formatDigest`), of equal rows of at least one. */
  find(
    table: ComparedTable,
    digests: ReadonlySet<string>,
    pace: Pace,
    take: (values: (string | null)[]) => void,
  ): Promise<void>;
  close(): Promise<void>;
}

/** Rows, with what is known of the moment at which they were read: one snapshot. */
export interface Reading {
  readonly rows: readonly DigestedRow[];
  /** Target: the position that the data reflects. */
  readonly position?: Position;
  /** Source: transactions (as frames name them) that this snapshot does not see yet. */
  readonly inProgress?: Transactions;
}

/** What statements from a moment on see: all that lies before a place of the log, but for some transactions that last. */
export interface Visible {
  readonly horizon: Position;
  /** As frames name them. */
  readonly inProgress: ReadonlySet<number>;
}

export interface DriftSource extends DriftSide {
  /** The end of the log now: everything that a snapshot taken before shows lies before it. */
  watermark(): Promise<Position>;
  /**
   * A place of the log: every transaction before it is visible to snapshots taken from now on, but for those that such
   * a snapshot itself names as `inProgress`.
   */
  horizon(): Promise<Position>;
  /** The horizon, and the transactions before it that statements from now on do not see yet. */
  visible(): Promise<Visible>;
  /** Writes into the log, so that an idle stream passes the watermark. */
  nudge(): Promise<void>;
  /** Writes a mark into the log; gives a place that only who has read it passes. Undefined: nothing can be written there. */
  mark(): Promise<Position | undefined>;
  /** The key that ends a range of about `rows` rows after `after`; undefined when fewer are left. */
  boundary(table: ComparedTable, after: KeyTexts | null, rows: number): Promise<KeyTexts | undefined>;
}

export interface DriftTarget extends DriftSide {
  /** Where the flow stands; undefined when it has never run. */
  position(): Promise<Position | undefined>;
}
