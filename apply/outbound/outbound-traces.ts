/** What an outbound flow leaves in the system that it writes to, beside the rows it was to write. */
export interface OutboundTrace {
  /** Names it, for people. */
  readonly what: string;
  /** Why this user cannot remove it, and how it goes; undefined where it can be removed. */
  readonly kept?: string;
}

/** Whose traces are looked for; `remove`: they are removed as they are found. */
export interface TracesOf {
  readonly flow: string;
  readonly installation: string;
  readonly remove: boolean;
}
