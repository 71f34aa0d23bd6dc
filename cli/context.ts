/** What commands share: the configuration, names of it, and tables of text. */
import { loadConfig, type Config, type SourceConfig, type TargetConfig } from '../core/config.ts';
import { ReplicationError } from '../core/errors.ts';
import { nearest } from '../core/nearest.ts';
import { printable } from './printable.ts';

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

/** How long the lease of a stage lasts that is not renewed. Whoever waits for one must go by the same. */
export function leaseTtlMs(): number {
  return Number(process.env['WAYBILL_LEASE_TTL_MS'] ?? 10_000);
}
