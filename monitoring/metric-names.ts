/** Every series that Waybill exports: name and help in one place. Units are in the names. */
export const METRIC = {
  buildInfo: ['waybill_build_info', 'Always 1; the labels say which version of Waybill runs'],
  stageProcesses: [
    'waybill_stage_processes',
    'Whether this process runs a stage that the configuration names: 1, or 0; the sum over all is how many do',
  ],
  captureState: ['waybill_capture_state', 'State of a capture: 1 for the one it is in'],
  captureLag: [
    'waybill_capture_lag_seconds',
    'Age of the newest source commit not yet stored in the stream; absent while unknown, 0 when idle',
  ],
  snapshotRows: ['waybill_capture_snapshot_rows', 'rows that the snapshot under way has read'],
  snapshotExpectedRows: [
    'waybill_capture_snapshot_expected_rows',
    'rows that the snapshot under way will have read, by the estimates of the source; absent where it has none',
  ],
  snapshotTables: ['waybill_capture_snapshot_tables', 'tables of the snapshot under way, by whether they are read'],
  snapshotRemaining: [
    'waybill_capture_snapshot_remaining_seconds',
    'how long the snapshot under way will take, at its present rate; absent where unknown',
  ],
  captureRetained: [
    'waybill_capture_retained_log_bytes',
    'Bytes of log that the source keeps: WAL for the slot, binary logs',
  ],
  captureBudget: [
    'waybill_capture_log_budget_seconds',
    'Time until the source drops log that is still needed, at the present rate; absent while unknown or without limit',
  ],
  captureSpool: [
    'waybill_capture_spool_bytes',
    'Bytes kept of transactions in progress; absent where large transactions are received at their commit',
  ],
  captureSpoolGivenUp: [
    'waybill_capture_spool_given_up_total',
    'Times that large transactions were received at their commit from then on, by reason',
  ],
  captureRows: ['waybill_capture_rows_total', 'Row changes read from the source log'],
  captureTransactions: ['waybill_capture_transactions_total', 'Source transactions stored in the stream'],
  publishSeconds: ['waybill_stream_publish_seconds', 'Frame publish to acknowledgement'],
  pendingFrames: ['waybill_stream_pending_frames', 'Frames in the stream that the flow has not applied'],
  streamRetention: [
    'waybill_stream_retention_seconds',
    'Time until the stream drops a frame that the flow has not applied, by its age, or by its size if what waits goes on to grow; absent while nothing waits',
  ],
  transformState: ['waybill_transform_state', 'State of a transform: 1 for the one it is in'],
  transformRecords: [
    'waybill_transform_records_total',
    'Records that changed (mapped), source rows left out (filtered), groups of records held (rejected)',
  ],
  transformLag: [
    'waybill_transform_lag_seconds',
    'Age of the newest commit taken of the source that is furthest behind; absent while unknown, 0 when idle',
  ],
  transformStateBytes: ['waybill_transform_state_bytes', 'Estimated bytes that mappings and records keep in memory'],
  transformSavedState: ['waybill_transform_saved_state_bytes', 'Bytes of the saved state of a transform'],
  transformSavedAt: [
    'waybill_transform_saved_state_timestamp_seconds',
    'When the state of a transform was saved last: a restart reads the frames since then again',
  ],
  transformWaiting: ['waybill_transform_waiting_records', 'Records of which a change waits for its delivery'],
  transformSavedWrites: [
    'waybill_transform_saved_writes_total',
    'Changes of records that were not sent because a later one stood for them',
  ],
  transformSavedBytes: [
    'waybill_transform_saved_bytes_total',
    'Characters of the values in changes that were not sent',
  ],
  transformPublish: ['waybill_transform_publish_seconds', 'Frame of records publish to acknowledgement'],
  oversellExposure: [
    'waybill_oversell_exposure_units',
    'Units sold per second (what available falls by, over a minute) times the age of available',
  ],
  invariantViolations: ['waybill_invariant_violations_total', 'Invariants of stock found broken as records passed'],
  flowState: ['waybill_apply_state', 'State of a flow: 1 for the one it is in'],
  applyLag: ['waybill_apply_lag_seconds', 'Source commit to target commit; absent while unknown, 0 when idle'],
  applyCommitLag: [
    'waybill_apply_commit_lag_seconds',
    'Source commit to target commit of the newest change of each batch',
  ],
  stalled: [
    'waybill_stage_stalled_seconds',
    'How long a stage has had work and not moved; 0 while it moves or has nothing to do',
  ],
  heartbeat: [
    'waybill_end_to_end_heartbeat_seconds',
    'How long a heartbeat takes from the source through all stages into the target; rises while one is on its way',
  ],
  applyRows: ['waybill_apply_rows_total', 'Row changes applied to the target'],
  applyBatch: ['waybill_apply_batch_seconds', 'Duration of a target transaction'],
  quarantineKeys: ['waybill_quarantine_keys', 'Keys held in quarantine'],
  tableLeftOut: [
    'waybill_table_left_out',
    '1 for a new table of a source that cannot be captured; /status says why; absent otherwise',
  ],
  tableStopped: [
    'waybill_table_stopped',
    '1 for a table that its flow cannot follow and no longer writes, until it is read again; absent otherwise',
  ],
  driftRows: ['waybill_drift_rows', 'Rows that differ between source and target: confirmed, not in flight'],
  driftTables: ['waybill_drift_tables', 'Tables of which rows differ; absent until that is known'],
  driftInFlight: [
    'waybill_drift_in_flight_buckets',
    'Buckets of the latest comparison that differed only because of changes under way',
  ],
  driftVerified: [
    'waybill_drift_verified_timestamp_seconds',
    'Everything that the source had committed up to this moment was proven equal in the target',
  ],
  driftAwaited: [
    'waybill_drift_awaited_timestamp_seconds',
    'Since when a proof has been wanting of a flow that this process has not seen proven; absent once it has',
  ],
  driftCoverage: [
    'waybill_drift_coverage_ratio',
    'Share of rows that the latest comparison to be finished has settled',
  ],
  driftProgress: [
    'waybill_drift_progress_ratio',
    'Share of rows that the comparison under way has been through; absent while none is',
  ],
} as const;
