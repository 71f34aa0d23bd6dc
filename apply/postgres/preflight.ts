/** What `waybill check` says of a Postgres target. Changes nothing. */
import type { FlowConfig, TargetConfig } from '../../core/config.ts';
import { asReplicationError, ReplicationError } from '../../core/errors.ts';
import type { Finding } from '../../core/finding.ts';
import type { TableSchema } from '../../core/frame.ts';
import { compileTablePatterns } from '../../core/table-pattern.ts';
import { addNotices, noticesOf } from '../followed-tables.ts';
import { openTargetSession, type TargetSession } from './session.ts';
import { quoteName } from './sql.ts';
import { readTableRecords } from './table-records.ts';
import { targetError } from './target-error.ts';
import { existingProblems, type WantedTable } from './target-table.ts';
import { foreignProblems } from './table-shape.ts';
import { SOFT_REMEDY, softProblems } from '../soft-problems.ts';
import { targetSchema } from '../target-schema.ts';

const MIN_SERVER_VERSION = 140_000;

/** Checks a target for the flows that write to it. An unreachable one is a finding, not an error. */
export async function checkTarget(
  name: string,
  target: TargetConfig,
  flows: Readonly<Record<string, FlowConfig>>,
  tables: Readonly<Record<string, readonly TableSchema[]>>,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  const add = (severity: Finding['severity'], what: string, message: string, remedy?: string): void => {
    findings.push({
      severity,
      subject: `target ${name}: ${what}`,
      message,
      ...(remedy === undefined ? {} : { remedy }),
    });
  };
  let session: TargetSession | undefined;
  try {
    session = await openTargetSession(target, 'waybill check');
    const { client } = session;
    add('ok', 'connection', 'reachable');
    const { rows } = await client.query<{
      version: number;
      standby: boolean;
      create: boolean;
      temp: boolean;
      waybill: boolean;
      role: string;
    }>(
      `SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS standby, current_user AS role,
         has_database_privilege(current_database(), 'CREATE') AS create, has_database_privilege(current_database(), 'TEMP') AS temp,
         coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = 'waybill'), false) AS waybill`,
    );
    const facts = rows[0]!;
    if (facts.version < MIN_SERVER_VERSION)
      add('error', 'server', `PostgreSQL ${Math.floor(facts.version / 10_000)} is too old`, 'use 14 or later');
    if (facts.standby) add('error', 'server', 'is a standby and cannot be written to', 'point the url at the primary');
    const grants = `waybill grants ${name}`;
    if (!facts.temp) add('error', 'rights', `${facts.role} may not make temporary tables`, grants);
    if (facts.create || facts.waybill) add('ok', 'rights', `${facts.role} may keep positions in schema waybill`);
    else add('error', 'rights', `${facts.role} may not make schema waybill`, grants);
    for (const [flow, settings] of Object.entries(flows)) {
      if (settings.to !== name) continue;
      const included = settings.tables === undefined ? () => true : compileTablePatterns(settings.tables);
      const records = await readTableRecords(client, flow);
      const followed = new Map(records.map(({ schema, name: of, definition }) => [`${schema}.${of}`, definition]));
      const writable: WantedTable[] = [];
      for (const table of tables[flow] ?? []) {
        if (!included(table.schema, table.name)) continue;
        const soft = softProblems(table, settings);
        const foreign = foreignProblems(table, settings);
        const say = (problem: string, remedy: string): void =>
          add('error', `flow ${flow}`, `table ${table.schema}.${table.name}: ${problem}`, remedy);
        for (const problem of soft) say(problem, SOFT_REMEDY);
        for (const problem of foreign) say(problem, 'see docs/type-mapping.md');
        // What the flow has yet to follow it alters the table for: until then that fits what it has followed.
        const version = followed.get(`${table.schema}.${table.name}`) ?? table;
        if (soft.length + foreign.length === 0)
          writable.push({ table: version, schema: targetSchema(table, settings) });
      }
      for (const [index, problems] of (await existingProblems(client, writable, settings)).entries())
        for (const { severity, message, ofRights } of problems) {
          const { table, schema } = writable[index]!;
          add(
            severity,
            `flow ${flow}`,
            `target table ${schema}.${table.name}: ${message}`,
            ofRights ? grants : new ReplicationError('target_shape', '').remedy,
          );
        }
      addNotices(noticesOf(records), settings.mirror, `flow ${flow}`, add);
      if (settings.schema === undefined) continue;
      const found = await client.query<{ ok: boolean }>(
        "SELECT has_schema_privilege(oid, 'CREATE, USAGE') AS ok FROM pg_namespace WHERE nspname = $1",
        [settings.schema],
      );
      const ok = found.rows[0]?.ok ?? facts.create;
      if (ok) add('ok', `flow ${flow}`, `may write into schema ${quoteName(settings.schema)}`);
      else
        add('error', `flow ${flow}`, `${facts.role} may not write into schema ${quoteName(settings.schema)}`, grants);
    }
  } catch (thrown) {
    const error = asReplicationError(session === undefined ? thrown : targetError(thrown, 'checking the target'));
    add('error', error.code, error.message, error.remedy);
  } finally {
    await session?.close();
  }
  return findings;
}
