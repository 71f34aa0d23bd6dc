/** What `waybill status` says of a source, of whatever kind. */
export interface SourceStatus {
  readonly state: string;
  readonly position?: string;
  /** Bytes of the source's log behind the end of the stream. */
  readonly behindBytes?: number;
  readonly lagSeconds?: number;
  readonly retainedLogBytes?: number;
  readonly slotActive?: boolean;
  readonly snapshot?: string;
  readonly detail?: string;
}
