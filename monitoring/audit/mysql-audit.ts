/** `waybill.audit` in a MySQL or MariaDB target. */
import { ReplicationError } from '../../core/errors.ts';
import type { SqlReader, SqlRow } from '../sql-reader.ts';
import {
  FIRST_PREVIOUS,
  hashEntry,
  type AuditEntry,
  type AuditEvent,
  type AuditHead,
  type AuditLog,
} from './audit-log.ts';

/** One writer at a time, or two entries would follow the same one. */
const APPEND_LOCK = 'waybill.audit';
const LOCK_SECONDS = 30;

/** Texts as they were hashed: no trimming, no folding. Times as text, since a driver would convert them. */
const TABLE = `CREATE TABLE IF NOT EXISTS waybill.audit (
  id bigint NOT NULL PRIMARY KEY, at char(24) NOT NULL, actor text NOT NULL, action varchar(64) NOT NULL,
  subject text NOT NULL, detail longtext NOT NULL, previous char(64) NOT NULL, hash char(64) NOT NULL)
  ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`;
const COLUMNS = 'id, at, actor, action, subject, detail, previous, hash';

/**
 * A trigger that refuses changes takes a right that a target need not give, so there is none here: what shows a change is
 * the chain.
 */
export class MysqlAuditLog implements AuditLog {
  readonly #session: SqlReader;

  private constructor(session: SqlReader) {
    this.#session = session;
  }

  /** Takes over a connection, and makes the table where it is missing. A connection that does not serve is closed. */
  static async open(session: SqlReader): Promise<MysqlAuditLog> {
    try {
      const there = await session.query(
        `SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'waybill' AND TABLE_NAME = 'audit'`,
      );
      if (there.length === 0) {
        const database = await session.query(
          `SELECT 1 AS one FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'waybill'`,
        );
        if (database.length === 0) await session.query('CREATE DATABASE IF NOT EXISTS waybill CHARACTER SET utf8mb4');
        await session.query(TABLE);
      }
      return new MysqlAuditLog(session);
    } catch (thrown) {
      await session.close();
      throw thrown;
    }
  }

  async append(event: AuditEvent): Promise<AuditHead> {
    const { actor, action, subject } = event;
    const [lock] = await this.#session.query('SELECT GET_LOCK(?, ?) AS got', [APPEND_LOCK, LOCK_SECONDS]);
    if (lock?.['got'] !== '1')
      throw new ReplicationError('target_conflict', 'writing to waybill.audit: others write to it all the time');
    try {
      const [last] = await this.#session.query('SELECT id, hash FROM waybill.audit ORDER BY id DESC LIMIT 1');
      const fields = {
        id: Number(last?.['id'] ?? 0) + 1,
        at: new Date().toISOString(),
        actor,
        action,
        subject,
        detail: JSON.stringify(event.detail),
        previous: last?.['hash'] ?? FIRST_PREVIOUS,
      };
      const hash = hashEntry(fields);
      await this.#session.query(`INSERT INTO waybill.audit (${COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, [
        ...Object.values(fields),
        hash,
      ]);
      return { id: fields.id, hash };
    } finally {
      await this.#session.query('SELECT RELEASE_LOCK(?) AS done', [APPEND_LOCK]);
    }
  }

  async read(afterId: number, limit: number): Promise<AuditEntry[]> {
    return (
      await this.#session.query(`SELECT ${COLUMNS} FROM waybill.audit WHERE id > ? ORDER BY id LIMIT ?`, [
        afterId,
        limit,
      ])
    ).map(toEntry);
  }

  async latest(beforeId: number | undefined, limit: number): Promise<AuditEntry[]> {
    return (
      await this.#session.query(`SELECT ${COLUMNS} FROM waybill.audit WHERE id < ? ORDER BY id DESC LIMIT ?`, [
        beforeId ?? Number.MAX_SAFE_INTEGER,
        limit,
      ])
    ).map(toEntry);
  }

  async close(): Promise<void> {
    await this.#session.close();
  }
}

function toEntry(row: SqlRow): AuditEntry {
  const text = (name: string): string => row[name] ?? '';
  return {
    id: Number(row['id']),
    at: text('at'),
    actor: text('actor'),
    action: text('action'),
    subject: text('subject'),
    detail: text('detail'),
    previous: text('previous'),
    hash: text('hash'),
  };
}
