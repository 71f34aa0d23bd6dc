/** What every command shares: the configuration, exit statuses, and how errors are shown. */
import { loadConfig, type Config, type SourceConfig, type TargetConfig } from '../core/config.ts';
import { asReplicationError, messageOf, ReplicationError, type ErrorCode } from '../core/errors.ts';
import { nearest } from '../core/nearest.ts';
import { printable, printableLines } from './printable.ts';

/** `interrupted`: told to stop before there was an answer. */
export const EXIT = { good: 0, no: 1, usage: 2, unreachable: 3, interrupted: 130 } as const;

export interface GlobalOptions {
  readonly config?: string;
}

export function readConfig(options: GlobalOptions): Config {
  return loadConfig(options.config ?? process.env['WAYBILL_CONFIG'] ?? './waybill.yaml', process.env);
}

export function requireSource(config: Config, name: string): SourceConfig {
  return config.sources[name] ?? unknownName('source', name, Object.keys(config.sources));
}

export function requireTarget(config: Config, name: string): TargetConfig {
  return config.targets[name] ?? unknownName('target', name, Object.keys(config.targets));
}

export function unknownName(kind: string, name: string, known: readonly string[], what = 'configured'): never {
  const near = nearest(name, known);
  throw new ReplicationError(
    'config_invalid',
    `there is no ${kind} "${name}"${near === undefined ? '' : ` (did you mean "${near}"?)`}; ${what}: ${known.join(', ') || 'none'}`,
  );
}

const UNREACHABLE: ReadonlySet<ErrorCode> = new Set([
  'source_unreachable',
  'nats_unreachable',
  'nats_timeout',
  'nats_no_jetstream',
  'target_unreachable',
  'source_auth',
  'target_auth',
  'nats_auth',
  'verify_stalled',
]);

/** Prints an error for people and gives the exit status that belongs to it. */
export function reportError(thrown: unknown): number {
  const error = asReplicationError(thrown);
  process.stderr.write(`error ${error.code}: ${printableLines(error.message)}\nremedy: ${error.remedy}\n`);
  if (process.env['WAYBILL_DEBUG'] !== undefined)
    process.stderr.write(`${error.stack ?? ''}\n${messageOf(error.cause)}\n`);
  if (error.code === 'config_invalid' || error.code === 'mapping_invalid') return EXIT.usage;
  return UNREACHABLE.has(error.code) ? EXIT.unreachable : EXIT.no;
}

/** Prints rows as an aligned table. */
export function printTable(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const cells = [head, ...rows.map((row) => row.map(printable))];
  const widths = head.map((_, index) => Math.max(...cells.map((row) => row[index]?.length ?? 0)));
  for (const row of cells)
    console.log(
      row
        .map((cell, index) => cell.padEnd(widths[index]!))
        .join('  ')
        .trimEnd(),
    );
}
