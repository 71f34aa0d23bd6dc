/** An event trigger that writes schema marks in the transaction of the change itself. Optional: see docs/schema-changes.md. */
import { CATALOG_SQL } from './catalog.ts';
import { DDL_PREFIX } from './log-marks.ts';

export const DDL_TRIGGERS = ['waybill_ddl', 'waybill_drop'];
/** In the schema `waybill`. */
export const DDL_FUNCTION = 'note_ddl';

/**
 * The SQL that makes the trigger, for a superuser or whoever may make event triggers. It needs no right of those who
 * change tables. It has no exception handler: that would be a subtransaction, whose messages are decoded behind the
 * other changes of their transaction.
 */
export function ddlTriggerSql(): string {
  const row = CATALOG_SQL.replaceAll('$1', 'true').replaceAll('$2', 'v_oid').trim();
  return `CREATE SCHEMA IF NOT EXISTS waybill;
GRANT USAGE ON SCHEMA waybill TO PUBLIC;
CREATE OR REPLACE FUNCTION waybill.note_ddl() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $waybill$
DECLARE
  v_oid oid;
  v_row json;
BEGIN
  IF TG_EVENT = 'sql_drop' THEN
    FOR v_oid IN SELECT objid FROM pg_event_trigger_dropped_objects() WHERE object_type = 'table' AND NOT is_temporary LOOP
      PERFORM pg_logical_emit_message(true, '${DDL_PREFIX}',
        json_build_object('k', 'gone', 'oid', v_oid::int8, 'why', 'dropped')::text);
    END LOOP;
    RETURN;
  END IF;
  FOR v_oid IN SELECT DISTINCT coalesce(pg_partition_root(objid), objid) FROM pg_event_trigger_ddl_commands()
      WHERE classid = 'pg_class'::regclass AND object_type LIKE 'table%' LOOP
    SELECT to_json(t) INTO v_row FROM (${row}) t WHERE t.columns IS NOT NULL;
    IF v_row IS NOT NULL THEN
      PERFORM pg_logical_emit_message(true, '${DDL_PREFIX}',
        json_build_object('k', 'table', 'oid', v_oid::int8, 'row', v_row)::text);
    END IF;
  END LOOP;
END $waybill$;
DROP EVENT TRIGGER IF EXISTS waybill_ddl;
CREATE EVENT TRIGGER waybill_ddl ON ddl_command_end EXECUTE FUNCTION waybill.note_ddl();
DROP EVENT TRIGGER IF EXISTS waybill_drop;
CREATE EVENT TRIGGER waybill_drop ON sql_drop EXECUTE FUNCTION waybill.note_ddl();`;
}
