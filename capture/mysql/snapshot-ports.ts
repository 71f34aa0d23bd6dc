/** What the reader of snapshots is given by the session of the capture that it is part of. */
import type { ColumnRules } from '../../core/column-rules.ts';
import type { Logger } from '../../core/logger.ts';
import type { ProgressStore } from '../snapshot-request.ts';
import type { StreamLead } from '../stream-lead.ts';
import type { CapturedTable } from './catalog.ts';
import type { ChunkReaderOptions } from './chunk-reader.ts';
import type { SqlClient } from './connection.ts';

export interface SnapshotPorts extends ChunkReaderOptions {
  /** For questions while `client` gives rows. */
  readonly lookups: SqlClient;
  /** A table as the catalog has it now. */
  readonly readTable: (schema: string, name: string) => Promise<CapturedTable | 'absent' | undefined>;
  /** Told when the stream has that the reading of a whole table begins which somebody asked for. */
  readonly begins: (table: { readonly schema: string; readonly name: string }) => void;
  /** How many statements that may have changed tables the log has told of so far. */
  readonly changes: () => number;
  readonly rules: ColumnRules;
  readonly progress: ProgressStore;
  readonly maxChunkRows: number;
  readonly maxRowsPerSecond: number | undefined;
  readonly log: Logger;
  /** How far the stream is ahead of the flows that apply it. */
  readonly lead: StreamLead;
  /** Resolves when all that was published is stored. Rejects when the signal aborts (Invariant 1). */
  readonly stored: () => Promise<void>;
}
