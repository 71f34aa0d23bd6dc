/** What the demo shows once a second: tables that redraw themselves, or one plain line a source where there is no terminal. */
import type { Observation } from './observer.ts';
import { journeyLines, journeyText, type Journey } from './retailer/journey.ts';

/** What is seen of one source and its mirror. */
export interface SourceSample extends Observation {
  /** As the configuration calls it: 'wms'. */
  readonly name: string;
  /** For people: 'warehouse on PostgreSQL 18.4'. */
  readonly title: string;
  /** Transactions the workload has committed and rolled back so far. */
  readonly committed: number;
  readonly rolledBack: number;
  /** How often the invariant was checked on the target, and what was last found wrong. */
  readonly invariantChecks: number;
  readonly invariantProblems: readonly string[];
}

export interface Sample {
  readonly elapsedMs: number;
  readonly sources: readonly SourceSample[];
  /** Of an order of the retailer that has gone all the way: the newest. */
  readonly journey?: Journey | undefined;
}

export interface Terminal {
  show(sample: Sample): void;
  /** Prints below the table, and starts a new table after it. */
  say(line: string): void;
}

/** A terminal view on a stream. `links` stay above the table. */
export function createTerminal(
  stream: { readonly isTTY?: boolean; write(text: string): unknown },
  links: readonly string[],
): Terminal {
  let previous: Sample | undefined;
  let drawnLines = 0;
  let told: string | undefined;
  const erase = (): void => {
    if (drawnLines > 0) stream.write(`\u001B[${drawnLines}A\u001B[0J`);
    drawnLines = 0;
  };
  return {
    show(sample) {
      const rates = sample.sources.map((source) => ratesOf(source, previous, sample));
      previous = sample;
      if (stream.isTTY !== true) {
        for (const [index, source] of sample.sources.entries())
          stream.write(`${plainLine(sample.elapsedMs, source, rates[index]!)}\n`);
        if (sample.journey !== undefined && sample.journey.number !== told) {
          told = sample.journey.number;
          stream.write(`${seconds(sample.elapsedMs)} ${journeyText(sample.journey)}\n`);
        }
        return;
      }
      const lines = [...links, '', `running       ${seconds(sample.elapsedMs)}`];
      for (const [index, source] of sample.sources.entries()) lines.push('', ...table(source, rates[index]!));
      if (sample.journey !== undefined) lines.push('', ...journeyLines(sample.journey));
      erase();
      stream.write(`${lines.join('\n')}\n`);
      drawnLines = lines.length;
    },
    say(line) {
      drawnLines = 0;
      stream.write(`${line}\n`);
    },
  };
}

interface Rates {
  readonly transactions: number;
  readonly rows: number;
}

function ratesOf(source: SourceSample, previous: Sample | undefined, now: Sample): Rates {
  const before = previous?.sources.find(({ name }) => name === source.name);
  if (previous === undefined || before === undefined) return { transactions: 0, rows: 0 };
  const passed = Math.max(0.001, (now.elapsedMs - previous.elapsedMs) / 1000);
  return {
    transactions: (source.committed - before.committed) / passed,
    rows: Math.max(0, source.replicatedRows - before.replicatedRows) / passed,
  };
}

function plainLine(elapsedMs: number, source: SourceSample, rates: Rates): string {
  const total = (side: 'source' | 'target'): number =>
    source.counts.reduce((sum, table) => sum + (table[side] ?? 0), 0);
  return [
    `${seconds(elapsedMs)} ${source.name}`,
    `source ${rates.transactions.toFixed(0)} tx/s`,
    `replicated ${rates.rows.toFixed(0)} rows/s`,
    `lag ${lagText(source)}`,
    `at ${source.sourceAt} -> ${source.targetAt}`,
    `rows ${total('source')} -> ${total('target')}`,
    invariantText(source),
  ].join(' | ');
}

function table(source: SourceSample, rates: Rates): string[] {
  const width = Math.max(...source.counts.map(({ table }) => table.length), 10);
  const number = (value: number | undefined): string => (value === undefined ? '-' : String(value)).padStart(12);
  return [
    `${source.name.padEnd(14)}${source.title}`,
    `workload      ${rates.transactions.toFixed(0)} tx/s (${source.committed} committed, ${source.rolledBack} rolled back)`,
    `replication   ${rates.rows.toFixed(0)} rows/s (${source.replicatedRows} rows)`,
    `lag           ${lagText(source)}`,
    `position      ${source.sourceAt} -> ${source.targetAt}`,
    `invariant     ${invariantText(source)}`,
    `${'table'.padEnd(width)}${'source'.padStart(12)}${'target'.padStart(12)}`,
    ...source.counts.map(
      ({ table, source: here, target: there }) => `${table.padEnd(width)}${number(here)}${number(there)}`,
    ),
  ];
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(0)} s`;
}

function lagText({ lagMs, behind }: SourceSample): string {
  if (lagMs === undefined) return 'unknown';
  const age = lagMs < 1000 ? `${lagMs.toFixed(0)} ms` : `${(lagMs / 1000).toFixed(1)} s`;
  return behind === undefined ? age : `${age}, ${behind}`;
}

function invariantText({ invariantChecks, invariantProblems }: SourceSample): string {
  if (invariantProblems.length > 0) return `BROKEN: ${invariantProblems[0]!}`;
  return invariantChecks === 0 ? 'not checked yet' : `held in ${invariantChecks} of ${invariantChecks} looks`;
}
