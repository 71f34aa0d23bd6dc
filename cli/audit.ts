/** Writes to the audit logs of targets on behalf of commands. */
import { createHash } from 'node:crypto';
import { hostname, userInfo } from 'node:os';
import type { Config } from '../core/config.ts';
import { redactUrl } from '../core/source-url.ts';
import { asReplicationError, ReplicationError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import { connectNats } from '../core/nats.ts';
import { runService } from '../core/run-service.ts';
import { readAnchor, writeAnchor } from '../monitoring/audit/anchor.ts';
import {
  verifyChain,
  type AuditEvent,
  type AuditHead,
  type AuditLog,
  type ChainReport,
} from '../monitoring/audit/audit-log.ts';
import { PostgresAuditLog } from '../monitoring/audit/postgres-audit.ts';
import { openSession } from '../monitoring/drift/postgres/session.ts';

export function actor(): string {
  return `${userInfo().username}@${hostname()}`;
}

/** The targets of all flows that read `source`. */
export function targetsOf(config: Config, source: string): string[] {
  const flows = Object.values(config.flows).filter((flow) => flow.mirror === source);
  return [...new Set(flows.map((flow) => flow.to))];
}

/** Audit logs are kept in Postgres targets; those of MySQL and MariaDB have none yet. */
export function keepsAuditLog(config: Config, target: string): boolean {
  return config.targets[target]?.kind === 'postgres';
}

/** Opens the audit log of a target. Throws `config_invalid` where that kind of target has none. */
export async function openAuditLog(config: Config, target: string): Promise<AuditLog> {
  if (!keepsAuditLog(config, target))
    throw new ReplicationError(
      'config_invalid',
      `target ${target} is of kind ${config.targets[target]?.kind}, in which no audit log is kept`,
    );
  return await PostgresAuditLog.open(await openSession('target', config.targets[target]!, 'waybill audit'));
}

/** Appends one entry to the log of each target named that keeps one. Throws classified errors. */
export async function audit(
  config: Config,
  targets: readonly string[],
  event: Omit<AuditEvent, 'actor'>,
): Promise<void> {
  const kept = targets.filter((target) => keepsAuditLog(config, target));
  if (kept.length === 0) return;
  const nats = await connectNats(config.nats, 'waybill audit');
  try {
    for (const target of kept) {
      const log = await openAuditLog(config, target);
      try {
        await writeAnchor(nats, config.nats, target, await log.append({ actor: actor(), ...event }));
      } finally {
        await log.close();
      }
    }
  } finally {
    await nats.close();
  }
}

/** `audit` for commands that must work while a target is away: they say that their line is missing, and go on. */
export async function auditIfReachable(...entry: Parameters<typeof audit>): Promise<void> {
  try {
    await audit(...entry);
  } catch (thrown) {
    process.stderr.write(`not written to the audit log: ${asReplicationError(thrown).message}\n`);
  }
}

/** `audit`, tried again until it is written or the signal aborts: for processes that start before their target. */
export async function auditWhenReachable(
  config: Config,
  target: string,
  events: () => Promise<readonly Omit<AuditEvent, 'actor'>[]>,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  // Each entry is written once, whatever fails after it.
  let waiting: Omit<AuditEvent, 'actor'>[] | undefined;
  let head: AuditHead | undefined;
  await runService(
    async () => {
      const nats = await connectNats(config.nats, 'waybill audit');
      try {
        waiting ??= [...(await events())];
        const entries = await openAuditLog(config, target);
        try {
          for (let event = waiting[0]; event !== undefined; event = waiting[0]) {
            head = await entries.append({ actor: actor(), ...event });
            waiting.shift();
          }
        } finally {
          await entries.close();
        }
        if (head !== undefined) await writeAnchor(nats, config.nats, target, head);
      } finally {
        await nats.close();
      }
    },
    { name: `audit ${target}`, signal, log },
  );
}

export async function checkAuditLog(config: Config, target: string): Promise<ChainReport> {
  const nats = await connectNats(config.nats, 'waybill audit');
  const log = await openAuditLog(config, target);
  try {
    return await verifyChain(log, await readAnchor(nats, config.nats, target));
  } finally {
    await log.close();
    await nats.close();
  }
}

/** The configuration without its secrets, and a hash by which two of them are told apart. */
export function describeConfiguration(config: Config): { readonly hash: string; readonly configuration: unknown } {
  const shown = (value: unknown, key: string): unknown => {
    if (typeof value === 'string') {
      if (key === 'url') return redactUrl(value);
      return /^(password|token|secret)$/.test(key) ? '***' : value;
    }
    if (Array.isArray(value))
      return value.map((item) => (key === 'servers' ? redactUrl(String(item)) : shown(item, '')));
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, shown(item, name)]));
  };
  const configuration = shown(config, '');
  return { hash: createHash('sha256').update(JSON.stringify(configuration)).digest('hex'), configuration };
}

/** The hash of the configuration that the log of a target noted last. */
export async function lastConfigurationHash(config: Config, target: string): Promise<string | undefined> {
  const log = await openAuditLog(config, target);
  try {
    let hash: string | undefined;
    let after = 0;
    for (let page = await log.read(after, 1000); page.length > 0; page = await log.read(after, 1000))
      for (const entry of page) {
        after = entry.id;
        if (entry.action === 'configuration') hash = (JSON.parse(entry.detail) as { after?: string }).after;
      }
    return hash;
  } finally {
    await log.close();
  }
}
