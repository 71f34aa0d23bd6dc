/**
 * The audit log: who did what to a flow, in an order that cannot be changed unseen. Each entry carries the hash of the
 * one before it, so a changed, removed or inserted line breaks the chain; the newest hash is also kept outside of the
 * database, so that lines cut off the end show too.
 */
import { createHash } from 'node:crypto';

export type AuditAction =
  | 'start'
  | 'stop'
  | 'configuration'
  | 'ownership'
  | 'snapshot'
  | 'repair'
  | 'comparison'
  | 'quarantine-replay'
  | 'quarantine-discard'
  | 'quarantine-edit'
  | 'notification'
  | 'rebuild'
  | 'teardown';

/** What is told; the log adds its place, time and hashes. */
export interface AuditEvent {
  /** `user@host`; from the console: the name that was given, and the address. */
  readonly actor: string;
  readonly action: AuditAction;
  /** What it was done to: `flow x`, `source y`. */
  readonly subject: string;
  /** Never a secret, and a row's values only where a person changed them. */
  readonly detail: Readonly<Record<string, unknown>>;
}

export interface AuditEntry extends Omit<AuditEvent, 'action' | 'detail'> {
  readonly id: number;
  /** RFC 3339 in UTC, with milliseconds. */
  readonly at: string;
  readonly action: string;
  /** JSON, byte for byte as it was hashed. */
  readonly detail: string;
  /** Hash of the entry before; of the first one, 64 zeros. */
  readonly previous: string;
  readonly hash: string;
}

export interface AuditHead {
  readonly id: number;
  readonly hash: string;
}

/** One database's log. */
export interface AuditLog {
  append(event: AuditEvent): Promise<AuditHead>;
  /** Entries after `id`, oldest first, at most `limit`. */
  read(afterId: number, limit: number): Promise<AuditEntry[]>;
  /** The newest entries, or the newest of those before `beforeId`; newest first, at most `limit`. */
  latest(beforeId: number | undefined, limit: number): Promise<AuditEntry[]>;
  close(): Promise<void>;
}

export const FIRST_PREVIOUS = '0'.repeat(64);

/** SHA-256 over all fields, each behind its length in bytes. */
export function hashEntry(entry: Omit<AuditEntry, 'hash'>): string {
  const hash = createHash('sha256');
  const { id, at, actor, action, subject, detail, previous } = entry;
  for (const field of ['waybill-audit-1', String(id), at, actor, action, subject, detail, previous])
    hash.update(`${Buffer.byteLength(field)}:${field}`);
  return hash.digest('hex');
}

export interface ChainReport {
  readonly entries: number;
  readonly head: AuditHead | undefined;
  /** What is wrong, with the place; empty when the chain is whole. */
  readonly problems: readonly string[];
}

const PAGE = 1000;

/** Reads the whole log and checks every link. `anchor` is the newest head that was noted elsewhere. */
export async function verifyChain(log: AuditLog, anchor: AuditHead | undefined): Promise<ChainReport> {
  const problems: string[] = [];
  let entries = 0;
  let head: AuditHead | undefined;
  let anchorSeen = anchor === undefined;
  for (let page = await log.read(0, PAGE); page.length > 0; page = await log.read(head!.id, PAGE))
    for (const entry of page) {
      entries += 1;
      const expected = (head?.id ?? 0) + 1;
      if (entry.id !== expected)
        problems.push(
          entry.id === expected + 1 ? `entry ${expected} is gone` : `entries ${expected} to ${entry.id - 1} are gone`,
        );
      else if (entry.previous !== (head?.hash ?? FIRST_PREVIOUS))
        problems.push(`entry ${entry.id} does not follow the one before it`);
      if (hashEntry(entry) !== entry.hash) problems.push(`entry ${entry.id} was changed`);
      if (anchor !== undefined && entry.id === anchor.id) {
        anchorSeen = true;
        if (entry.hash !== anchor.hash) problems.push(`entry ${entry.id} is not the one that was written`);
      }
      head = { id: entry.id, hash: entry.hash };
    }
  if (!anchorSeen)
    problems.push(`the log ends at entry ${head?.id ?? 0}, but entry ${anchor!.id} was written: its end was cut off`);
  return { entries, head, problems };
}
