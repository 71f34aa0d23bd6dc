/** The connection that a binlog comes over: session variables, dump request, back-pressure, liveness, errors. */
import type { ConnectionOptions } from 'mysql2';
import { ReplicationError } from '../../core/errors.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import type { BinlogHandler, Flavour } from './binlog-handler.ts';

export interface BinlogStreamOptions {
  readonly flavour: Flavour;
  /** Host, port, user, password, ssl: what mysql2 takes. */
  readonly connection: ConnectionOptions;
  /** Id under which this reader appears to the source: unlike every server's and other reader's. */
  readonly serverId: number;
  /** MySQL: stable for each Waybill installation and source; the source refuses a second reader by it. */
  readonly replicaUuid: string;
  /** What has been taken already: everything else is sent. */
  readonly start: GtidSet;
  /** How often an idle source says that it lives; after three times that without a sign the stream fails. */
  readonly heartbeatMs: number;
  readonly handler: BinlogHandler;
  /** Called once for a run of events that arrived together. */
  readonly onActivity: () => void;
}

/** One run over a source's log. A failed or ended stream is not used again. */
export class BinlogStream {
  readonly #options: BinlogStreamOptions;

  constructor(options: BinlogStreamOptions) {
    this.#options = options;
  }

  /**
   * Streams until `stop` (resolves) or an error: `source_unreachable` (connection lost, server stopped, no
   * heartbeat), `source_auth`, `source_privilege`, `source_log_purged`, `source_diverged`,
   * `source_server_id_clash`, `source_binlog_settings`, `source_protocol`, and whatever the handler threw.
   */
  async run(): Promise<void> {
    throw new ReplicationError('internal', `not built yet: ${this.#options.flavour}`);
  }

  async stop(): Promise<void> {}

  /** Back-pressure: nothing more is delivered until `resume`; the source waits. */
  pause(): void {}

  resume(): void {}

  /** Delivers nothing more until `work` is done; a rejection of it fails the stream. For use inside handler calls. */
  holdUntil(work: Promise<void>): void {
    void work;
  }

  /** File and offset of the source's log up to which events have been delivered. */
  get file(): string {
    return '';
  }

  get offset(): number {
    return 0;
  }
}
