/** The connections over which the console looks. What it changes goes over connections of its own. */
import { targetOf, type TargetDesk } from '../../apply/target-kind.ts';
import type { Config } from '../../core/config.ts';
import type { ErrorCode } from '../../core/errors.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import type { AuditLog } from '../../monitoring/audit/audit-log.ts';
import { openReader, type SqlReader } from '../../monitoring/sql-reader.ts';
import { openAuditLog } from '../audit.ts';
import { Kept } from './kept.ts';

const NAME = 'waybill console';

export class Connections {
  readonly #config: Config;
  readonly nats: Kept<Nats>;
  readonly #desks = new Map<string, Kept<TargetDesk>>();
  readonly #readers = new Map<string, Kept<SqlReader>>();
  readonly #audits = new Map<string, Kept<AuditLog>>();

  constructor(config: Config) {
    this.#config = config;
    this.nats = new Kept('nats_timeout', () => connectNats(config.nats, NAME));
  }

  desk(target: string): Kept<TargetDesk> {
    return keep(
      this.#desks,
      target,
      'target_unreachable',
      async () => await (await targetOf(this.#config.targets[target]!)).openDesk(NAME),
    );
  }

  target(name: string): Kept<SqlReader> {
    return keep(this.#readers, `target ${name}`, 'target_unreachable', () =>
      openReader('target', this.#config.targets[name]!, NAME),
    );
  }

  source(name: string): Kept<SqlReader> {
    return keep(this.#readers, `source ${name}`, 'source_unreachable', () =>
      openReader('source', this.#config.sources[name]!, NAME),
    );
  }

  audit(target: string): Kept<AuditLog> {
    return keep(this.#audits, target, 'target_unreachable', () => openAuditLog(this.#config, target));
  }

  async close(): Promise<void> {
    const all = [this.nats, ...this.#desks.values(), ...this.#readers.values(), ...this.#audits.values()];
    await Promise.all(all.map((kept) => kept.close()));
  }
}

function keep<T extends { close(): Promise<void> }>(
  map: Map<string, Kept<T>>,
  key: string,
  silent: ErrorCode,
  open: () => Promise<T>,
): Kept<T> {
  const known = map.get(key) ?? new Kept(silent, open);
  map.set(key, known);
  return known;
}
