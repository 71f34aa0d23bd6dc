/**
 * One error type with a closed set of codes, and one table that says what each code means for the service that met it
 * and for the operator who reads it. Code that meets a failure classifies it (by SQLSTATE, errno or NATS code, never by
 * message text) and throws; only `runService` decides, by this table, whether to try again.
 */

/** What a service does when it meets an error of a code. */
export type Action = 'retry' | 'halt' | 'quarantine' | 'resnapshot';

export interface Policy {
  readonly action: Action;
  /** What an operator does about it, in one or two sentences. */
  readonly remedy: string;
}

const POLICIES = {
  config_invalid: { action: 'halt', remedy: 'Correct the configuration at the place named and start again.' },

  source_unreachable: {
    action: 'retry',
    remedy: 'Check that the source is up and that its url (host, port, database, TLS) is right.',
  },
  source_auth: {
    action: 'halt',
    remedy:
      "Check user, password and database in the source url, and that the server lets this user in from here: by pg_hba.conf in PostgreSQL, by the host of the account in MySQL and MariaDB. Where it is about TLS: its tls settings, and what the server's certificate names.",
  },
  source_privilege: {
    action: 'halt',
    remedy: 'Have a DBA run the SQL that `waybill grants SOURCE` prints.',
  },
  source_not_logical: {
    action: 'halt',
    remedy: "Run ALTER SYSTEM SET wal_level = 'logical' on the source and restart it.",
  },
  source_no_free_slot: {
    action: 'halt',
    remedy:
      'Raise max_replication_slots on the source (restart needed), or drop a slot that nobody uses: SELECT pg_drop_replication_slot(...).',
  },
  source_slot_in_use: {
    action: 'retry',
    remedy:
      'Another process reads this slot. If it is another Waybill, nothing is wrong: it takes over when the other leaves. If not, give this source a slot of its own.',
  },
  source_slot_missing: {
    action: 'resnapshot',
    remedy:
      'The slot was dropped, and changes since then may be lost. Run `waybill snapshot SOURCE --reset` to make a new slot and read all tables again.',
  },
  source_slot_lost: {
    action: 'resnapshot',
    remedy:
      'The source removed WAL that this slot needed (max_slot_wal_keep_size). Raise that limit, then run `waybill snapshot SOURCE --reset`.',
  },
  source_slot_ahead: {
    action: 'resnapshot',
    remedy:
      'The slot was advanced beyond what the stream holds, so changes are missing. Run `waybill snapshot SOURCE --reset`.',
  },
  source_identity_mismatch: {
    action: 'halt',
    remedy:
      'The url points at another database than the one this stream was captured from. Correct the url, or run `waybill teardown SOURCE` and start afresh.',
  },
  source_publication: {
    action: 'halt',
    remedy: 'Make the publication cover the configured tables with the SQL in the message, then start again.',
  },
  source_table_identity: {
    action: 'halt',
    remedy:
      'Give the table a primary key, or ALTER TABLE ... REPLICA IDENTITY FULL, or exclude it from `tables` in the configuration.',
  },
  source_table_missing: {
    action: 'halt',
    remedy: 'Correct `tables` in the configuration: at least one pattern must match a table that this user may read.',
  },
  source_columns: {
    action: 'halt',
    remedy:
      'Correct `columns` of the source in the configuration as the message says, then start again. Nothing was captured in the clear.',
  },
  source_encoding: {
    action: 'halt',
    remedy:
      'The source database is not encoded in a character set that converts to UTF-8. Capture a converted database.',
  },
  source_log_purged: {
    action: 'resnapshot',
    remedy:
      'The source removed binary logs that were not read yet. Raise binlog_expire_logs_seconds, then run `waybill snapshot SOURCE --reset` to read all tables again.',
  },
  source_diverged: {
    action: 'halt',
    remedy:
      'The source lacks transactions that were captured already: it was restored from a backup, or is a replica that lags or went its own way. Point the url at the right server, or run `waybill snapshot SOURCE --reset` if this one is to be followed.',
  },
  source_behind: {
    action: 'retry',
    remedy:
      'The source is a replica that has yet to execute what was captured from another server. It goes on by itself when the replica has caught up; if it never does, point the url at a server that has, or run `waybill snapshot SOURCE --reset`.',
  },
  source_ambiguous: {
    action: 'retry',
    remedy:
      'Two servers of the url accept writes and do not replicate each other. Make the one that was given up read-only, stop it, or take it out of the url; Waybill goes on by itself.',
  },
  source_server_id_clash: {
    action: 'halt',
    remedy:
      'Another replica or reader uses the same server id. Give this source a `server_id` of its own in the configuration; two Waybills on one source take turns by their lease.',
  },
  source_binlog_settings: {
    action: 'halt',
    remedy:
      'The log lacks what is needed to read it. Set binlog_format=ROW, binlog_row_image=FULL, binlog_row_metadata=FULL and gtid_mode=ON (MySQL) on the source, also for sessions that override them, then run `waybill snapshot SOURCE --reset`.',
  },
  source_incident: {
    action: 'resnapshot',
    remedy:
      'The source wrote into its log that it lost events. Run `waybill snapshot SOURCE --reset` to read all tables again.',
  },
  source_protocol: {
    action: 'halt',
    remedy:
      'The source sent bytes that this version does not know. Nothing was skipped. Upgrade Waybill, or report it with the bytes in the message.',
  },
  source_query: { action: 'retry', remedy: 'A statement failed on the source; see the SQLSTATE in the message.' },

  spool_full: {
    action: 'retry',
    remedy:
      'Transactions in progress outgrew spool_bytes of the source, or the disk of its spool_dir is full. Nothing is lost: the source sends them at their commit instead, from its own disk. Raise spool_bytes or free disk, or set streaming: off.',
  },
  spool_failed: {
    action: 'retry',
    remedy:
      'Files for transactions in progress cannot be written or read. Give the source a spool_dir that this user may write to, on a disk that works, or set streaming: off.',
  },
  spool_unsuited: {
    action: 'retry',
    remedy:
      'Nothing needs to be done: a transaction with logical messages, or with very many subtransactions, is received at its commit.',
  },

  nats_unreachable: { action: 'retry', remedy: 'Check that NATS is up and that nats.servers is right.' },
  nats_auth: {
    action: 'halt',
    remedy: 'Check the credentials of nats (creds_file, user, token) and their permissions.',
  },
  nats_no_jetstream: {
    action: 'halt',
    remedy: 'Start nats-server with JetStream (`nats-server -js`) and enable it for this account.',
  },
  nats_payload_too_small: {
    action: 'halt',
    remedy: 'Set max_payload of nats-server to at least 64 KB (1 MB is its default and works well).',
  },
  nats_storage: {
    action: 'retry',
    remedy:
      'JetStream has no room: free disk, raise max_file_store, or lower nats.stream.max_bytes in the configuration. Until then the source keeps its log.',
  },
  nats_timeout: { action: 'retry', remedy: 'NATS did not answer in time; it is tried again from the stream itself.' },

  stream_conflict: {
    action: 'retry',
    remedy: 'Another process wrote to this stream; this one re-reads the end of the stream before it writes again.',
  },
  stream_missing: {
    action: 'retry',
    remedy:
      'The stream is made by the capture of its source, or by the transform of its flow of records: start it, or check the stream name and the nats prefix.',
  },
  stream_foreign: {
    action: 'halt',
    remedy:
      'The stream holds messages that Waybill did not write. Give this installation a nats.prefix of its own, or remove the stream.',
  },
  stream_gap: {
    action: 'resnapshot',
    remedy:
      'Frames are missing from the stream (expired, purged or deleted). Run `waybill snapshot SOURCE --reset`, and give the stream more room.',
  },
  stream_behind: {
    action: 'retry',
    remedy:
      'The target is ahead of the end of the stream: the broker lost its newest frames. The capture fills the hole; if this lasts, run `waybill snapshot SOURCE --reset`.',
  },
  frame_unreadable: {
    action: 'halt',
    remedy:
      'A message in the stream is not a readable frame. Nothing was skipped. Inspect it with `nats stream get STREAM SEQ`; if it is foreign, remove it with `nats stream rmm STREAM SEQ`, start again, and run `waybill snapshot SOURCE --reset`.',
  },
  frame_version: { action: 'halt', remedy: 'The frame was written by a newer Waybill. Upgrade this process.' },

  target_unreachable: { action: 'retry', remedy: 'Check that the target is up and that its url is right.' },
  target_auth: {
    action: 'halt',
    remedy:
      "Check user, password and database in the target url. Where it is about TLS: its tls settings, and what the server's certificate names.",
  },
  target_privilege: { action: 'halt', remedy: 'Have a DBA run the SQL that `waybill grants TARGET` prints.' },
  target_shape: {
    action: 'halt',
    remedy:
      'The target table is missing, or differs from the source table as the message says. Change it and start again; or drop it, start again, and run `waybill snapshot SOURCE TABLE`, which makes and fills it anew.',
  },
  target_conflict: {
    action: 'retry',
    remedy: 'The target rolled the batch back (deadlock or serialisation); it is tried again.',
  },
  target_fenced: {
    action: 'retry',
    remedy: 'Another process advanced this flow; this one starts again from the position in the target.',
  },
  target_foreign: {
    action: 'halt',
    remedy:
      'Another installation of Waybill (another NATS, another nats.prefix) has a flow of this name in this target. Give one of the two another name. Where that installation is gone, for one because its NATS was lost, run the SQL of the message there and start again.',
  },
  target_row: {
    action: 'quarantine',
    remedy: 'See `waybill quarantine list`; mend the target or the row, then `waybill quarantine replay`.',
  },
  target_query: { action: 'retry', remedy: 'A statement failed on the target; see the SQLSTATE in the message.' },
  target_full: {
    action: 'retry',
    remedy: 'The target has no disk space left; free some. The stream keeps the changes.',
  },

  mapping_invalid: {
    action: 'halt',
    remedy: 'Correct the mapping at the lines named and start again; nothing was skipped.',
  },
  transform_history: {
    action: 'resnapshot',
    remedy:
      'Frames have expired from the stream of a source, and no saved rows of what the mapping reads stand in for them. Run `waybill snapshot SOURCE --reset` to have all its tables read again, and give the stream more room.',
  },
  transform_state_full: {
    action: 'halt',
    remedy:
      'The rows that a mapping keeps for joins and sums outgrew state_bytes of the flow. Raise it, or let the mapping use fewer columns, tables or rows.',
  },
  rebuild_impossible: {
    action: 'halt',
    remedy:
      'The stream no longer holds what the flow would be built from; nothing was changed. Read the tables named from the source: `waybill snapshot SOURCE TABLE`. Give the stream more room (max_age, max_bytes) to rebuild from it next time.',
  },
  verify_stalled: {
    action: 'retry',
    remedy:
      'A comparison waits until the target has applied what the source had, and the flow does not move. See `waybill status`: is `waybill run` up, is the flow blocked? Then run `waybill verify` again.',
  },
  verify_busy: {
    action: 'retry',
    remedy:
      'One comparison of a flow runs at a time. Wait for the end of the one named; one whose process was killed ends by itself after ten seconds.',
  },

  lease_lost: { action: 'retry', remedy: 'Another process holds the lease; this one stands by.' },
  internal: { action: 'halt', remedy: 'This is a defect of Waybill. Nothing was skipped. Report it with the log.' },
} as const satisfies Record<string, Policy>;

/** The closed set of error codes. */
export type ErrorCode = keyof typeof POLICIES;

export const ERROR_CODES = Object.keys(POLICIES) as ErrorCode[];

/** The policy of a code: what a service does, and what an operator does. */
export function policyFor(code: ErrorCode): Policy {
  return POLICIES[code];
}

/** Facts about the place where an error happened. Never a row's values and never a secret. */
export type ErrorContext = Readonly<Record<string, string | number | boolean | undefined>>;

/** The one error that stages throw. `message` says what happened and where; `remedy` what to do about it. */
export class ReplicationError extends Error {
  override readonly name = 'ReplicationError';
  readonly code: ErrorCode;
  readonly context: ErrorContext;
  /** What `message` lists, where it tells of several things. */
  readonly problems: readonly string[];

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; context?: ErrorContext; problems?: readonly string[] } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.context = options.context ?? {};
    this.problems = options.problems ?? [];
  }

  get remedy(): string {
    return policyFor(this.code).remedy;
  }
}

/** One error for all problems of something that people wrote. */
export function problemsError(code: ErrorCode, what: string, problems: readonly string[]): ReplicationError {
  const lines = problems.map((problem) => `  - ${problem}`);
  return new ReplicationError(code, `${what} has ${problems.length} problem(s):\n${lines.join('\n')}`, { problems });
}

/** Gives the error that `thrown` of a client stands for; undefined where it is none of that client. */
type Classify = (thrown: unknown) => ReplicationError | undefined;

const classifiers: Classify[] = [];

/** For a module that wraps a client: what that throws is known to `asReplicationError`, also where nobody gave it a place. */
export function classifyErrors(classify: Classify): void {
  classifiers.push(classify);
}

/** Any thrown value as a `ReplicationError`; what none of the clients throws is a defect (`internal`, which halts). */
export function asReplicationError(thrown: unknown): ReplicationError {
  if (thrown instanceof ReplicationError) return thrown;
  for (const classify of classifiers) {
    const known = classify(thrown);
    if (known !== undefined) return known;
  }
  return new ReplicationError('internal', messageOf(thrown), { cause: thrown });
}

/** The message of any thrown value; connection errors of Node often carry theirs only in `errors` or `code`. */
export function messageOf(thrown: unknown): string {
  if (thrown instanceof AggregateError && thrown.message === '') return thrown.errors.map(messageOf).join('; ');
  if (thrown instanceof Error) {
    const code = (thrown as { code?: unknown }).code;
    if (thrown.message !== '') return thrown.message;
    return typeof code === 'string' ? code : thrown.name;
  }
  return String(thrown);
}

/** True when `thrown` is only the echo of `signal` having been aborted: not an error. */
export function isAbort(thrown: unknown, signal: AbortSignal): boolean {
  return signal.aborted && (thrown === signal.reason || (thrown instanceof Error && thrown.name === 'AbortError'));
}
