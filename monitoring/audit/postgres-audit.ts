/** `waybill.audit` in a Postgres target. */
import type pg from 'pg';
import { sideError } from '../drift/postgres/session.ts';
import {
  FIRST_PREVIOUS,
  hashEntry,
  type AuditEntry,
  type AuditEvent,
  type AuditHead,
  type AuditLog,
} from './audit-log.ts';

/** The same number as for the rest of schema `waybill`: only one process makes objects at a time. */
const CREATION_LOCK = 7_492_114;
/** One writer at a time, or two entries would follow the same one. */
const APPEND_LOCK = 7_492_115;

/** The trigger keeps honest hands off; against others there is the chain. */
const TABLES = `
CREATE TABLE IF NOT EXISTS waybill.audit (
  id bigint PRIMARY KEY, at timestamptz NOT NULL, actor text NOT NULL, action text NOT NULL, subject text NOT NULL,
  detail text NOT NULL, previous text NOT NULL, hash text NOT NULL);
CREATE OR REPLACE FUNCTION waybill.audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  RAISE EXCEPTION 'waybill.audit is append-only';
END $body$;
CREATE OR REPLACE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON waybill.audit
  FOR EACH STATEMENT EXECUTE FUNCTION waybill.audit_is_append_only();`;

export class PostgresAuditLog implements AuditLog {
  readonly #client: pg.Client;

  private constructor(client: pg.Client) {
    this.#client = client;
  }

  /** Takes over a connection, and makes the table where it is missing. A connection that does not serve is closed. */
  static async open(client: pg.Client): Promise<PostgresAuditLog> {
    try {
      const { rows } = await client.query<{ complete: boolean; there: boolean }>(
        `select exists (select from pg_trigger where tgname = 'audit_is_append_only' and tgrelid = to_regclass('waybill.audit'))
             as complete, to_regnamespace('waybill') is not null as there`,
      );
      // Even with IF NOT EXISTS the statement needs CREATE on the database, which a DBA need not grant.
      const schema = rows[0]?.there === true ? '' : 'CREATE SCHEMA IF NOT EXISTS waybill;';
      if (rows[0]?.complete !== true)
        await client.query(`BEGIN; SELECT pg_advisory_xact_lock(${CREATION_LOCK}); ${schema} ${TABLES} COMMIT`);
    } catch (thrown) {
      await client.end().catch(() => undefined);
      throw sideError('target', thrown, 'preparing waybill.audit');
    }
    return new PostgresAuditLog(client);
  }

  async append(event: AuditEvent): Promise<AuditHead> {
    const { actor, action, subject } = event;
    try {
      // Whatever the database's default is: the last line is to be seen as it is once the lock is got.
      await this.#client.query(
        `BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_advisory_xact_lock(${APPEND_LOCK})`,
      );
      const { rows } = await this.#client.query<{ id: string; hash: string }>(
        'SELECT id, hash FROM waybill.audit ORDER BY id DESC LIMIT 1',
      );
      const fields = {
        id: Number(rows[0]?.id ?? 0) + 1,
        at: new Date().toISOString(),
        actor,
        action,
        subject,
        detail: JSON.stringify(event.detail),
        previous: rows[0]?.hash ?? FIRST_PREVIOUS,
      };
      const hash = hashEntry(fields);
      await this.#client.query(
        `INSERT INTO waybill.audit (id, at, actor, action, subject, detail, previous, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
        [...Object.values(fields), hash],
      );
      await this.#client.query('COMMIT');
      return { id: fields.id, hash };
    } catch (thrown) {
      const error = sideError('target', thrown, 'writing to waybill.audit');
      await this.#client.query('ROLLBACK').catch(() => undefined);
      throw error;
    }
  }

  async read(afterId: number, limit: number): Promise<AuditEntry[]> {
    return await this.#read('WHERE id > $1 ORDER BY id LIMIT $2', [afterId, limit]);
  }

  async latest(beforeId: number | undefined, limit: number): Promise<AuditEntry[]> {
    return await this.#read('WHERE $1::bigint IS NULL OR id < $1 ORDER BY id DESC LIMIT $2', [beforeId ?? null, limit]);
  }

  async #read(where: string, values: (number | null)[]): Promise<AuditEntry[]> {
    try {
      const { rows } = await this.#client.query<Omit<AuditEntry, 'id'> & { id: string }>(
        `SELECT id, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS at, actor, action, subject, detail,
                previous, hash FROM waybill.audit ${where}`,
        values,
      );
      return rows.map((row) => ({ ...row, id: Number(row.id) }));
    } catch (thrown) {
      throw sideError('target', thrown, 'reading waybill.audit');
    }
  }

  async close(): Promise<void> {
    await this.#client.end().catch(() => undefined);
  }
}
