/** Writes to the audit logs of targets on behalf of commands. */
import { createHash } from 'node:crypto';
import { hostname, userInfo } from 'node:os';
import type { Config } from '../core/config.ts';
import { asReplicationError, ReplicationError } from '../core/errors.ts';
import { redactUrl } from '../core/source-url.ts';
import type { Logger } from '../core/logger.ts';
import { connectNats, type Nats } from '../core/nats.ts';
import { runService } from '../core/run-service.ts';
import { readAnchor, writeAnchor } from '../monitoring/audit/anchor.ts';
import {
  verifyChain,
  type AuditEntry,
  type AuditEvent,
  type AuditHead,
  type AuditLog,
  type ChainReport,
} from '../monitoring/audit/audit-log.ts';

export function actor(): string {
  return `${userInfo().username}@${hostname()}`;
}

/** The targets of all flows that read `source`. */
export function targetsOf(config: Config, source: string): string[] {
  const mirrors = Object.values(config.flows).filter((flow) => flow.mirror === source);
  const records = Object.values(config.canonicalFlows).filter((flow) => flow.from[source] !== undefined);
  const made = new Set(records.map((flow) => flow.canonical));
  const outbound = Object.values(config.outboundFlows).filter((flow) => made.has(flow.outbound));
  return [...new Set([...mirrors, ...records, ...outbound].map((flow) => flow.to))];
}

/** Opens the audit log of a target. Throws `target_unreachable` or another classified error. */
export async function openAuditLog(config: Config, target: string): Promise<AuditLog> {
  const settings = config.targets[target]!;
  if (settings.kind === 'postgres') {
    const { openSession } = await import('../monitoring/drift/postgres/session.ts');
    const { PostgresAuditLog } = await import('../monitoring/audit/postgres-audit.ts');
    return await PostgresAuditLog.open(await openSession('target', settings, 'waybill audit'));
  }
  const { openReader } = await import('../monitoring/sql-reader.ts');
  const { MysqlAuditLog } = await import('../monitoring/audit/mysql-audit.ts');
  return await MysqlAuditLog.open(await openReader('target', settings, 'waybill audit'));
}

/**
 * Appends one entry to the log of each target named. Throws classified errors; that NATS is away is said and not thrown:
 * the line stands in the chain, and the next one that is written notes the head for both.
 */
export async function audit(
  config: Config,
  targets: readonly string[],
  event: Omit<AuditEvent, 'actor'> & { readonly actor?: string },
): Promise<void> {
  if (targets.length === 0) return;
  const nats = await natsOrWhyNot(config);
  try {
    for (const target of targets) {
      const log = await openAuditLog(config, target);
      try {
        const head = await log.append({ actor: actor(), ...event });
        const missing = nats instanceof ReplicationError ? nats : await noteHead(nats, config, target, log, head);
        if (missing !== undefined)
          process.stderr.write(
            `entry ${head.id} of the audit log of ${target} is not noted in NATS: ${missing.message}\n`,
          );
      } finally {
        await log.close();
      }
    }
  } finally {
    if (!(nats instanceof ReplicationError)) await nats.close();
  }
}

async function natsOrWhyNot(config: Config): Promise<Nats | ReplicationError> {
  try {
    return await connectNats(config.nats, 'waybill audit');
  } catch (thrown) {
    return asReplicationError(thrown);
  }
}

/** Gives why NATS could not be told. Throws the errors of the log. */
async function noteHead(
  nats: Nats,
  config: Config,
  target: string,
  log: AuditLog,
  head: AuditHead,
): Promise<ReplicationError | undefined> {
  try {
    await writeAnchor(nats, config.nats, target, log, head);
    return undefined;
  } catch (thrown) {
    const error = asReplicationError(thrown);
    if (!error.code.startsWith('nats_')) throw error;
    return error;
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

/**
 * `audit`, tried again until it is written or the signal aborts: for processes that start before their target. True when it
 * is written.
 */
export async function auditWhenReachable(
  config: Config,
  target: string,
  events: () => Promise<readonly Omit<AuditEvent, 'actor'>[]>,
  log: Logger,
  signal: AbortSignal,
): Promise<boolean> {
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
          if (head !== undefined) await writeAnchor(nats, config.nats, target, entries, head);
        } finally {
          await entries.close();
        }
      } finally {
        await nats.close();
      }
    },
    { name: `audit ${target}`, signal, log },
  );
  return waiting?.length === 0;
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
      return /^(password|token|secret|previous_secret|salt|encryption_key)$/.test(key) ? '***' : value;
    }
    if (Array.isArray(value))
      return value.map((item) => (key === 'servers' ? redactUrl(String(item)) : shown(item, '')));
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, shown(item, name)]));
  };
  // The path of a webhook's url is often a secret of its own.
  const webhooks = Object.entries(config.monitoring.webhooks).map(
    ([name, webhook]) => [name, { ...webhook, url: new URL(webhook.url).origin }] as const,
  );
  const monitoring = { ...config.monitoring, webhooks: Object.fromEntries(webhooks) };
  const configuration = shown({ ...config, monitoring }, '');
  return { hash: createHash('sha256').update(JSON.stringify(configuration)).digest('hex'), configuration };
}

/** The hash of the configuration that the log of a target noted last. */
export async function lastConfigurationHash(config: Config, target: string): Promise<string | undefined> {
  const found = await lastEntry(config, target, ({ action }) => action === 'configuration');
  // One that somebody made unreadable says nothing, and what is read now is noted anew.
  return /"after":"(\w+)"/.exec(found?.detail ?? '')?.[1];
}

/** Who owned the fields of a flow's records, as the log of its target noted it last. */
export async function lastOwnership(config: Config, target: string, flow: string): Promise<unknown> {
  const found = await lastEntry(
    config,
    target,
    ({ action, subject }) => action === 'ownership' && subject === `flow ${flow}`,
  );
  try {
    return (JSON.parse(found?.detail ?? '{}') as { after?: unknown }).after;
  } catch {
    // As above.
    return undefined;
  }
}

async function lastEntry(
  config: Config,
  target: string,
  wanted: (entry: AuditEntry) => boolean,
): Promise<AuditEntry | undefined> {
  const log = await openAuditLog(config, target);
  try {
    let page = await log.latest(undefined, 1000);
    for (; page.length > 0; page = await log.latest(page.at(-1)!.id, 1000)) {
      const found = page.find(wanted);
      if (found !== undefined) return found;
    }
    return undefined;
  } finally {
    await log.close();
  }
}
