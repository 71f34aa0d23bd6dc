/** `waybill verify`: compares both sides of flows now. */
import { makerOf, type Config } from '../../core/config.ts';
import { asReplicationError, ReplicationError } from '../../core/errors.ts';
import { connectNats } from '../../core/nats.ts';
import { countKinds, coverage, isProven, openFindings, type FlowOutcome } from '../../monitoring/drift/outcome.ts';
import { CompareProgress } from '../compare-progress.ts';
import { printTable, readConfig, unknownName, type GlobalOptions } from '../context.ts';
import { EXIT, reportError } from '../exit-status.ts';
import { printable } from '../printable.ts';
import { verifyOnce } from '../verification.ts';

export interface VerifyCommandOptions extends GlobalOptions {
  readonly repair?: boolean;
  readonly resume?: boolean;
  readonly json?: boolean;
  readonly maxLoad?: string;
}

const SHOWN = 20;

/** A flow that could not be compared, and why. */
interface Failure {
  readonly flow: string;
  readonly error: ReplicationError;
}

/**
 * Exit status 1 when drift was confirmed and stands, or rows changed too fast to be proven; that of its error where a flow
 * could not be compared, which keeps no other from being; 130 when it was told to stop.
 */
export async function verify(flows: string[], options: VerifyCommandOptions): Promise<number> {
  const config = readConfig(options);
  const known = [...Object.keys(config.flows), ...Object.keys(config.canonicalFlows)];
  for (const flow of flows) {
    if (config.outboundFlows[flow] !== undefined)
      throw new ReplicationError(
        'config_invalid',
        `${flow} writes into tables of another system, which are not compared; the records it is fed from are those of flow ${makerOf(config, flow) ?? 'none'}`,
      );
    if (!known.includes(flow)) unknownName('flow', flow, known);
  }
  const maxLoad = options.maxLoad === undefined ? undefined : Number(options.maxLoad);
  if (maxLoad !== undefined && !(maxLoad > 0 && maxLoad <= 1))
    throw new ReplicationError('config_invalid', `--max-load ${options.maxLoad} is not a share above 0 and up to 1`);
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  process.once('SIGTERM', () => stop.abort());
  const nats = await connectNats(config.nats, 'waybill verify');
  const answers: (FlowOutcome | Failure)[] = [];
  const statuses: number[] = [];
  const wanted = flows.length === 0 ? known : flows;
  try {
    for (const flow of wanted) {
      const progress = new CompareProgress(flow, process.stderr);
      try {
        const outcome = await verifyOnce(config, flow, {
          nats,
          repair: options.repair === true,
          resume: options.resume === true,
          turn: {
            as: '`waybill verify`',
            onWaiting: (other) => {
              progress.end();
              console.error(`flow ${flow} is being compared by ${other}: waiting for the end of that`);
            },
          },
          maxLoad,
          signal: stop.signal,
          report: { compared: () => undefined, coverage: (share) => progress.share(share) },
        }).finally(() => progress.end());
        answers.push(outcome);
        statuses.push(isProven(outcome) ? EXIT.good : EXIT.no);
        if (options.json !== true) print(outcome, extraRows(config, flow));
      } catch (thrown) {
        if (stop.signal.aborted) {
          console.error(interrupted(config, flow, wanted));
          return EXIT.interrupted;
        }
        console.error(`flow ${flow}: NOT compared`);
        answers.push({ flow, error: asReplicationError(thrown) });
        statuses.push(reportError(thrown));
      }
    }
  } finally {
    await nats.close();
  }
  if (options.json === true) console.log(JSON.stringify(answers.map(describe), undefined, 2));
  // That something differs says more than that something else could not be looked at.
  return statuses.includes(EXIT.no) ? EXIT.no : Math.max(EXIT.good, ...statuses);
}

/** What becomes of a comparison that was told to stop. */
function interrupted(config: Config, flow: string, wanted: readonly string[]): string {
  const next = wanted.slice(wanted.indexOf(flow) + 1);
  const rest = next.length === 0 ? '' : `; not compared: ${next.join(', ')}`;
  const how =
    config.canonicalFlows[flow] === undefined
      ? `\`waybill verify ${flow} --resume\` goes on from here`
      : 'a comparison of records begins anew';
  return `stopped before the answer of flow ${flow}: ${how}${rest}`;
}

function describe(outcome: FlowOutcome | Failure): unknown {
  if ('error' in outcome) {
    const { code, message, remedy } = outcome.error;
    return { flow: outcome.flow, equal: false, error: { code, message, remedy } };
  }
  return {
    flow: outcome.flow,
    equal: isProven(outcome),
    comparedUpTo: outcome.startedAt.toISOString(),
    coverage: coverage(outcome.tables),
    tables: outcome.tables.map((table) => ({
      table: `${table.schema}.${table.name}`,
      rows: table.progress.rows,
      ...countKinds(openFindings(table)),
      atLeast: table.progress.truncated,
      inFlightBuckets: table.progress.inFlightBuckets,
      unresolved: table.progress.unresolved,
      repairAsked: table.repaired?.asked ?? 0,
      skippedColumns: table.skippedColumns,
      ...(table.progress.leftOut === undefined ? {} : { leftOut: table.progress.leftOut }),
      findings: openFindings(table),
    })),
  };
}

function extraRows(config: Config, flow: string): 'report' | 'delete' {
  return (config.canonicalFlows[flow] ?? config.flows[flow]!).extra_rows;
}

/** What somebody can do about what stands. */
function advice({ flow, tables }: FlowOutcome, extra: 'report' | 'delete'): string[] {
  const open = tables.flatMap(openFindings);
  const isMendable = open.some(({ kind }) => kind !== 'extra');
  const isAsked = tables.some(({ repaired }) => repaired !== undefined);
  const lines: string[] = [];
  if (open.length > 0 && !isAsked && (isMendable || extra === 'delete'))
    lines.push(`\`waybill verify ${flow} --repair\` has rows that differ written again through the stream`);
  if (isAsked && isMendable)
    lines.push(
      'the repair did not help: is the row in quarantine (`waybill quarantine list`), or does another one write it?',
    );
  if (extra === 'report' && open.some(({ kind }) => kind === 'extra'))
    lines.push(`extra rows stay, until the flow says \`extra_rows: delete\` and is repaired`);
  if (tables.some(({ progress: { unresolved, leftOut } }) => unresolved > 0 && leftOut === undefined))
    lines.push(
      'unresolved rows changed at every look, or lack a column: compare again when they change less, or mend the column',
    );
  return lines;
}

function print(outcome: FlowOutcome, extra: 'report' | 'delete'): void {
  printTable(
    ['TABLE', 'ROWS', 'MISSING', 'EXTRA', 'DIFFERENT', 'UNRESOLVED', 'REPAIRED', 'NOTE'],
    outcome.tables.map((table) => {
      const findings = openFindings(table);
      const kinds = countKinds(findings);
      const { progress, repaired, skippedColumns } = table;
      const notes = [
        ...(progress.truncated ? ['at least'] : []),
        ...(skippedColumns.length > 0 ? [`not in the target: ${skippedColumns.join(', ')}`] : []),
      ];
      return [
        `${table.schema}.${table.name}`,
        String(progress.rows),
        String(kinds.missing),
        String(kinds.extra),
        String(kinds.different),
        String(progress.unresolved),
        repaired === undefined ? '-' : `${repaired.asked} asked, ${repaired.left.length} left`,
        notes.join('; '),
      ];
    }),
  );
  for (const table of outcome.tables) {
    for (const { what, why, records } of table.progress.leftOut ?? [])
      console.log(`  ${table.name} left out: ${what === '*' ? 'all' : what} of ${records}, since ${why}`);
    const findings = openFindings(table);
    for (const { kind, key, sourceDigest, targetDigest, copies } of findings.slice(0, SHOWN))
      console.log(
        printable(
          `  ${table.schema}.${table.name} ${kind} ${key === null ? `${copies} × row ${sourceDigest ?? targetDigest}` : `key ${JSON.stringify(key)}`}`,
        ),
      );
    if (findings.length > SHOWN) console.log(`  … and ${findings.length - SHOWN} more; --json names them`);
  }
  console.log(
    isProven(outcome)
      ? `flow ${outcome.flow}: equal, up to ${outcome.startedAt.toISOString()}`
      : `flow ${outcome.flow}: NOT proven equal`,
  );
  for (const line of advice(outcome, extra)) console.log(`  ${line}`);
}
