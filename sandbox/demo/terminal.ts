/** What the demo shows once a second: a small table that redraws itself, or one plain line where there is no terminal. */

export interface Sample {
  readonly elapsedMs: number;
  /** Transactions the workload has committed and rolled back so far. */
  readonly committed: number;
  readonly rolledBack: number;
  /** Row changes that have reached the target so far. */
  readonly replicatedRows: number;
  /** Age of the newest source change that the target is known to reflect; undefined while unknown. */
  readonly lagMs: number | undefined;
  readonly sourceLsn: string;
  readonly targetLsn: string;
  /** Log between the two positions. */
  readonly behindBytes: number | undefined;
  /** Rows of each table; undefined where the target has no such table yet. */
  readonly counts: readonly { readonly table: string; readonly source: number; readonly target: number | undefined }[];
  /** How often the invariant was checked on the target, and what was last found wrong. */
  readonly invariantChecks: number;
  readonly invariantProblems: readonly string[];
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
  const erase = (): void => {
    if (drawnLines > 0) stream.write(`\u001B[${drawnLines}A\u001B[0J`);
    drawnLines = 0;
  };
  return {
    show(sample) {
      const rates = ratesBetween(previous, sample);
      previous = sample;
      if (stream.isTTY !== true) {
        stream.write(`${plainLine(sample, rates)}\n`);
        return;
      }
      const lines = [...links, '', ...table(sample, rates)];
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

function ratesBetween(previous: Sample | undefined, now: Sample): Rates {
  if (previous === undefined) return { transactions: 0, rows: 0 };
  const seconds = Math.max(0.001, (now.elapsedMs - previous.elapsedMs) / 1000);
  return {
    transactions: (now.committed - previous.committed) / seconds,
    rows: Math.max(0, now.replicatedRows - previous.replicatedRows) / seconds,
  };
}

function plainLine(sample: Sample, rates: Rates): string {
  const total = (side: 'source' | 'target'): number =>
    sample.counts.reduce((sum, table) => sum + (table[side] ?? 0), 0);
  return [
    seconds(sample.elapsedMs),
    `source ${rates.transactions.toFixed(0)} tx/s`,
    `replicated ${rates.rows.toFixed(0)} rows/s`,
    `lag ${lagText(sample)}`,
    `at ${sample.sourceLsn} -> ${sample.targetLsn}`,
    `rows ${total('source')} -> ${total('target')}`,
    invariantText(sample),
  ].join(' | ');
}

function table(sample: Sample, rates: Rates): string[] {
  const width = Math.max(...sample.counts.map(({ table }) => table.length), 10);
  const number = (value: number | undefined): string => (value === undefined ? '-' : String(value)).padStart(12);
  return [
    `running       ${seconds(sample.elapsedMs)}`,
    `workload      ${rates.transactions.toFixed(0)} tx/s (${sample.committed} committed, ${sample.rolledBack} rolled back)`,
    `replication   ${rates.rows.toFixed(0)} rows/s (${sample.replicatedRows} rows)`,
    `lag           ${lagText(sample)}`,
    `source        ${sample.sourceLsn}`,
    `target        ${sample.targetLsn}`,
    `invariant     ${invariantText(sample)}`,
    '',
    `${'table'.padEnd(width)}${'source'.padStart(12)}${'target'.padStart(12)}`,
    ...sample.counts.map(({ table, source, target }) => `${table.padEnd(width)}${number(source)}${number(target)}`),
  ];
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(0)} s`;
}

function lagText({ lagMs, behindBytes }: Sample): string {
  if (lagMs === undefined) return 'unknown';
  const bytes = behindBytes === undefined ? '' : `, ${(behindBytes / 1024).toFixed(0)} KB of log`;
  return `${lagMs < 1000 ? `${lagMs.toFixed(0)} ms` : `${(lagMs / 1000).toFixed(1)} s`}${bytes}`;
}

function invariantText({ invariantChecks, invariantProblems }: Sample): string {
  if (invariantProblems.length > 0) return `BROKEN: ${invariantProblems[0]!}`;
  return invariantChecks === 0 ? 'not checked yet' : `held in ${invariantChecks} of ${invariantChecks} looks`;
}
