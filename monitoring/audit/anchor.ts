/** The newest head of each audit log, in the bucket: outside of the database whose log it is. */
import type { NatsConfig } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { natsError, type Nats } from '../../core/nats.ts';
import type { AuditHead, AuditLog } from './audit-log.ts';

const key = (target: string): string => `audit.${target}`;

export async function readAnchor(nats: Nats, config: NatsConfig, target: string): Promise<AuditHead | undefined> {
  try {
    const entry = await (await openBucket(nats, config)).get(key(target));
    return entry === null || entry.operation !== 'PUT' ? undefined : entry.json<AuditHead>();
  } catch (thrown) {
    throw natsError(thrown, `reading the head of the audit log of ${target}`);
  }
}

/**
 * Notes the head of a log that was just written to; an older one never replaces a newer one. Nor does a newer one replace
 * one that the log does not hold any more: its end was cut off before more was written, and nothing else would tell.
 */
export async function writeAnchor(
  nats: Nats,
  config: NatsConfig,
  target: string,
  log: Pick<AuditLog, 'read'>,
  head: AuditHead,
): Promise<void> {
  const bucket = await openBucket(nats, config);
  for (;;)
    try {
      const entry = await bucket.get(key(target));
      if (entry !== null && entry.operation === 'PUT') {
        const noted = entry.json<AuditHead>();
        if (noted.id >= head.id) return;
        const [kept] = await log.read(noted.id - 1, 1);
        if (kept?.id !== noted.id || kept.hash !== noted.hash) return;
      }
      const value = JSON.stringify({ id: head.id, hash: head.hash });
      if (entry === null) await bucket.create(key(target), value);
      else await bucket.update(key(target), value, entry.revision);
      return;
    } catch (thrown) {
      const error = natsError(thrown, `noting the head of the audit log of ${target}`);
      // Somebody noted another head in between: look again.
      if (error.code !== 'stream_conflict') throw error;
    }
}
