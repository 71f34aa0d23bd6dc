/**
 * The report as lines for people: tables of sources, transforms and flows, and below them what is wrong and what to do; above
 * them, where there is not room for all.
 */
import { printable } from '../printable.ts';
import type {
  AlertLine,
  FlowLine,
  Lag,
  Problem,
  SnapshotLine,
  SourceLine,
  StatusReport,
  TransformLine,
  VerifiedLine,
} from './report.ts';
import { tableLines, type Column, type Paint, type Tone } from './table.ts';
import { bytesText, countText, durationText, lagText, sparkline, wrap } from './text.ts';

export interface View {
  readonly width: number;
  readonly paint: Paint;
  /** How many lines there is room for; left out: for all. */
  readonly rows?: number;
  /** Lags of each line (`source wms`, `flow copy`) so far, the newest last; left out: no trend is shown. */
  readonly trends?: ReadonlyMap<string, readonly Lag[]>;
}

const TREND_WIDTH = 24;
const LAG_WARN_SECONDS = 60;
const LAG_BAD_SECONDS = 600;
const BUDGET_BAD_SECONDS = 3600;
const UNVERIFIED_WARN_SECONDS = 86_400;

export function renderStatus(report: StatusReport, view: View): string[] {
  const { sources, transforms, flows } = report;
  const tables = [
    ...(sources.length === 0 ? [] : [tableLines(sourceColumns(report, view), sources, view)]),
    ...(transforms.length === 0 ? [] : [tableLines(transformColumns(view), transforms, view)]),
    ...(flows.length === 0 ? [] : [tableLines(flowColumns(report, view), flows, view)]),
  ];
  const troubles = troubleLines(report, view);
  const blocks = troubles.length === 0 ? tables : [...tables, troubles];
  const total = blocks.reduce((sum, block) => sum + block.length + 1, -1);
  if (troubles.length > 0 && total > (view.rows ?? Infinity)) blocks.unshift(blocks.pop()!);
  return blocks.flatMap((block, index) => (index === 0 ? block : ['', ...block]));
}

/** What is wrong, and what to do: the alerts that stand, problems with their remedies, tables that are not followed. */
function troubleLines(report: StatusReport, { width, paint }: View): string[] {
  const now = Date.parse(report.at);
  return [
    ...problems(report).flatMap(({ what, problem }) => problemLines(what, problem, width, paint)),
    ...report.alerts.flatMap((alert) => alertLines(alert, now, width, paint)),
    ...report.flows.flatMap(({ name, tables = [] }) =>
      tables.map((table) =>
        paint(printable(`${name}: table ${table.schema}.${table.name} is ${table.state}: ${table.reason}`), 'warn'),
      ),
    ),
  ];
}

function sourceColumns({ sources }: StatusReport, view: View): Column<SourceLine>[] {
  const spools = sources.some((source) => source.spoolBytes !== undefined);
  return [
    { head: 'SOURCE', rank: 0, least: 8, text: (s) => s.name, tone: () => 'bold' },
    { head: 'STATE', rank: 0, text: (s) => s.state, tone: (s) => stateTone(s.state) },
    { head: 'LAG', rank: 0, right: true, text: (s) => lagText(s.lag), tone: (s) => lagTone(s.lag) },
    ...trendColumn<SourceLine>(view, 'source'),
    { head: 'ROWS/S', rank: 2, right: true, text: (s) => countText(s.rowsPerSecond) },
    { head: 'POSITION', rank: 5, least: 12, text: (s) => s.position ?? '-' },
    { head: 'BEHIND', rank: 7, right: true, text: behindText },
    { head: 'RETAINED', rank: 4, right: true, text: (s) => bytesText(s.retainedLogBytes) },
    { head: 'BUDGET', rank: 3, right: true, text: budgetText, tone: budgetTone },
    ...(spools ? [{ head: 'SPOOL', rank: 5, right: true, text: (s: SourceLine) => bytesText(s.spoolBytes) }] : []),
    { head: 'SNAPSHOT', rank: 6, least: 10, text: (s) => snapshotText(s.snapshot) },
  ];
}

function transformColumns(view: View): Column<TransformLine>[] {
  return [
    { head: 'TRANSFORM', rank: 0, least: 8, text: (t) => t.name, tone: () => 'bold' },
    { head: 'STATE', rank: 0, text: (t) => t.state, tone: (t) => stateTone(t.state) },
    { head: 'LAG', rank: 0, right: true, text: (t) => lagText(t.lag), tone: (t) => lagTone(t.lag) },
    ...trendColumn<TransformLine>(view, 'transform'),
    { head: 'ROWS/S', rank: 2, right: true, text: (t) => countText(t.rowsPerSecond) },
    { head: 'PENDING', rank: 3, right: true, text: (t) => countText(t.pendingFrames) },
    { head: 'FROM > RECORDS', rank: 7, text: (t) => `${t.from.join(', ')} > ${t.to}` },
  ];
}

function flowColumns(report: StatusReport, view: View): Column<FlowLine>[] {
  const now = Date.parse(report.at);
  const heartbeats = report.flows.some((flow) => flow.heartbeatSeconds !== undefined);
  return [
    { head: 'FLOW', rank: 0, least: 8, text: (f) => f.name, tone: () => 'bold' },
    { head: 'STATE', rank: 0, text: (f) => f.state, tone: (f) => stateTone(f.state) },
    { head: 'LAG', rank: 0, right: true, text: (f) => lagText(f.lag), tone: (f) => lagTone(f.lag) },
    ...trendColumn<FlowLine>(view, 'flow'),
    { head: 'ROWS/S', rank: 3, right: true, text: (f) => countText(f.rowsPerSecond) },
    { head: 'POSITION', rank: 6, least: 12, text: (f) => f.position ?? '-' },
    { head: 'PENDING', rank: 5, right: true, text: (f) => countText(f.pendingFrames) },
    {
      head: 'QUARANTINE',
      rank: 1,
      right: true,
      text: (f) => countText(f.quarantined),
      tone: (f) => ((f.quarantined ?? 0) > 0 ? 'warn' : 'plain'),
    },
    {
      head: 'VERIFIED',
      rank: 2,
      text: (f) => verifiedText(f.verified, now),
      tone: (f) => verifiedTone(f.verified, now),
    },
    ...(heartbeats ? [heartbeatColumn] : []),
    { head: 'FROM > TO', rank: 7, text: (f) => `${f.source} > ${f.target}` },
  ];
}

const heartbeatColumn: Column<FlowLine> = {
  head: 'HEARTBEAT',
  rank: 5,
  right: true,
  text: ({ heartbeatSeconds }) => (heartbeatSeconds === undefined ? '-' : durationText(heartbeatSeconds)),
  tone: ({ heartbeatSeconds = 0 }) => (heartbeatSeconds > LAG_WARN_SECONDS ? 'warn' : 'plain'),
};

function trendColumn<L extends { readonly name: string }>(view: View, kind: string): Column<L>[] {
  const { trends } = view;
  if (trends === undefined) return [];
  return [
    {
      head: 'TREND'.padStart(TREND_WIDTH),
      rank: 4,
      text: (line) => sparkline(trends.get(`${kind} ${line.name}`) ?? [], TREND_WIDTH),
      tone: () => 'dim',
    },
  ];
}

const GOOD = new Set(['streaming', 'idle', 'applying', 'running', 'snapshot']);
const PENDING = new Set(['new', 'starting', 'standby', 'waiting', 'unknown']);

function stateTone(state: string): Tone {
  if (GOOD.has(state)) return 'good';
  return PENDING.has(state) ? 'warn' : 'bad';
}

function lagTone(lag: Lag): Tone {
  if (lag.kind === 'unknown') return 'warn';
  if (lag.kind === 'idle') return 'dim';
  if (lag.seconds > LAG_BAD_SECONDS) return 'bad';
  return lag.seconds > LAG_WARN_SECONDS ? 'warn' : 'plain';
}

function behindText({ behindTransactions, behindBytes }: SourceLine): string {
  return behindTransactions === undefined ? bytesText(behindBytes) : `${countText(behindTransactions)} tx`;
}

/** Time left at the present rate; without a rate the room that is left; nothing where the source keeps all. */
function budgetText({ logBudgetSeconds, spareLogBytes }: SourceLine): string {
  if (logBudgetSeconds !== undefined) return durationText(logBudgetSeconds);
  return spareLogBytes === undefined ? '-' : `${bytesText(spareLogBytes)} left`;
}

function budgetTone({ logBudgetSeconds }: SourceLine): Tone {
  return logBudgetSeconds !== undefined && logBudgetSeconds < BUDGET_BAD_SECONDS ? 'bad' : 'plain';
}

function snapshotText(snapshot: SnapshotLine | undefined): string {
  if (snapshot === undefined) return '-';
  const { done, tables, rows, table } = snapshot;
  return `${done}/${tables} tables, ${countText(rows)} rows, ${table}`;
}

function verifiedText(verified: VerifiedLine | undefined, now: number): string {
  if (verified === undefined) return '-';
  const { at, latest, driftRows } = verified;
  if (driftRows > 0) return `DRIFT: ${countText(driftRows)} rows`;
  const ago = at === undefined ? 'never' : `${durationText(Math.max(0, (now - Date.parse(at)) / 1000))} ago`;
  return latest === 'equal' || latest === 'running' ? ago : `${ago} (${latest})`;
}

function verifiedTone(verified: VerifiedLine | undefined, now: number): Tone {
  if (verified === undefined) return 'dim';
  if (verified.driftRows > 0) return 'bad';
  const old = verified.at === undefined || now - Date.parse(verified.at) > UNVERIFIED_WARN_SECONDS * 1000;
  return old || verified.latest === 'failed' ? 'warn' : 'plain';
}

/** One system that is away is one problem, however many lines it concerns. */
function problems(report: StatusReport): { what: string; problem: Problem }[] {
  const found: { what: string; problem: Problem }[] = [];
  const add = (what: string, problem: Problem | undefined): void => {
    if (problem === undefined) return;
    const same = found.findIndex((each) => each.problem.message === problem.message);
    if (same === -1) found.push({ what, problem });
    else found[same] = { what: `${found[same]!.what}, ${what}`, problem };
  };
  add('nats', report.nats.problem);
  for (const line of report.sources) add(`source ${line.name}`, line.problem);
  for (const line of report.transforms) add(`transform ${line.name}`, line.problem);
  for (const line of report.flows) add(`flow ${line.name}`, line.problem);
  return found;
}

const LEAST_WRAP = 30;

function alertLines(
  { alert, severity, summary, since, runbook }: AlertLine,
  now: number,
  width: number,
  paint: Paint,
): string[] {
  const room = roomIn(width);
  const stands = durationText(Math.max(1, (now - Date.parse(since)) / 1000));
  const tone = severity === 'critical' ? 'bad' : 'warn';
  return [
    ...wrap(printable(`${alert} (${severity}, for ${stands}): ${summary}`), room).map((line, index) =>
      paint(`${index === 0 ? '▲ ' : '  '}${line}`, tone),
    ),
    `  see ${runbook}`,
  ];
}

function roomIn(width: number): number {
  return Number.isFinite(width) ? Math.max(LEAST_WRAP, width - 2) : Infinity;
}

function problemLines(what: string, { code, message, remedy }: Problem, width: number, paint: Paint): string[] {
  const room = roomIn(width);
  return [
    ...wrap(printable(`${what}: ${code}: ${message.replaceAll(/\s+/g, ' ')}`), room).map((line, index) =>
      paint(`${index === 0 ? '! ' : '  '}${line}`, 'bad'),
    ),
    ...wrap(`remedy: ${remedy}`, room).map((line) => `  ${line}`),
  ];
}
