/** Compares all tables of one flow, and repairs what differs when asked to. */
import type { FlowConfig } from '../../core/config.ts';
import type { ColumnRules } from '../../core/column-rules.ts';
import { ReplicationError } from '../../core/errors.ts';
import type { Nats } from '../../core/nats.ts';
import type { TableFilter } from '../../core/table-pattern.ts';
import { passed } from './alignment.ts';
import { timeText } from './canonical-value.ts';
import { comparePlan, type ComparePlan } from './compare-plan.ts';
import { confirm, LookBack, type Comparison } from './confirm.ts';
import type { DriftStore } from './drift-store.ts';
import type { Finding } from './findings.ts';
import type { FlowOutcome, TableOutcome } from './outcome.ts';
import { Pace } from './pace.ts';
import { readImages, type HidesColumn } from './row-images.ts';
import type { DriftSource, DriftTarget, KeyTexts } from './side.ts';
import { newTableProgress, verifyTable, type TableProgress } from './verify-table.ts';

/** The connections of one verification. */
export interface Sides {
  readonly source: DriftSource;
  readonly scanner: DriftSource;
  readonly target: DriftTarget;
  readonly store: DriftStore;
}

/** Reads rows again through the normal path: source, stream, target. Resolves when the stream holds them. */
export interface Repairer {
  reread(schema: string, table: string, keys: readonly KeyTexts[] | 'all', signal: AbortSignal): Promise<void>;
}

/** Schema (MySQL: database), table, number of rows. */
export type OnRepair = (schema: string, table: string, asked: number) => void;

export interface FlowVerificationOptions {
  readonly flow: string;
  readonly sides: Sides;
  readonly nats: Nats;
  readonly stream: string;
  readonly includes: TableFilter;
  /** The schema (MySQL: database) of the target that tables of a schema of the source go to. */
  readonly placeOf: (schema: string) => string;
  /** What the flow makes of dates that the target does not have. */
  readonly zeroDates?: FlowConfig['zero_dates'];
  /** What the source does to columns before they reach the stream. */
  readonly rules?: ColumnRules | undefined;
  /** Deletes or truncations are not applied, so that extra rows are to be expected. */
  readonly ignoreExtra: boolean;
  /** Rows that go at the source stay in the target, marked, and do not count. */
  readonly marksDeleted?: boolean;
  /** Columns of the source whose values are not kept with findings. */
  readonly hides: HidesColumn;
  /** Extra rows are deleted by a repair. */
  readonly deleteExtra: boolean;
  readonly maxLoad: number;
  readonly graceMs: number;
  readonly maxFindings?: number;
  /** Go on with a run that was interrupted. */
  readonly resume: boolean;
  readonly repairer?: Repairer | undefined;
  /** The tables of the source (`schema.name`) whose rows the stream does not hold yet, since they are still being read. */
  readonly loading?: () => Promise<ReadonlySet<string>>;
  readonly signal: AbortSignal;
  /** Told before rows of a table are asked for again, of how many. */
  readonly onRepair?: OnRepair;
  readonly onTable?: (table: TableOutcome) => void;
  /** Told after each range: the share of the flow's rows that this run has been through. */
  readonly onShare?: (share: number) => void;
}

const MAX_FINDINGS = 10_000;
const LOADING = 'the table is still being read for the first time';

/** Throws classified errors; what was compared until then is stored and can be resumed. */
export async function verifyFlow(options: FlowVerificationOptions): Promise<FlowOutcome> {
  const { flow, sides, signal } = options;
  const run = await sides.store.begin(options.resume);
  const comparison: Comparison = {
    source: sides.source,
    target: sides.target,
    nats: options.nats,
    stream: options.stream,
    pace: new Pace(options.maxLoad, signal),
    graceMs: options.graceMs,
    ignoreExtra: options.ignoreExtra,
    lookBack: new LookBack(),
  };
  comparison.lookBack.note(await sides.source.watermark());
  const tables: TableOutcome[] = [];
  try {
    const all = await plans(options);
    // Nothing that was compared is no proof: most likely a pattern is wrong, or the url names another database.
    if (all.length === 0)
      throw new ReplicationError(
        'source_table_missing',
        `flow ${flow}: nothing was compared, since no table of the source matches the patterns of source and flow`,
      );
    const share = (): number => {
      let done = 0;
      let total = 0;
      for (const { source, estimatedRows } of all) {
        const progress = run.tables.get(`${source.schema}.${source.name}`);
        const rows = progress?.rows ?? 0;
        done += rows;
        total += progress?.done === true ? rows : Math.max(rows, estimatedRows);
      }
      return total === 0 ? 1 : done / total;
    };
    const isLoading = async (id: string): Promise<boolean> => (await options.loading?.())?.has(id) === true;
    for (const planned of all) {
      const { schema, name } = planned.source;
      const id = `${schema}.${name}`;
      const progress = run.tables.get(id) ?? newTableProgress();
      run.tables.set(id, progress);
      const compare = async (current: ComparePlan): Promise<void> =>
        await verifyTable({
          ...comparison,
          plan: current,
          scanner: sides.scanner,
          progress,
          maxFindings: options.maxFindings ?? MAX_FINDINGS,
          onProgress: async () => {
            await sides.store.save(run, id);
            options.onShare?.(share());
          },
        });
      const settle = async (current: ComparePlan): Promise<void> => {
        const { findings } = progress;
        const images = await readImages(sides, current, findings, { hides: options.hides, pace: comparison.pace });
        const key = current.source.key.map((index) => current.source.columns[index]!.name);
        await sides.store.settle(run, schema, name, { key, images });
      };
      let plan = planned;
      let isLeftOut = await isLoading(id);
      if (!isLeftOut) {
        // Left out by the run that this one goes on with.
        if (progress.leftOut !== undefined) restart(progress);
        if (plan.target === undefined) {
          // Its reading may have ended a moment ago, and the target makes the table with its first rows.
          await passed(sides.source, sides.target, await sides.source.watermark(), signal);
          plan = await withTarget(options, plan);
        }
        await compare(plan);
        // A reading may have begun meanwhile: then what is missing comes with it.
        isLeftOut = progress.findings.length > 0 && (await isLoading(id));
      }
      if (isLeftOut) {
        leaveOut(progress, plan);
        await sides.store.save(run, id);
      } else await settle(plan);
      let outcome: TableOutcome = {
        schema,
        name,
        progress,
        estimatedRows: plan.estimatedRows,
        skippedColumns: plan.skipped,
      };
      if (options.repairer !== undefined && progress.findings.length > 0) {
        outcome = {
          ...outcome,
          repaired: await repair(options, options.repairer, comparison, { plan, progress, compare }),
        };
        progress.findings = [...outcome.repaired!.left];
        await sides.store.save(run, id);
        await settle(plan);
      }
      tables.push(outcome);
      options.onTable?.(outcome);
    }
    await sides.store.finish(run, { state: 'done', compared: tables.map(({ schema, name }) => `${schema}.${name}`) });
  } catch (thrown) {
    // A run that was told to stop stays open, to be resumed.
    if (!signal.aborted)
      await sides.store
        .finish(run, { state: 'failed', error: thrown instanceof Error ? thrown.message : String(thrown) })
        .catch(() => undefined);
    throw thrown;
  }
  return { flow, startedAt: run.startedAt, tables };
}

function restart(progress: TableProgress): void {
  delete progress.leftOut;
  Object.assign(progress, newTableProgress());
}

/** Of a table that is not compared no row is proven. */
function leaveOut(progress: TableProgress, { estimatedRows }: ComparePlan): void {
  const records = Math.max(1, estimatedRows);
  restart(progress);
  progress.unresolved = records;
  progress.leftOut = [{ what: '*', why: LOADING, records, share: 1 }];
}

/** The plan of a table with that of the target, which may have got it only now. */
async function withTarget(options: FlowVerificationOptions, plan: ComparePlan): Promise<ComparePlan> {
  if (plan.target !== undefined) return plan;
  const { schema, name } = plan.source;
  return (await plans(options)).find(({ source }) => source.schema === schema && source.name === name) ?? plan;
}

async function plans(options: FlowVerificationOptions): Promise<ComparePlan[]> {
  const { sides, includes, placeOf, zeroDates, rules, marksDeleted } = options;
  const targets = await sides.target.tables();
  const find = (schema: string, name: string): (typeof targets)[number] | undefined =>
    targets.find((table) => table.schema === schema && table.name === name);
  return (await sides.source.tables())
    .filter((table) => includes(table.schema, table.name))
    .map((table) => comparePlan(table, find(placeOf(table.schema), table.name), zeroDates, rules, marksDeleted));
}

/** A key as the frames of the source carry it. */
function sourceKey({ source }: ComparePlan, key: KeyTexts): KeyTexts {
  return key.map((text, i) => {
    const { kind } = source.columns[source.key[i]!]!;
    if (kind === 'hex')
      return source.dialect === 'postgres' ? `\\x${text}` : Buffer.from(text, 'hex').toString('base64');
    return kind === 'micros' ? timeText(Number(text)) : text;
  });
}

interface Compared {
  readonly plan: ComparePlan;
  readonly progress: TableProgress;
  /** Goes on with the comparison from where the progress is. */
  readonly compare: (plan: ComparePlan) => Promise<void>;
}

/** Asks for the rows again and looks whether that mended them; at all rows, where more differed than is listed. */
async function repair(
  options: FlowVerificationOptions,
  repairer: Repairer,
  comparison: Comparison,
  { plan, progress, compare }: Compared,
): Promise<{ asked: number; left: readonly Finding[] }> {
  const { deleteExtra, signal, sides } = options;
  const { schema, name } = plan.source;
  const wanted = progress.findings.filter((finding) => finding.kind !== 'extra' || deleteExtra);
  // Without a key only the whole table can be read again, which takes its extra rows away.
  if (wanted.length === 0 || (!plan.keyed && !deleteExtra)) return { asked: 0, left: progress.findings };
  // Read again as a whole, a table loses its extra rows: where those are to stay, what is listed is mended and no more.
  const whole = !plan.keyed || (progress.truncated && deleteExtra);
  options.onRepair?.(schema, name, wanted.length);
  await repairer.reread(schema, name, whole ? 'all' : wanted.map((finding) => sourceKey(plan, finding.key!)), signal);
  await passed(sides.source, sides.target, await sides.source.watermark(), signal);
  // Its rows may have come only now, and the table with them.
  const again = await withTarget(options, plan);
  if (progress.truncated) {
    restart(progress);
    await compare(again);
    return { asked: wanted.length, left: progress.findings };
  }
  const { findings, unresolved } = await confirm(comparison, again, progress.findings);
  // What changes all the time is not known to be mended.
  progress.unresolved += unresolved;
  return { asked: wanted.length, left: findings };
}
