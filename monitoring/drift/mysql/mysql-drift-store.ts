/** `waybill.drift` (findings) and `waybill.drift_run` (verifications) in a MySQL or MariaDB target. */
import { createHash } from 'node:crypto';
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
import { quoteText, type CompareSession } from './session.ts';

const RUNS = `CREATE TABLE IF NOT EXISTS waybill.drift_run (
  id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, flow varchar(64) NOT NULL, source varchar(64) NOT NULL,
  state varchar(16) NOT NULL DEFAULT 'running', digest_format int NOT NULL, started_at datetime(6) NOT NULL,
  finished_at datetime(6) NULL, tables longtext NOT NULL, error text NULL, KEY drift_run_flow (flow, id))
  ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`;
const FINDINGS = `CREATE TABLE IF NOT EXISTS waybill.drift (
  id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, run bigint unsigned NOT NULL, flow varchar(64) NOT NULL,
  source varchar(64) NOT NULL, table_schema varchar(64) NOT NULL, table_name varchar(64) NOT NULL,
  row_hash char(32) NOT NULL, row_id longtext NOT NULL, kind varchar(16) NOT NULL, \`key\` longtext NULL,
  source_digest char(32) NULL, target_digest char(32) NULL, copies bigint NOT NULL,
  state varchar(16) NOT NULL DEFAULT 'open', found_at datetime(6) NOT NULL, confirmed_at datetime(6) NOT NULL,
  closed_at datetime(6) NULL, key_columns longtext NULL, images longtext NULL, KEY drift_row (flow, table_schema, table_name, state, row_hash))
  ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`;
/** Findings that one statement writes. */
const ROWS_PER_INSERT = 500;

const hashOf = (id: string): string => createHash('md5').update(id).digest('hex');
const literal = (text: string | null | undefined): string => (text == null ? 'NULL' : quoteText(text));

export class MysqlDriftStore implements DriftStore {
  readonly #session: CompareSession;
  readonly #flow: string;
  readonly #source: string;

  private constructor(session: CompareSession, flow: string, source: string) {
    this.#session = session;
    this.#flow = flow;
    this.#source = source;
  }

  /** Takes over a session, and makes the tables where they are missing. */
  static async open(session: CompareSession, flow: string, source: string): Promise<MysqlDriftStore> {
    const doing = 'preparing waybill.drift';
    const there = await session.query(
      `SELECT TABLE_NAME FROM information_schema.TABLES
        WHERE TABLE_SCHEMA = 'waybill' AND TABLE_NAME IN ('drift', 'drift_run')`,
      doing,
    );
    if (there.length < 2) {
      const [database] = await session.query(
        "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'waybill'",
        doing,
      );
      if (database === undefined) await session.query('CREATE DATABASE IF NOT EXISTS waybill', doing);
      await session.query(RUNS, doing);
      await session.query(FINDINGS, doing);
    }
    const [images] = await session.query(
      `SELECT 1 FROM information_schema.COLUMNS
        WHERE TABLE_SCHEMA = 'waybill' AND TABLE_NAME = 'drift' AND COLUMN_NAME = 'images'`,
      doing,
    );
    if (images === undefined)
      await session.query(
        'ALTER TABLE waybill.drift ADD COLUMN key_columns longtext NULL, ADD COLUMN images longtext NULL',
        doing,
      );
    return new MysqlDriftStore(session, flow, source);
  }

  async begin(resume: boolean): Promise<DriftRun> {
    const doing = 'beginning a verification';
    const flow = quoteText(this.#flow);
    const open = await this.#session.query(
      `SELECT id, digest_format, id = (SELECT MAX(id) FROM waybill.drift_run WHERE flow = ${flow})
         FROM waybill.drift_run WHERE flow = ${flow} AND state = 'running'`,
      doing,
    );
    for (const [id, format, newest] of open) {
      if (resume && newest === '1' && Number(format) === DIGEST_FORMAT) return await this.#takeUp(Number(id), doing);
      await this.#session.query(
        `UPDATE waybill.drift_run SET state = 'failed', error = ${quoteText(ABANDONED)}, finished_at = UTC_TIMESTAMP(6)
          WHERE id = ${Number(id)} AND state = 'running'`,
        doing,
      );
    }
    return await this.#inserted(
      `VALUES (${flow}, ${quoteText(this.#source)}, ${DIGEST_FORMAT}, UTC_TIMESTAMP(6), '{}')`,
      doing,
    );
  }

  async #inserted(row: string, doing: string): Promise<DriftRun> {
    await this.#session.query(
      `INSERT INTO waybill.drift_run (flow, source, digest_format, started_at, tables) ${row}`,
      doing,
    );
    const [made] = await this.#session.query(
      'SELECT id, started_at, tables FROM waybill.drift_run WHERE id = LAST_INSERT_ID()',
      doing,
    );
    return toRun(made![0]!, made![1]!, made![2]!);
  }

  /** Gives a run another number, so that whoever had it before writes to it no more. */
  async #takeUp(id: number, doing: string): Promise<DriftRun> {
    return await this.#inTransaction(doing, async () => {
      await this.#lock(id, doing);
      const run = await this.#inserted(
        `SELECT flow, source, digest_format, started_at, tables FROM waybill.drift_run WHERE id = ${id}`,
        doing,
      );
      await this.#session.query(`DELETE FROM waybill.drift_run WHERE id = ${id}`, doing);
      return run;
    });
  }

  /** Throws `lease_lost` where a run is not under way any more. */
  async #lock(id: number, doing: string): Promise<void> {
    const [row] = await this.#session.query(
      `SELECT 1 FROM waybill.drift_run WHERE id = ${id} AND state = 'running' FOR UPDATE`,
      doing,
    );
    if (row === undefined) throw takenOver(this.#flow);
  }

  async #inTransaction<T>(doing: string, work: () => Promise<T>): Promise<T> {
    await this.#session.query('START TRANSACTION', doing);
    try {
      const result = await work();
      await this.#session.query('COMMIT', doing);
      return result;
    } catch (thrown) {
      await this.#session.query('ROLLBACK', doing).catch(() => undefined);
      throw thrown;
    }
  }

  async provenAt(): Promise<Date | undefined> {
    const [row] = await this.#session.query(
      `SELECT started_at FROM waybill.drift_run WHERE flow = ${quoteText(this.#flow)} AND state = 'done' AND tables <> '{}'
          AND JSON_EXTRACT(tables, '$.*.findings[*]') IS NULL
          AND coalesce(CAST(JSON_EXTRACT(tables, '$.*.unresolved') AS char), '') NOT REGEXP '[1-9]'
        ORDER BY id DESC LIMIT 1`,
      'reading when both sides were proven equal',
    );
    return row === undefined ? undefined : toDate(row[0]!);
  }

  async save(run: DriftRun, _table: string): Promise<void> {
    await this.#write(
      run,
      `tables = ${quoteText(JSON.stringify(Object.fromEntries(run.tables)))}`,
      'storing how far a verification is',
    );
  }

  /** Changes a run that is under way. Throws `lease_lost` where it is not any more. */
  async #write(run: DriftRun, change: string, doing: string): Promise<void> {
    const id = Number(run.id);
    await this.#inTransaction(doing, async () => {
      await this.#lock(id, doing);
      await this.#session.query(`UPDATE waybill.drift_run SET ${change} WHERE id = ${id}`, doing);
    });
  }

  async settle(run: DriftRun, schema: string, name: string, shown: ShownRows): Promise<void> {
    const doing = 'storing findings';
    const findings = run.tables.get(`${schema}.${name}`)?.findings ?? [];
    const table = `flow = ${quoteText(this.#flow)} AND table_schema = ${quoteText(schema)} AND table_name = ${quoteText(name)}`;
    await this.#inTransaction(doing, async () => {
      const open = await this.#session.query(
        `SELECT row_hash, found_at FROM waybill.drift WHERE ${table} AND state = 'open' FOR UPDATE`,
        doing,
      );
      const foundAt = new Map(open.map(([hash, at]) => [hash!, at!]));
      const found = new Set(findings.map((finding) => hashOf(finding.id)));
      const gone = [...foundAt.keys()].filter((hash) => !found.has(hash));
      await this.#close(table, gone, "state = 'gone', closed_at = UTC_TIMESTAMP(6)");
      const still = [...foundAt.keys()].filter((hash) => found.has(hash));
      for (const piece of pieces(still))
        await this.#session.query(
          `DELETE FROM waybill.drift WHERE ${table} AND state = 'open' AND row_hash IN (${piece.map(quoteText).join(', ')})`,
          doing,
        );
      for (const piece of pieces(findings)) {
        const rows = piece.map((finding) => this.#row(run, { schema, name }, finding, foundAt, shown));
        await this.#session.query(
          'INSERT INTO waybill.drift (run, flow, source, table_schema, table_name, row_hash, row_id, kind, `key`,' +
            ` source_digest, target_digest, copies, found_at, confirmed_at, key_columns, images) VALUES ${rows.join(', ')}`,
          doing,
        );
      }
    });
  }

  async #close(table: string, hashes: readonly string[], change: string): Promise<void> {
    for (const piece of pieces(hashes))
      await this.#session.query(
        `UPDATE waybill.drift SET ${change} WHERE ${table} AND state = 'open' AND row_hash IN (${piece.map(quoteText).join(', ')})`,
        'closing findings',
      );
  }

  #row(
    run: DriftRun,
    { schema, name }: { readonly schema: string; readonly name: string },
    finding: Finding,
    foundAt: ReadonlyMap<string, string>,
    shown: ShownRows,
  ): string {
    const images = shown.images.get(finding.id);
    const hash = hashOf(finding.id);
    const since = foundAt.get(hash);
    const key = finding.key === null ? 'NULL' : quoteText(JSON.stringify(finding.key));
    const texts = [this.#flow, this.#source, schema, name, hash, finding.id, finding.kind].map(quoteText).join(', ');
    return (
      `(${Number(run.id)}, ${texts}, ${key}, ${literal(finding.sourceDigest)}, ${literal(finding.targetDigest)},` +
      ` ${finding.copies}, ${since === undefined ? 'UTC_TIMESTAMP(6)' : quoteText(since)}, UTC_TIMESTAMP(6),` +
      ` ${quoteText(JSON.stringify(shown.key))}, ${literal(images === undefined ? undefined : JSON.stringify(images))})`
    );
  }

  async openRows(): ReturnType<DriftStore['openRows']> {
    const rows = await this.#session.query(
      `SELECT table_schema, table_name, kind, SUM(copies) FROM waybill.drift
        WHERE flow = ${quoteText(this.#flow)} AND state = 'open' GROUP BY table_schema, table_name, kind`,
      'reading what is known to differ',
    );
    return sumOpen(
      rows.map(([schema, name, kind, sum]) => ({ schema: schema!, name: name!, kind: kind!, rows: Number(sum) })),
    );
  }

  async finish(run: DriftRun, end: RunEnd): Promise<void> {
    const error = literal(end.state === 'failed' ? end.error : undefined);
    await this.#write(
      run,
      `state = ${quoteText(end.state)}, error = ${error}, finished_at = UTC_TIMESTAMP(6)`,
      'ending a verification',
    );
    if (end.state === 'failed') return;
    const compared = end.compared.length === 0 ? "''" : end.compared.map(quoteText).join(', ');
    await this.#session.query(
      `UPDATE waybill.drift SET state = 'gone', closed_at = UTC_TIMESTAMP(6)
        WHERE flow = ${quoteText(this.#flow)} AND state = 'open'
          AND CONCAT(table_schema, '.', table_name) NOT IN (${compared})`,
      'closing findings',
    );
  }

  async close(): Promise<void> {
    this.#session.close();
  }
}

function pieces<T>(all: readonly T[]): T[][] {
  const result: T[][] = [];
  for (let at = 0; at < all.length; at += ROWS_PER_INSERT) result.push(all.slice(at, at + ROWS_PER_INSERT));
  return result;
}

function toRun(id: string, startedAt: string, tables: string): DriftRun {
  return {
    id,
    startedAt: toDate(startedAt),
    tables: new Map(Object.entries(JSON.parse(tables) as Record<string, TableProgress>)),
  };
}

function toDate(text: string): Date {
  return new Date(`${text.replace(' ', 'T')}Z`);
}
