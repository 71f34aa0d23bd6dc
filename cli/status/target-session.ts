/** What a target says of its flows: where they stand, what waits in quarantine, when they were proven equal. */
import { targetOf, type TargetDesk } from '../../apply/target-kind.ts';
import type { PositionRow } from '../../apply/target-store.ts';
import type { TargetConfig } from '../../core/config.ts';
import type { TableNotice } from '../../core/metrics.ts';
import type { Verification } from '../../monitoring/drift/verification.ts';

export interface TargetReading {
  readonly positions: readonly PositionRow[];
  /** Changes in quarantine, by flow. */
  readonly quarantined: ReadonlyMap<string, number>;
  /** Tables that are not followed, by flow. */
  readonly tables: ReadonlyMap<string, readonly TableNotice[]>;
  /** By flow; those that were never compared are not in it. */
  readonly verifications: ReadonlyMap<string, Verification>;
}

/** Comparisons take minutes: looking for their results more often than this is of no use. */
const VERIFICATIONS_EVERY_MS = 10_000;

export class TargetSession {
  readonly #flows: readonly string[];
  readonly #desk: TargetDesk;
  readonly #results: Results;
  #verifications: { atMs: number; of: Map<string, Verification> } | undefined;

  private constructor(flows: readonly string[], desk: TargetDesk, results: Results) {
    this.#flows = flows;
    this.#desk = desk;
    this.#results = results;
  }

  /** Connects. Throws `target_unreachable`, `target_auth`. */
  static async open(settings: TargetConfig, flows: readonly string[]): Promise<TargetSession> {
    const desk = await (await targetOf(settings)).openDesk('waybill status');
    try {
      return new TargetSession(flows, desk, await openResults(settings));
    } catch (thrown) {
      await desk.close();
      throw thrown;
    }
  }

  async read(): Promise<TargetReading> {
    const positions = await this.#desk.readPositions();
    const quarantined = await this.#desk.countQuarantine();
    const tables = new Map<string, readonly TableNotice[]>();
    for (const flow of this.#flows) tables.set(flow, await this.#desk.tableNotices(flow));
    const nowMs = performance.now();
    if (this.#verifications === undefined || nowMs - this.#verifications.atMs > VERIFICATIONS_EVERY_MS)
      this.#verifications = { atMs: nowMs, of: await this.#results.read(this.#flows) };
    return { positions, quarantined, tables, verifications: this.#verifications.of };
  }

  async close(): Promise<void> {
    await Promise.all([this.#desk.close(), this.#results.close()]);
  }
}

interface Results {
  read(flows: readonly string[]): Promise<Map<string, Verification>>;
  close(): Promise<void>;
}

/** Where the results of comparisons are kept. */
async function openResults(settings: TargetConfig): Promise<Results> {
  const { kind, url, tls } = settings;
  if (kind === 'postgres') {
    const { openSession } = await import('../../monitoring/drift/postgres/session.ts');
    const { readVerifications } = await import('../../monitoring/drift/postgres/read-verifications.ts');
    const client = await openSession('target', { url, tls }, 'waybill status');
    return { read: (flows) => readVerifications(client, flows), close: () => client.end().catch(() => undefined) };
  }
  const { CompareSession } = await import('../../monitoring/drift/mysql/session.ts');
  const { readVerifications } = await import('../../monitoring/drift/mysql/read-verifications.ts');
  const session = await CompareSession.open('target', { kind, url, tls }, 'waybill status');
  return { read: (flows) => readVerifications(session, flows), close: async () => session.close() };
}
