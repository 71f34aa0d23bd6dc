/** `waybill.drift` (findings) and `waybill.drift_run` (verifications) in a Postgres target. */
import type pg from 'pg';
import { DIGEST_FORMAT } from '../canonical-text.ts';
import {
  ABANDONED,
  sumOpen,
  takenOver,
  type DriftRun,
  type DriftStore,
  type RunEnd,
  type ShownRows,
} from '../drift-store.ts';
import type { Finding } from '../findings.ts';
import type { TableProgress } from '../verify-table.ts';
import { sideError } from './session.ts';

/** The same number as for the rest of schema `waybill`: only one process makes objects at a time. */
const CREATION_LOCK = 7_492_114;

const TABLES = `
CREATE TABLE IF NOT EXISTS waybill.drift_run (
  id bigserial PRIMARY KEY, flow text NOT NULL, source text NOT NULL, state text NOT NULL DEFAULT 'running',
  digest_format int NOT NULL, started_at timestamptz NOT NULL DEFAULT clock_timestamp(), finished_at timestamptz,
  tables jsonb NOT NULL DEFAULT '{}', error text);
CREATE INDEX IF NOT EXISTS drift_run_flow ON waybill.drift_run (flow, id);
CREATE TABLE IF NOT EXISTS waybill.drift (
  id bigserial PRIMARY KEY, run bigint NOT NULL, flow text NOT NULL, source text NOT NULL, table_schema text NOT NULL,
  table_name text NOT NULL, row_id text NOT NULL, kind text NOT NULL, key jsonb, source_digest text,
  target_digest text, copies bigint NOT NULL, state text NOT NULL DEFAULT 'open',
  found_at timestamptz NOT NULL DEFAULT clock_timestamp(), confirmed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  closed_at timestamptz, key_columns jsonb, images jsonb);
ALTER TABLE waybill.drift ADD COLUMN IF NOT EXISTS key_columns jsonb, ADD COLUMN IF NOT EXISTS images jsonb;
CREATE UNIQUE INDEX IF NOT EXISTS drift_open
  ON waybill.drift (flow, table_schema, table_name, md5(row_id)) WHERE state = 'open';`;

export class PostgresDriftStore implements DriftStore {
  readonly #client: pg.Client;
  readonly #flow: string;
  readonly #source: string;

  private constructor(client: pg.Client, flow: string, source: string) {
    this.#client = client;
    this.#flow = flow;
    this.#source = source;
  }

  /** Takes over a connection, and makes the tables where they are missing. */
  static async open(client: pg.Client, flow: string, source: string): Promise<PostgresDriftStore> {
    const store = new PostgresDriftStore(client, flow, source);
    await store.#query('preparing waybill.drift', async () => {
      const { rows } = await client.query<{ complete: boolean; there: boolean }>(
        `select to_regclass('waybill.drift_open') is not null and exists (select from pg_attribute
             where attrelid = to_regclass('waybill.drift') and attname = 'images') as complete,
           to_regnamespace('waybill') is not null as there`,
      );
      // Even with IF NOT EXISTS the statement needs CREATE on the database, which a DBA need not grant.
      const schema = rows[0]?.there === true ? '' : 'CREATE SCHEMA IF NOT EXISTS waybill;';
      if (rows[0]?.complete !== true)
        await client.query(`BEGIN; SELECT pg_advisory_xact_lock(${CREATION_LOCK}); ${schema} ${TABLES} COMMIT`);
    });
    return store;
  }

  async #query<T>(doing: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (thrown) {
      throw sideError('target', thrown, doing);
    }
  }

  async begin(resume: boolean): Promise<DriftRun> {
    return await this.#query('beginning a verification', async () => {
      type Row = { id: string; started_at: Date; tables: Record<string, TableProgress> };
      if (resume) {
        // Under another number, so that whoever had it before writes to it no more.
        const { rows } = await this.#client.query<Row>(
          `UPDATE waybill.drift_run SET id = nextval(pg_get_serial_sequence('waybill.drift_run', 'id'))
            WHERE id = (SELECT max(id) FROM waybill.drift_run WHERE flow = $1)
              AND state = 'running' AND digest_format = $2 RETURNING id, started_at, tables`,
          [this.#flow, DIGEST_FORMAT],
        );
        if (rows[0] !== undefined) return toRun(rows[0]);
      }
      await this.#client.query(
        `UPDATE waybill.drift_run SET state = 'failed', error = $2, finished_at = clock_timestamp()
          WHERE flow = $1 AND state = 'running'`,
        [this.#flow, ABANDONED],
      );
      const { rows } = await this.#client.query<Row>(
        'INSERT INTO waybill.drift_run (flow, source, digest_format) VALUES ($1, $2, $3) RETURNING id, started_at, tables',
        [this.#flow, this.#source, DIGEST_FORMAT],
      );
      return toRun(rows[0]!);
    });
  }

  async provenAt(): Promise<Date | undefined> {
    return await this.#query('reading when both sides were proven equal', async () => {
      const { rows } = await this.#client.query<{ started_at: Date }>(
        `SELECT started_at FROM waybill.drift_run r WHERE flow = $1 AND state = 'done' AND tables <> '{}'
            AND NOT EXISTS (SELECT FROM jsonb_each(r.tables)
              WHERE jsonb_array_length(value -> 'findings') > 0 OR (value ->> 'unresolved')::bigint > 0)
          ORDER BY id DESC LIMIT 1`,
        [this.#flow],
      );
      return rows[0]?.started_at;
    });
  }

  async save(run: DriftRun, table: string): Promise<void> {
    const progress = run.tables.get(table)!;
    const { findings, candidates } = JSON.parse(storable(progress)) as TableProgress;
    const { rowCount } = await this.#query('storing how far a verification is', () =>
      this.#client.query(
        `UPDATE waybill.drift_run SET tables = tables || jsonb_build_object($2::text, $3::jsonb)
          WHERE id = $1 AND state = 'running'`,
        [run.id, table, JSON.stringify({ ...progress, findings, candidates })],
      ),
    );
    if (rowCount === 0) throw takenOver(this.#flow);
  }

  async settle(run: DriftRun, schema: string, name: string, { key, images }: ShownRows): Promise<void> {
    const findings = run.tables.get(`${schema}.${name}`)?.findings ?? [];
    const rows = findings.map((finding) => ({
      row_id: finding.id,
      kind: finding.kind,
      key: finding.key,
      source_digest: finding.sourceDigest ?? null,
      target_digest: finding.targetDigest ?? null,
      copies: finding.copies,
      images: images.get(finding.id) ?? null,
    }));
    await this.#query('storing findings', () =>
      this.#client.query(
        `WITH found AS (SELECT * FROM jsonb_to_recordset($6::jsonb) AS f(row_id text, kind text, key jsonb,
             source_digest text, target_digest text, copies bigint, images jsonb)),
           gone AS (UPDATE waybill.drift d SET state = 'gone', closed_at = clock_timestamp()
             WHERE flow = $2 AND table_schema = $4 AND table_name = $5 AND state = 'open'
               AND NOT EXISTS (SELECT FROM found f WHERE f.row_id = d.row_id))
         INSERT INTO waybill.drift (run, flow, source, table_schema, table_name, row_id, kind, key, source_digest,
             target_digest, copies, key_columns, images)
           SELECT $1::bigint, $2, $3, $4, $5, row_id, kind, key, source_digest, target_digest, copies, $7::jsonb, images
             FROM found
         ON CONFLICT (flow, table_schema, table_name, md5(row_id)) WHERE state = 'open'
           DO UPDATE SET run = EXCLUDED.run, kind = EXCLUDED.kind, source_digest = EXCLUDED.source_digest,
             target_digest = EXCLUDED.target_digest, copies = EXCLUDED.copies,
             key_columns = EXCLUDED.key_columns, images = EXCLUDED.images, confirmed_at = clock_timestamp()`,
        [run.id, this.#flow, this.#source, schema, name, storable(rows), JSON.stringify(key)],
      ),
    );
  }

  async openRows(): ReturnType<DriftStore['openRows']> {
    return await this.#query('reading what is known to differ', async () => {
      const { rows } = await this.#client.query<{ schema: string; name: string; kind: string; rows: string }>(
        `SELECT table_schema AS schema, table_name AS name, kind, sum(copies)::text AS rows FROM waybill.drift
          WHERE flow = $1 AND state = 'open' GROUP BY 1, 2, 3`,
        [this.#flow],
      );
      return sumOpen(rows.map((row) => ({ ...row, rows: Number(row.rows) })));
    });
  }

  async finish(run: DriftRun, end: RunEnd): Promise<void> {
    const { rowCount } = await this.#query('ending a verification', () =>
      this.#client.query(
        `UPDATE waybill.drift_run SET state = $2, error = $3, finished_at = clock_timestamp()
          WHERE id = $1 AND state = 'running'`,
        [run.id, end.state, end.state === 'failed' ? end.error : null],
      ),
    );
    if (rowCount === 0) throw takenOver(this.#flow);
    if (end.state === 'failed') return;
    await this.#query('closing findings', () =>
      this.#client.query(
        `UPDATE waybill.drift SET state = 'gone', closed_at = clock_timestamp()
          WHERE flow = $1 AND state = 'open' AND table_schema || '.' || table_name <> ALL ($2::text[])`,
        [this.#flow, end.compared],
      ),
    );
  }

  async close(): Promise<void> {
    await this.#client.end().catch(() => undefined);
  }
}

/** JSON for jsonb, which cannot hold a NUL: rows that hold one (MySQL takes it) cannot be in this target, and are found. */
function storable(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) => (typeof each === 'string' ? each.replaceAll('\0', '␀') : each));
}

/** Of findings the key is kept in their id as well, which is JSON itself and holds any character. */
function restored(finding: Finding): Finding {
  return finding.key === null ? finding : { ...finding, key: JSON.parse(finding.id) as string[] };
}

function toRun(row: { id: string; started_at: Date; tables: Record<string, TableProgress> }): DriftRun {
  const tables = Object.entries(row.tables).map(([table, progress]): [string, TableProgress] => [
    table,
    {
      ...progress,
      candidates: progress.candidates.map(restored),
      findings: progress.findings.map(restored),
    },
  ]);
  return { id: row.id, startedAt: row.started_at, tables: new Map(tables) };
}
