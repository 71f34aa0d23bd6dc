/** Reads the log of a source from where the stream of frames ends: in slices while far behind, then as it is written. */
import { tmpdir } from 'node:os';
import type pg from 'pg';
import type { PostgresSourceConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { formatLsn, formatPosition, type PgPosition } from '../../core/position.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { sessionName } from '../../core/stale-sessions.ts';
import type { HeldCapture } from '../capture-loop.ts';
import type { PublishLoop } from '../publish-loop.ts';
import { CatchUpReader } from './catch-up.ts';
import { connectSource, endClient } from './connection.ts';
import { ReplicationStream, type LogReader } from './replication-stream.ts';
import { logDistanceBytes, readSlot } from './slot.ts';
import { lacksConnections, lacksRoom } from './source-error.ts';
import type { SpoolSwitch } from './spool-switch.ts';
import type { TransactionAssembler } from './transaction-assembler.ts';

export interface LogFollowerOptions {
  readonly held: HeldCapture<PostgresSourceConfig>;
  readonly client: pg.Client;
  readonly slot: string;
  readonly publication: string;
  readonly markPrefix: string;
  readonly spooling: SpoolSwitch;
  readonly assembler: TransactionAssembler;
  readonly publishing: PublishLoop<PgPosition>;
}

/** From this much unread log on it is read in slices; a walsender is quicker to bring what is new. */
const FAR_BEHIND_BYTES = 16 << 20;
/** Errors after which transactions are received at their commit for a while. */
const OF_SPOOLING: ReadonlySet<string> = new Set(['spool_full', 'spool_failed', 'spool_unsuited', 'source_query']);
const SLOT_RELEASED_MS = 10_000;
const PAUSE_MS = 50;
/** So long the beginning of a stream may wait for a source that writes nothing. */
const MOST_QUIET_MS = 1000;

export class LogFollower {
  readonly #o: LogFollowerOptions;
  /** What reads the log now: slices of it, or the replication stream. */
  #reader: LogReader | undefined;
  #stream: ReplicationStream | undefined;

  constructor(options: LogFollowerOptions) {
    this.#o = options;
  }

  get reader(): LogReader | undefined {
    return this.#reader;
  }

  /** The replication stream, once it is what reads the log. */
  get stream(): ReplicationStream | undefined {
    return this.#stream;
  }

  /** Reads until the signal aborts, or the connection fails or is closed. */
  async run(signal: AbortSignal): Promise<void> {
    if (await this.#catchUp(signal)) await this.#whileQuiet(signal);
    while (!signal.aborted) {
      if ((await this.#follow(signal)) === 'closed') return;
      await this.#slotReleased(signal);
    }
  }

  /** Streams from where the assembler stands. `again`: with or without a spool from now on. */
  async #follow(signal: AbortSignal): Promise<'closed' | 'again'> {
    const { held, slot, publication, markPrefix, assembler, publishing, spooling } = this.#o;
    const { settings, name, installation } = held;
    const keeps = spooling.isOn;
    const stream = new ReplicationStream({
      settings,
      applicationName: sessionName('stream', name, installation),
      slot,
      publication,
      startLsn: assembler.boundary.lsn,
      handler: assembler,
      onActivity: () => publishing.wake(),
      onKeepalive: (walEnd) => assembler.advance(walEnd),
      ...(keeps
        ? { spool: { folder: settings.spool_dir ?? tmpdir(), mostBytes: settings.spool_bytes, markPrefix } }
        : {}),
    });
    this.#reader = stream;
    this.#stream = stream;
    if (publishing.waiting) stream.pause();
    const ended = new AbortController();
    const until = AbortSignal.any([signal, ended.signal]);
    const onStop = (): void => void stream.stop();
    signal.addEventListener('abort', onStop, { once: true });
    const left = keeps || settings.streaming === 'off' ? Promise.resolve(false) : this.#again(stream, until);
    // Met below, unless the stream itself fails.
    left.catch(() => {});
    try {
      await stream.run();
    } catch (thrown) {
      if (!keeps) throw thrown;
      this.#giveSpoolUp(thrown);
      return 'again';
    } finally {
      signal.removeEventListener('abort', onStop);
      ended.abort();
    }
    return (await left) ? 'again' : 'closed';
  }

  /**
   * Ends a stream that is without a spool: after some time, and once all has been decoded that was written when it began, or
   * a transaction that cannot be kept would never be reached. False when the stream ended before.
   */
  async #again(stream: ReplicationStream, until: AbortSignal): Promise<boolean> {
    const { client, slot, assembler, spooling } = this.#o;
    const began = await readSlot(client, slot);
    await abortableDelay(spooling.waitMs, until);
    while (!until.aborted && assembler.boundary.lsn < (began?.logEnd ?? 0n)) await abortableDelay(PAUSE_MS, until);
    if (until.aborted) return false;
    stream.leave(() => !assembler.inTransaction);
    return true;
  }

  /**
   * Invariant 1: what was kept is sent again, for nothing of it was confirmed. An error of the source's own may be one of
   * sending transactions in progress: whether it is shows without. Throws what has another reason.
   */
  #giveSpoolUp(thrown: unknown): void {
    const { held, assembler, spooling } = this.#o;
    if (!(thrown instanceof ReplicationError) || !OF_SPOOLING.has(thrown.code)) throw thrown;
    // Without one it would not begin either way.
    if (lacksConnections(thrown)) throw thrown;
    spooling.turnOff();
    held.report.spoolGivenUp(thrown.code);
    // Of a transaction that was handed on in part the rest is taken by a session that begins afresh.
    if (assembler.inTransaction) throw thrown;
    const { code, message, remedy } = thrown;
    const facts = { code, position: formatLsn(assembler.boundary.lsn), ...(code === 'source_query' ? {} : { remedy }) };
    const text = `transactions are received at their commit for ${spooling.offMs / 60_000} minutes: ${message}`;
    if (code === 'spool_unsuited') held.log.info(facts, text);
    else held.log.warn(facts, text);
  }

  /** A walsender needs a moment to notice that nobody listens any more. */
  async #slotReleased(signal: AbortSignal): Promise<void> {
    const { client, slot } = this.#o;
    const givenUpMs = performance.now() + SLOT_RELEASED_MS;
    while (!signal.aborted && performance.now() < givenUpMs) {
      if ((await readSlot(client, slot))?.active !== true) return;
      await abortableDelay(PAUSE_MS, signal);
    }
  }

  /**
   * To begin a stream the source decodes what the slot has kept once more, a system call for each record: as much work as all
   * slices together, at the very time when flows write what these brought. While nothing new is written, that can wait.
   */
  async #whileQuiet(signal: AbortSignal): Promise<void> {
    const { client, assembler } = this.#o;
    const { lsn } = assembler.boundary;
    const untilMs = performance.now() + MOST_QUIET_MS;
    const bytes = await logDistanceBytes(client, lsn);
    do await abortableDelay(PAUSE_MS, signal);
    while (!signal.aborted && performance.now() < untilMs && (await logDistanceBytes(client, lsn)) === bytes);
  }

  /** Reads slices while the stream is far behind. Gives whether it was, and is not any more. */
  async #catchUp(signal: AbortSignal): Promise<boolean> {
    const { slot, publication, client, assembler, publishing } = this.#o;
    const { settings, name, log, installation } = this.#o.held;
    if ((await logDistanceBytes(client, publishing.acked.lsn)) < FAR_BEHIND_BYTES) return false;
    const own = await connectSource(settings, sessionName('slices', name, installation));
    const onStop = (): void => void endClient(own);
    signal.addEventListener('abort', onStop, { once: true });
    try {
      const reader = new CatchUpReader({
        client: own,
        slot,
        publication,
        from: publishing.acked,
        handler: assembler,
        onActivity: () => publishing.wake(),
      });
      if (!(await reader.open())) {
        log.info({ slot }, 'far behind, and the source has no slot to spare for reading in slices: streaming');
        return false;
      }
      log.info({ position: formatPosition(publishing.acked) }, 'far behind: reading the log in slices');
      this.#reader = reader;
      while (!signal.aborted) {
        const more = await reader.readSlice(signal);
        if (!more && (await logDistanceBytes(client, assembler.boundary.lsn)) < FAR_BEHIND_BYTES) break;
      }
      log.info({ position: formatPosition(assembler.boundary) }, 'caught up: streaming');
      return !signal.aborted;
    } catch (thrown) {
      if (signal.aborted) return false;
      // A slice is collected on the source before it comes, a transaction of any size with it. A walsender needs no room.
      if (!(thrown instanceof ReplicationError) || !lacksRoom(thrown) || assembler.inTransaction) throw thrown;
      log.warn({ code: thrown.code, position: formatPosition(assembler.boundary) }, `streaming: ${thrown.message}`);
      return false;
    } finally {
      signal.removeEventListener('abort', onStop);
      await endClient(own);
    }
  }
}
