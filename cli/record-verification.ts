/** Composes the comparison of a flow of records with its sources: scans, mappings, the target, repairs. */
import type { KV } from '@nats-io/kv';
import type { CanonicalFlowConfig } from '../core/canonical-config.ts';
import type { Config } from '../core/config.ts';
import { ColumnRules } from '../core/column-rules.ts';
import { ReplicationError } from '../core/errors.ts';
import { openBucket } from '../core/lease.ts';
import type { Nats } from '../core/nats.ts';
import { abortableDelay } from '../core/run-service.ts';
import { installationId } from '../core/stale-sessions.ts';
import { readFirstReadings } from '../capture/first-readings.ts';
import { rereadRows } from '../capture/reread.ts';
import { openTableScan, type TableScan } from '../capture/table-scan.ts';
import { openLog, openRecordsTarget } from '../monitoring/drift/open-sides.ts';
import type { FlowOutcome } from '../monitoring/drift/outcome.ts';
import { Pace } from '../monitoring/drift/pace.ts';
import { verifyRecords, type RecordRepairer } from '../monitoring/drift/records/verify-records.ts';
import type { DriftSource, KeyTexts } from '../monitoring/drift/side.ts';
import { openReader, type SqlReader } from '../monitoring/sql-reader.ts';
import { loadFlowPlan, type FlowPlan } from '../transform/flow-plan.ts';
import { encryptedGroups } from '../transform/proof/encrypted-groups.ts';
import type { OpenReason } from '../transform/proof/provable.ts';
import { ProvenRecords, type HeldInTarget } from '../transform/proof/proven-records.ts';
import { RecomputedFlow, type SourceRows } from '../transform/proof/recomputed-flow.ts';
import { readAgain, readRequest, requestAgain, requestAnew } from '../transform/request.ts';
import { hiddenColumns } from './console/hidden-columns.ts';
import { withChosenServers } from './source-server.ts';
import type { ComparisonOptions } from './verification.ts';

/** How long a comparison that a person waits for waits for deliveries. */
const DELIVERY_MS = 90_000;
/** How long a transform may take to write all records anew. */
const REWRITE_MS = 600_000;
const POLL_MS = 200;
const LOADING_POLL_MS = 1000;
/** Records of one request: it is one message of NATS. */
const RECORDS_AT_ONCE = 1000;

interface OpenSource {
  readonly scan: TableScan;
  readonly log: DriftSource;
}

/** Compares the records of a canonical flow with its sources. Throws classified errors. */
export async function verifyRecordsOnce(
  config: Config,
  flow: string,
  options: ComparisonOptions,
): Promise<FlowOutcome> {
  const settings = config.canonicalFlows[flow]!;
  const { nats, signal, report, repairs } = options;
  const { verify } = config.monitoring;
  const maxLoad = options.maxLoad ?? verify.max_load;
  const plan = await loadFlowPlan(flow, settings);
  const applicationName = `waybill verify ${flow}`;
  const bucket = await openBucket(nats, config.nats);
  const reading = await withChosenServers(config, Object.keys(settings.from));
  const pace = new Pace(maxLoad, signal);
  const work = async <T>(piece: () => Promise<T>): Promise<T> => (await pace.work(piece)).result;
  const closing: (() => Promise<void>)[] = [];
  try {
    const sources = new Map<string, OpenSource>();
    for (const name of Object.keys(settings.from)) {
      const scan = await openTableScan(reading.sources[name]!, applicationName, work);
      closing.push(() => scan.close());
      const log = await openLog(reading, name, applicationName);
      closing.push(() => log.close());
      sources.set(name, { scan, log });
    }
    const { target, store } = await openRecordsTarget(config, flow, applicationName);
    closing.push(
      () => target.close(),
      () => store.close(),
    );
    const reader = await openReader('target', config.targets[settings.to]!, applicationName);
    closing.push(() => reader.close());
    await options.onStore?.(store);
    const nudge = async (): Promise<void> => {
      for (const { log } of sources.values()) await log.nudge();
    };
    const { prefix } = config.nats;
    const recomputed = new RecomputedFlow({
      plan,
      nats,
      prefix,
      installation: await installationId(bucket),
      sources: new Map([...sources].map(([name, source]) => [name, rowsOf(source)])),
      work,
      signal,
    });
    closing.push(() => recomputed.close());
    // Others wait for their turn meanwhile, however long this flow's deliveries take.
    const loadingMs = Math.min(options.deliveryMs ?? DELIVERY_MS, DELIVERY_MS);
    await loaded(recomputed, flow, { bucket, signal, atMostMs: loadingMs });
    const expected = new ProvenRecords({
      flow: recomputed,
      nats,
      prefix,
      writtenTo: writtenTo(config, settings),
      never: neverProven(plan, config, sources),
      heldInTarget: () => readHeld(reader, flow),
      nudge,
      signal,
    });
    return await verifyRecords({
      flow,
      expected,
      target,
      store,
      place: { schema: settings.schema, name: plan.entity.name },
      ignoreExtra: settings.deletes === 'ignore',
      deleteExtra: settings.extra_rows === 'delete',
      hides: hiddenColumns(config, flow),
      maxLoad,
      graceMs: verify.grace,
      deliveryMs: options.deliveryMs ?? DELIVERY_MS,
      repairer: options.repair ? repairer(config, flow, nats, recomputed) : undefined,
      signal,
      onRepair: (schema, table, asked) => repairs.asked(schema, table, asked),
      onTable: (table) => {
        repairs.compared(table);
        report?.compared(table);
      },
      ...(report === undefined ? {} : { onShare: (share) => report.coverage(share) }),
    });
  } finally {
    for (const close of closing.toReversed()) await close();
  }
}

/**
 * Waits until the tables that records are made of have been read for the first time: what is missing before is on its way.
 * Throws `verify_stalled` where that takes too long.
 */
async function loaded(
  { tables }: RecomputedFlow,
  flow: string,
  { bucket, signal, atMostMs }: { bucket: KV; signal: AbortSignal; atMostMs: number },
): Promise<void> {
  const sources = [...new Set(tables.map(({ source }) => source))];
  const started = performance.now();
  for (;;) {
    const reading = new Map<string, ReadonlySet<string>>();
    for (const source of sources) reading.set(source, await readFirstReadings(bucket, source));
    const waits = tables.filter(({ source, table }) => reading.get(source)!.has(`${table.schema}.${table.name}`));
    if (waits.length === 0) return;
    if (performance.now() - started > atMostMs)
      throw new ReplicationError(
        'verify_stalled',
        `flow ${flow} is not compared before ${waits.map(({ source, table }) => `${source} ${table.schema}.${table.name}`).join(', ')} has been read for the first time (waybill status shows how far it is)`,
      );
    await abortableDelay(LOADING_POLL_MS, signal);
    signal.throwIfAborted();
  }
}

function rowsOf({ scan, log }: OpenSource): SourceRows {
  return {
    tables: scan.tables,
    pieces: (table) => scan.pieces(table),
    visible: () => log.visible(),
    watermark: () => log.watermark(),
    nudge: () => log.nudge(),
  };
}

/**
 * The sources that records of an entity may be written to: all of a flow's where any outbound flow has the entity. Whether
 * a target is the same system as a source cannot be told by their urls: hosts have several names, and databases replicas.
 */
function writtenTo(config: Config, { canonical, from }: CanonicalFlowConfig): Set<string> {
  const goesOut = Object.values(config.outboundFlows).some((flow) => flow.outbound === canonical);
  return new Set(goesOut ? Object.keys(from) : []);
}

/** Groups that no scan can prove. */
function neverProven(
  plan: FlowPlan,
  config: Config,
  sources: ReadonlyMap<string, OpenSource>,
): Map<string, OpenReason> {
  const never = new Map<string, OpenReason>();
  for (const [group, rule] of plan.ownership.rules)
    if (rule.kind === 'merge' && rule.merge.merge === 'delta') never.set(group, 'changes');
  const encrypted = new Map<string, Set<string>>();
  for (const [name, { scan }] of sources) {
    const rules = ColumnRules.compile(config.sources[name]!.columns);
    const columns = scan.tables.flatMap((table) =>
      table.columns
        .filter((column) => {
          const rule = rules.ruleOf(table.schema, table.name, column.name);
          return rule !== undefined && rule !== 'exclude' && rule.rule === 'encrypt';
        })
        .map((column) => column.name),
    );
    encrypted.set(name, new Set(columns));
  }
  for (const group of encryptedGroups(plan, encrypted)) never.set(group, 'encrypted');
  return never;
}

/** What a flow's mappings hold, as the target lists it. */
async function readHeld(reader: SqlReader, flow: string): Promise<HeldInTarget[]> {
  const table = reader.kind === 'postgres' ? 'quarantine' : 'held';
  const there = await reader.query(
    `SELECT 1 AS n FROM information_schema.tables WHERE table_schema = 'waybill' AND table_name = ?`,
    [table],
  );
  if (there.length === 0) return [];
  const only = reader.kind === 'postgres' ? ' AND hold IS NOT NULL' : '';
  const rows = await reader.query(`SELECT ${reader.quote('key')} AS k FROM waybill.${table} WHERE flow = ?${only}`, [
    flow,
  ]);
  return rows.flatMap(({ k }): HeldInTarget[] => {
    const parsed = JSON.parse(k ?? 'null') as unknown;
    if (!Array.isArray(parsed)) return [];
    const [key, group] = parsed as unknown[];
    return typeof key === 'string' && typeof group === 'string' ? [{ key, group }] : [];
  });
}

function repairer(config: Config, flow: string, nats: Nats, recomputed: RecomputedFlow): RecordRepairer {
  return {
    rewrite: async (records, signal) => {
      const bucket = await openBucket(nats, config.nats);
      if (records === 'all') {
        const id = await requestAnew(config.nats, flow);
        await answered(flow, async () => (await readRequest(bucket, flow))?.id === id, signal);
        return;
      }
      // The tenant is a column of the table, and no field of the record.
      const fields = (keys: readonly KeyTexts[]): KeyTexts[] => keys.map((key) => key.slice(1));
      const [again, gone] = [fields(records.again), fields(records.gone)];
      for (let at = 0; at < Math.max(again.length, gone.length); at += RECORDS_AT_ONCE) {
        const piece = (keys: readonly KeyTexts[]): KeyTexts[] => keys.slice(at, at + RECORDS_AT_ONCE);
        const id = await requestAgain(bucket, flow, { again: piece(again), gone: piece(gone) });
        await answered(flow, async () => (await readAgain(bucket, flow))?.id === id, signal);
      }
    },
    reread: async (signal) => {
      for (const { source, table } of recomputed.tables) {
        const { schema, name } = table;
        await rereadRows({ nats, config: config.nats, source, schema, table: name, keys: 'all', signal });
      }
    },
  };
}

/** Waits until the transform of a flow has done what it was asked for. Throws `verify_stalled`. */
async function answered(flow: string, waits: () => Promise<boolean>, signal: AbortSignal): Promise<void> {
  const started = performance.now();
  while (await waits()) {
    signal.throwIfAborted();
    if (performance.now() - started > REWRITE_MS)
      throw new ReplicationError(
        'verify_stalled',
        `no transform of ${flow} wrote records again in ${REWRITE_MS / 60_000} minutes`,
      );
    await abortableDelay(POLL_MS, signal);
  }
}
