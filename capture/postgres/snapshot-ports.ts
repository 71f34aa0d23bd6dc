/** What the reader of snapshots is given by the session of the capture that it is part of. */
import type pg from 'pg';
import type { ColumnRules } from '../../core/column-rules.ts';
import type { Logger } from '../../core/logger.ts';
import type { Transactions } from '../../core/pg-snapshot.ts';
import type { SnapshotTask } from '../snapshot-loop.ts';
import type { ProgressStore } from '../snapshot-request.ts';
import type { StreamLead } from '../stream-lead.ts';
import type { PublishedTable } from './published-table.ts';

export interface SnapshotPorts {
  /** A connection of its own for each reader. */
  readonly connect: () => Promise<pg.Client>;
  readonly mostConnections: number;
  readonly progress: ProgressStore;
  readonly markPrefix: string;
  readonly maxChunkRows: number;
  readonly maxRowsPerSecond: number | undefined;
  readonly log: Logger;
  /** How far the stream is ahead of the flows that apply it. */
  readonly lead: StreamLead;
  readonly signal: AbortSignal;
  readonly rules: ColumnRules;
  readonly tableByName: (schema: string, name: string) => PublishedTable | undefined;
  /** Whether the source has a table of this name, of which the stream is yet to tell. */
  readonly isToCome: (schema: string, name: string) => Promise<boolean>;
  readonly trackTransactions: (on: boolean) => void;
  /** A chunk saw all others of the transactions that the log has told of, and its high watermark has passed. */
  readonly forgetTransactions: (unseen: Transactions) => void;
  /**
   * Resolves when the commit at `lsn` and all before it are stored in the stream. Rejects when the signal aborts: a cursor
   * must never pass rows that are not stored (Invariant 1).
   */
  readonly storedBehind: (lsn: bigint) => Promise<void>;
  /** The same for what has been written so far. */
  readonly stored: (client: pg.Client) => Promise<void>;
  readonly task: SnapshotTask;
}
