/** The report as lines for people: tables of sources and flows, and below them what is wrong and what to do. */
import { printable } from '../printable.ts';
import type { FlowLine, Lag, Problem, SnapshotLine, SourceLine, StatusReport, VerifiedLine } from './report.ts';
import { tableLines, type Column, type Paint, type Tone } from './table.ts';
import { bytesText, countText, durationText, lagText, sparkline, wrap } from './text.ts';

export interface View {
  readonly width: number;
  readonly paint: Paint;
  /** Lags of each line (`source wms`, `flow copy`) so far, the newest last; left out: no trend is shown. */
  readonly trends?: ReadonlyMap<string, readonly Lag[]>;
}

const TREND_WIDTH = 24;
const LAG_WARN_SECONDS = 60;
const LAG_BAD_SECONDS = 600;
const BUDGET_BAD_SECONDS = 3600;
const UNVERIFIED_WARN_SECONDS = 86_400;

export function renderStatus(report: StatusReport, view: View): string[] {
  const { width, paint } = view;
  const lines: string[] = [];
  if (report.sources.length > 0) lines.push(...tableLines(sourceColumns(report, view), report.sources, view), '');
  if (report.flows.length > 0) lines.push(...tableLines(flowColumns(report, view), report.flows, view), '');
  for (const { name, tables = [] } of report.flows)
    for (const table of tables)
      lines.push(paint(`${name}: table ${table.schema}.${table.name} is ${table.state}: ${table.reason}`, 'warn'));
  for (const { what, problem } of problems(report)) lines.push(...problemLines(what, problem, width, paint));
  while (lines.at(-1) === '') lines.pop();
  return lines;
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

function flowColumns(report: StatusReport, view: View): Column<FlowLine>[] {
  const now = Date.parse(report.at);
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
    { head: 'FROM > TO', rank: 7, text: (f) => `${f.source} > ${f.target}` },
  ];
}

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
  for (const line of report.flows) add(`flow ${line.name}`, line.problem);
  return found;
}

const LEAST_WRAP = 30;

function problemLines(what: string, { code, message, remedy }: Problem, width: number, paint: Paint): string[] {
  const room = Number.isFinite(width) ? Math.max(LEAST_WRAP, width - 2) : Infinity;
  return [
    ...wrap(printable(`${what}: ${code}: ${message.replaceAll(/\s+/g, ' ')}`), room).map((line, index) =>
      paint(`${index === 0 ? '! ' : '  '}${line}`, 'bad'),
    ),
    ...wrap(`remedy: ${remedy}`, room).map((line) => `  ${line}`),
  ];
}
