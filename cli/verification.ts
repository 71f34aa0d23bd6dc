/** Composes comparisons: sides, stream, repairs. Shared by `waybill verify` and by the schedule of `waybill run`. */
import { readFirstReadings } from '../capture/first-readings.ts';
import { rereadRows } from '../capture/reread.ts';
import { cdcStreamName } from '../core/cdc-stream.ts';
import { ColumnRules } from '../core/column-rules.ts';
import type { Config } from '../core/config.ts';
import { asReplicationError, messageOf, ReplicationError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import { openBucket } from '../core/lease.ts';
import type { Nats } from '../core/nats.ts';
import { closeSides, flowTables, openSides, placeOf } from '../monitoring/drift/open-sides.ts';
import type { DriftStore } from '../monitoring/drift/drift-store.ts';
import type { DriftReport, FlowOutcome, TableOutcome } from '../monitoring/drift/outcome.ts';
import { oneAtATime, type TurnOptions } from '../monitoring/drift/one-at-a-time.ts';
import { runSchedule } from '../monitoring/drift/schedule.ts';
import { verifyFlow, type Repairer } from '../monitoring/drift/verify-flow.ts';
import { untilAborted } from '../core/run-service.ts';
import { audit } from './audit.ts';
import { hiddenColumns } from './console/hidden-columns.ts';
import { withChosenServer } from './source-server.ts';

export interface VerifyOptions {
  readonly nats: Nats;
  readonly repair: boolean;
  readonly resume: boolean;
  /** Who compares, as others are told that want to; and how long to wait for the end of another comparison. */
  readonly turn: Omit<TurnOptions, 'signal'>;
  readonly maxLoad?: number | undefined;
  readonly signal: AbortSignal;
  readonly report?: Pick<DriftReport, 'compared' | 'coverage'>;
  /** Called before the comparison with what is kept of earlier ones. */
  readonly onStore?: (store: DriftStore) => Promise<void>;
  /** How long a flow of records waits for deliveries that are due by then, in milliseconds. */
  readonly deliveryMs?: number;
  /** Who asked, where it was not the user of this process. */
  readonly actor?: string;
}

/** What a comparison has asked to be mended: for the audit log, whatever ends it. */
export class Repairs {
  readonly #tables = new Map<string, { asked: number; left: number | null }>();

  asked(schema: string, table: string, rows: number): void {
    this.#tables.set(`${schema}.${table}`, { asked: rows, left: null });
  }

  compared({ schema, name, repaired }: TableOutcome): void {
    if (repaired !== undefined && repaired.asked > 0)
      this.#tables.set(`${schema}.${name}`, { asked: repaired.asked, left: repaired.left.length });
  }

  /** `left` is null where it is not known what the repair has left. */
  get tables(): { readonly table: string; readonly asked: number; readonly left: number | null }[] {
    return [...this.#tables].map(([table, rows]) => ({ table, ...rows }));
  }
}

export interface ComparisonOptions extends VerifyOptions {
  readonly repairs: Repairs;
}

/** Compares one flow, a mirror or one of records, when nobody else does. Throws classified errors. */
export async function verifyOnce(config: Config, flow: string, options: VerifyOptions): Promise<FlowOutcome> {
  const bucket = await openBucket(options.nats, config.nats);
  return await oneAtATime(bucket, flow, { ...options.turn, signal: options.signal }, (signal) =>
    compareNow(config, flow, { ...options, signal }),
  );
}

async function compareNow(config: Config, flow: string, options: VerifyOptions): Promise<FlowOutcome> {
  const records = config.canonicalFlows[flow];
  const repairs = new Repairs();
  const noted = { ...options, repairs };
  const write = (): Promise<void> =>
    auditRepairs(config, flow, (records ?? config.flows[flow]!).to, repairs, options.actor);
  let outcome: FlowOutcome;
  try {
    if (records === undefined) outcome = await verifyMirror(config, flow, noted);
    else {
      // A process that compares mirrors alone holds no mappings.
      const { verifyRecordsOnce } = await import('./record-verification.ts');
      outcome = await verifyRecordsOnce(config, flow, noted);
    }
  } catch (thrown) {
    // What it had repaired by then is on record all the same.
    await write().catch((unwritten: unknown) => {
      const { code, message } = asReplicationError(thrown);
      throw new ReplicationError(
        code,
        `${message}; what was repaired before is not on record: ${messageOf(unwritten)}`,
        {
          cause: thrown,
        },
      );
    });
    throw thrown;
  }
  await write();
  return outcome;
}

async function auditRepairs(
  config: Config,
  flow: string,
  target: string,
  { tables }: Repairs,
  actor: string | undefined,
): Promise<void> {
  if (tables.length === 0) return;
  await audit(config, [target], {
    ...(actor === undefined ? {} : { actor }),
    action: 'repair',
    subject: `flow ${flow}`,
    detail: { tables },
  });
}

async function verifyMirror(config: Config, flow: string, options: ComparisonOptions): Promise<FlowOutcome> {
  const settings = config.flows[flow]!;
  const { nats, report, repairs, signal } = options;
  const bucket = await openBucket(nats, config.nats);
  const sides = await openSides(await withChosenServer(config, flow), flow);
  const repairer: Repairer = {
    reread: (schema, table, keys, stop) =>
      rereadRows({ nats, config: config.nats, source: settings.mirror, schema, table, keys, signal: stop }),
  };
  try {
    await options.onStore?.(sides.store);
    return await verifyFlow({
      flow,
      sides,
      nats,
      stream: cdcStreamName(config.nats.prefix, settings.mirror),
      includes: flowTables(config, flow),
      placeOf: placeOf(config, flow),
      rules: ColumnRules.compile(config.sources[settings.mirror]!.columns),
      zeroDates: settings.zero_dates,
      marksDeleted: settings.deletes === 'soft',
      ignoreExtra: settings.deletes === 'ignore' || settings.truncate === 'ignore',
      hides: hiddenColumns(config, flow),
      deleteExtra: settings.extra_rows === 'delete',
      maxLoad: options.maxLoad ?? config.monitoring.verify.max_load,
      graceMs: config.monitoring.verify.grace,
      resume: options.resume,
      repairer: options.repair ? repairer : undefined,
      loading: () => readFirstReadings(bucket, settings.mirror),
      signal,
      onRepair: (schema, table, asked) => repairs.asked(schema, table, asked),
      onTable: (table) => {
        repairs.compared(table);
        // Of a table that was left out stands what was found before.
        if (table.progress.leftOut === undefined) report?.compared(table);
      },
      ...(report === undefined ? {} : { onShare: (share) => report.coverage(share) }),
    });
  } finally {
    await closeSides(sides);
  }
}

export interface VerifyStageOptions {
  readonly holder: string;
  readonly leaseTtlMs: number;
  readonly log: Logger;
  readonly report: DriftReport;
  readonly signal: AbortSignal;
}

/** A comparison waits at least so long for deliveries that are due by then. */
const MIN_DELIVERY_MS = 90_000;

/** Compares a flow as often as the configuration says, until the signal aborts. */
export async function runVerifyStage(config: Config, flow: string, options: VerifyStageOptions): Promise<void> {
  const { repair, every } = config.monitoring.verify;
  let known = false;
  const report: DriftReport = {
    ...options.report,
    left: () => {
      known = false;
      options.report.left();
    },
  };
  const onStore = async (store: DriftStore): Promise<void> => {
    if (known) return;
    const at = await store.provenAt();
    if (at !== undefined) report.proven(at);
    report.standing(await store.openRows());
    known = true;
  };
  await runSchedule({
    flow,
    everyMs: every!,
    nats: config.nats,
    ...options,
    report,
    verify: async (nats, signal) => {
      const verify = (): Promise<FlowOutcome> =>
        verifyOnce(config, flow, {
          nats,
          repair,
          resume: true,
          turn: {
            as: 'the schedule',
            leaseTtlMs: options.leaseTtlMs,
            onWaiting: (other) => options.log.info({ flow, other }, 'waits for another comparison to end'),
          },
          signal,
          report,
          // Whatever is delivered by a timetable is proven once it has been.
          deliveryMs: Math.max(MIN_DELIVERY_MS, every!),
          onStore,
        });
      return await (config.canonicalFlows[flow] === undefined ? verify() : inTurn(verify, signal));
    },
  });
}

let turn: Promise<unknown> = Promise.resolve();

/** One after the other: each keeps what a flow of records is made of in memory. Rejects when the signal aborts. */
async function inTurn<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  const before = turn;
  const running = untilAborted(before, signal).then(work);
  // Who gives its turn up before it has come must not let the next one in.
  turn = Promise.allSettled([before, running]);
  return await running;
}
