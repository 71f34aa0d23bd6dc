/** What Waybill keeps in a target: the schema `waybill`, made when it is missing. */
import type { ClientBase } from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import { targetError } from './target-error.ts';

/** Any number, the same in every process: only one creates the objects at a time. */
export const CREATION_LOCK = 7_492_114;

const TABLES = `
CREATE TABLE IF NOT EXISTS waybill.position (
  flow text NOT NULL, source text NOT NULL, position text COLLATE "C" NOT NULL, stream text NOT NULL,
  stream_seq bigint NOT NULL, commit_time timestamptz, quarantine_version bigint NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (flow, source));
CREATE TABLE IF NOT EXISTS waybill.quarantine (
  id bigserial PRIMARY KEY, flow text NOT NULL, source text NOT NULL, table_schema text NOT NULL,
  table_name text NOT NULL, key text, position text NOT NULL, ordinal int NOT NULL, op text NOT NULL,
  reason text NOT NULL, sqlstate text, message text, change jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(), hold text);
ALTER TABLE waybill.quarantine ADD COLUMN IF NOT EXISTS hold text;
CREATE UNIQUE INDEX IF NOT EXISTS quarantine_hold ON waybill.quarantine (flow, hold);
CREATE INDEX IF NOT EXISTS quarantine_key ON waybill.quarantine (flow, table_schema, table_name, id);
CREATE TABLE IF NOT EXISTS waybill.tables (
  flow text NOT NULL, source text NOT NULL, table_schema text NOT NULL, table_name text NOT NULL, definition jsonb,
  kept jsonb NOT NULL DEFAULT '[]', pending jsonb NOT NULL DEFAULT '[]', state text NOT NULL, reason text,
  updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (flow, source, table_schema, table_name));
CREATE TABLE IF NOT EXISTS waybill.owner (flow text PRIMARY KEY, installation text NOT NULL);
CREATE TABLE IF NOT EXISTS waybill.outbound_rows (
  flow text NOT NULL, row_id text NOT NULL, record_id text NOT NULL, key text NOT NULL, PRIMARY KEY (flow, row_id));
CREATE INDEX IF NOT EXISTS outbound_rows_record ON waybill.outbound_rows (flow, record_id);`;

/**
 * Compare-and-set of the position. Invariant 5: it is called first in every target transaction, so its row lock
 * serialises writers and a writer that another one has overtaken fails before it touches data.
 */
const ADVANCE = `
CREATE OR REPLACE FUNCTION waybill.advance(p_flow text, p_source text, p_expected text, p_next text, p_stream text,
  p_seq bigint, p_commit_time timestamptz, p_quarantine_version bigint) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
  v_position text;
  v_version bigint;
BEGIN
  UPDATE waybill.position
     SET position = p_next, stream = p_stream, stream_seq = p_seq, updated_at = clock_timestamp(),
         commit_time = coalesce(p_commit_time, commit_time)
   WHERE flow = p_flow AND source = p_source AND position = p_expected AND quarantine_version = p_quarantine_version;
  IF FOUND THEN RETURN; END IF;
  SELECT position, quarantine_version INTO v_position, v_version
    FROM waybill.position WHERE flow = p_flow AND source = p_source;
  IF v_position IS DISTINCT FROM p_expected THEN
    RAISE EXCEPTION 'flow % stands at %, not at %', p_flow, v_position, p_expected USING ERRCODE = 'WB001';
  END IF;
  RAISE EXCEPTION 'the quarantine of flow % changed', p_flow USING ERRCODE = 'WB002';
END $body$;`;

/** Makes what is missing. Throws `target_privilege` when this user may not. */
export async function prepareWaybillSchema(client: ClientBase): Promise<void> {
  try {
    const { rows } = await client.query<{ complete: boolean; there: boolean }>(
      `SELECT to_regclass('waybill.position') IS NOT NULL AND to_regclass('waybill.quarantine_hold') IS NOT NULL
          AND to_regclass('waybill.tables') IS NOT NULL AND to_regclass('waybill.owner') IS NOT NULL
          AND to_regclass('waybill.outbound_rows_record') IS NOT NULL
          AND to_regprocedure('waybill.advance(text,text,text,text,text,bigint,timestamptz,bigint)') IS NOT NULL
          AS complete, to_regnamespace('waybill') IS NOT NULL AS there`,
    );
    if (rows[0]?.complete === true) return;
    // Even with IF NOT EXISTS the statement needs CREATE on the database, which a DBA need not grant.
    const schema = rows[0]?.there === true ? '' : 'CREATE SCHEMA IF NOT EXISTS waybill;';
    await client.query(`BEGIN; SELECT pg_advisory_xact_lock(${CREATION_LOCK}); ${schema} ${TABLES} ${ADVANCE} COMMIT`);
  } catch (thrown) {
    const error = targetError(thrown, 'creating schema waybill in the target');
    await client.query('ROLLBACK').catch(() => undefined);
    if (error.code !== 'target_privilege') throw error;
    throw new ReplicationError('target_privilege', error.message, { cause: thrown, context: error.context });
  }
}
