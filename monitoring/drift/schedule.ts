/** Compares again and again: one process at a time for each flow, and a comparison that was interrupted goes on. */
import { asReplicationError, policyFor, ReplicationError } from '../../core/errors.ts';
import { acquireLease, openBucket } from '../../core/lease.ts';
import type { NatsConfig } from '../../core/config.ts';
import type { Logger } from '../../core/logger.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { abortableDelay, runService } from '../../core/run-service.ts';
import { countKinds, isProven, openFindings, type DriftReport, type FlowOutcome } from './outcome.ts';
import { noteProof, proofSince } from './proof-since.ts';

export interface ScheduleOptions {
  readonly flow: string;
  readonly everyMs: number;
  readonly nats: NatsConfig;
  readonly holder: string;
  readonly leaseTtlMs: number;
  readonly report: DriftReport;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** One comparison, or the rest of one that was interrupted. */
  readonly verify: (nats: Nats, signal: AbortSignal) => Promise<FlowOutcome>;
}

/** The least time between two comparisons: whoever waits to compare the flow has a turn then. */
const GIVE_WAY_MS = 500;

/**
 * Runs until the signal aborts. Errors that pass are tried again at once; others, of one comparison, at the time of the
 * next: what somebody has to mend is mended while this process runs, and a proof must not be wanting from then on.
 */
export async function runSchedule(options: ScheduleOptions): Promise<void> {
  const { flow, everyMs, holder, leaseTtlMs, report, log, signal } = options;
  await runService(
    async (run) => {
      const nats = await connectNats(options.nats, `waybill verify ${flow}`);
      try {
        const bucket = await openBucket(nats, options.nats);
        const lease = await acquireLease(bucket, `lease.verify.${flow}`, {
          holder,
          ttlMs: leaseTtlMs,
          signal: run.signal,
          onWaiting: () => report.left(),
        });
        if (lease === undefined) return;
        try {
          report.awaited(await proofSince(bucket, flow));
          while (!lease.signal.aborted) {
            const startedMs = performance.now();
            const outcome = await compare(options, nats, lease.signal);
            if (outcome !== undefined) {
              report.finished(outcome);
              if (isProven(outcome)) await noteProof(bucket, flow, outcome.startedAt);
              tell(log, outcome);
            }
            run.progressed();
            await abortableDelay(Math.max(GIVE_WAY_MS, everyMs - (performance.now() - startedMs)), lease.signal);
          }
          if (!run.signal.aborted) throw asReplicationError(lease.signal.reason);
        } catch (thrown) {
          if (run.signal.aborted) return;
          throw lease.signal.aborted
            ? new ReplicationError('lease_lost', `another process compares flow ${flow}`)
            : thrown;
        } finally {
          await lease.release();
        }
      } finally {
        await nats.close();
      }
    },
    { name: `verify ${flow}`, signal, log },
  );
}

/** One comparison; undefined where it failed for a reason that does not pass by itself, which is logged. */
async function compare(
  { verify, flow, log }: ScheduleOptions,
  nats: Nats,
  signal: AbortSignal,
): Promise<FlowOutcome | undefined> {
  try {
    return await verify(nats, signal);
  } catch (thrown) {
    const error = asReplicationError(thrown);
    if (signal.aborted || policyFor(error.code).action === 'retry') throw thrown;
    log.error(
      { flow, code: error.code, remedy: error.remedy, context: error.context },
      `not compared: ${error.message}`,
    );
    return undefined;
  }
}

function tell(log: Logger, outcome: FlowOutcome): void {
  for (const table of outcome.tables) {
    const findings = openFindings(table);
    if (findings.length > 0)
      log.warn(
        { flow: outcome.flow, table: `${table.schema}.${table.name}`, ...countKinds(findings) },
        'drift confirmed',
      );
  }
  const rows = outcome.tables.reduce((sum, table) => sum + table.progress.rows, 0);
  log.info(
    { flow: outcome.flow, rows, seconds: Math.round((Date.now() - outcome.startedAt.getTime()) / 1000) },
    'compared',
  );
}
