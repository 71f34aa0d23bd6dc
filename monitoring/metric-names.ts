/** Every series that Waybill exports: name and help in one place. Units are in the names. */
export const METRIC = {
  captureState: ['waybill_capture_state', 'State of a capture: 1 for the one it is in'],
  captureLag: [
    'waybill_capture_lag_seconds',
    'Age of the newest source commit not yet stored in the stream; absent while unknown, 0 when idle',
  ],
  captureRetained: ['waybill_capture_retained_log_bytes', 'WAL bytes that the source keeps for the slot'],
  captureRows: ['waybill_capture_rows_total', 'Row changes read from the source log'],
  captureTransactions: ['waybill_capture_transactions_total', 'Source transactions stored in the stream'],
  publishSeconds: ['waybill_stream_publish_seconds', 'Frame publish to acknowledgement'],
  pendingFrames: ['waybill_stream_pending_frames', 'Frames in the stream that the flow has not applied'],
  flowState: ['waybill_apply_state', 'State of a flow: 1 for the one it is in'],
  applyLag: ['waybill_apply_lag_seconds', 'Source commit to target commit; absent while unknown, 0 when idle'],
  applyRows: ['waybill_apply_rows_total', 'Row changes applied to the target'],
  applyBatch: ['waybill_apply_batch_seconds', 'Duration of a target transaction'],
  quarantineKeys: ['waybill_quarantine_keys', 'Keys held in quarantine'],
  driftRows: ['waybill_drift_rows', 'Rows that differ between source and target: confirmed, not in flight'],
  driftInFlight: [
    'waybill_drift_in_flight_buckets',
    'Buckets of the latest comparison that differed only because of changes under way',
  ],
  driftVerified: [
    'waybill_drift_verified_timestamp_seconds',
    'Everything that the source had committed up to this moment was proven equal in the target',
  ],
  driftCoverage: ['waybill_drift_coverage_ratio', 'Share of rows that the latest comparison has been through'],
} as const;
