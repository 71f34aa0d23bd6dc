/** What `waybill check` says of a Postgres source, each finding with the SQL that mends it. Changes nothing. */
import type pg from 'pg';
import { publicationName, slotName, type PostgresSourceConfig } from '../../core/config.ts';
import { asReplicationError } from '../../core/errors.ts';
import { ColumnRules } from '../../core/column-rules.ts';
import type { Finding } from '../../core/finding.ts';
import { hasIdentity, type CapturedTable } from './catalog.ts';
import { connectSource } from './connection.ts';
import { checkColumnRules, type Add } from '../column-findings.ts';
import { inspectSource } from './inspect.ts';
import { matchingTables, partialPublication, publicationSql, qualifiedName, readPublication } from './publication.ts';
import { describeProblems, identityProblems } from './replica-identity.ts';
import { readSlot, twoPhaseSlot } from './slot.ts';
import { sourceError } from './source-error.ts';
import { checkSpool } from './spool-check.ts';
import { unreadableTables } from './unreadable-tables.ts';

/** Checks a source. An unreachable one is a finding, not an error. */
export async function checkPostgresSource(
  name: string,
  settings: PostgresSourceConfig,
  prefix: string,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  const add = (severity: Finding['severity'], what: string, message: string, remedy?: string): void => {
    findings.push({
      severity,
      subject: `source ${name}: ${what}`,
      message,
      ...(remedy === undefined ? {} : { remedy }),
    });
  };
  let client: pg.Client | undefined;
  try {
    client = await connectSource(settings, 'waybill check');
    add('ok', 'connection', 'reachable');
    const facts = await inspectSource(client);
    add('ok', 'server', `PostgreSQL ${Math.floor(facts.version / 10_000)}, wal_level logical, UTF-8 text`);
    await checkRole(client, add);
    await checkCapacity(client, slotName(name, settings, prefix), add);
    const tables = await matchingTables(client, settings.tables);
    add('ok', 'tables', `${tables.length} match`);
    const publication = publicationName(name, settings, prefix);
    await checkTables(client, publication, tables, add);
    checkColumnRules(
      ColumnRules.compile(settings.columns),
      tables.map((table) => table.schema),
      add,
    );
    await checkSpool(settings, add);
    const found = await readPublication(client, publication);
    const partial = partialPublication(publication, found, tables);
    const missing = publicationSql(publication, found, tables);
    if (partial !== undefined) add('error', 'publication', partial.message, `${partial.sql};`);
    else if (missing.length === 0) add('ok', 'publication', `${publication} covers them`);
    else if (await mayPublish(client, tables))
      add('ok', 'publication', `${publication} will be made or completed at the start`);
    else
      add(
        'error',
        'publication',
        `${publication} does not cover the tables and this user may not change it`,
        `${missing.join('; ')};`,
      );
  } catch (thrown) {
    const error = asReplicationError(client === undefined ? thrown : sourceError(thrown, 'checking the source'));
    add('error', error.code, error.message, error.remedy);
  } finally {
    await client?.end().catch(() => {});
  }
  return findings;
}

async function checkRole(client: pg.Client, add: Add): Promise<void> {
  const { rows } = await client.query<{ role: string; ok: boolean }>(
    'select current_user as role, rolreplication or rolsuper as ok from pg_roles where rolname = current_user',
  );
  const row = rows[0]!;
  if (row.ok) add('ok', 'role', `${row.role} may replicate`);
  else add('error', 'role', `${row.role} lacks the REPLICATION attribute`, `ALTER ROLE "${row.role}" REPLICATION;`);
}

async function checkCapacity(client: pg.Client, slot: string, add: Add): Promise<void> {
  const info = await readSlot(client, slot);
  const { rows } = await client.query<{
    used: number;
    slots: number;
    senders: number;
    walsenders: number;
    keep: string;
    timeout: string;
    unit: string;
  }>(
    `select (select count(*)::int from pg_replication_slots) as used, current_setting('max_replication_slots')::int as slots,
       (select count(*)::int from pg_stat_replication) as senders, current_setting('max_wal_senders')::int as walsenders,
       current_setting('max_slot_wal_keep_size') as keep, current_setting('wal_sender_timeout') as timeout, '' as unit`,
  );
  const row = rows[0]!;
  if (info === undefined) {
    if (row.used >= row.slots)
      add(
        'error',
        'slots',
        `all ${row.slots} replication slots are taken`,
        `ALTER SYSTEM SET max_replication_slots = ${row.slots + 5}; -- then restart`,
      );
    else add('ok', 'slots', `${row.slots - row.used} of ${row.slots} free; ${slot} will be made`);
  } else if (info.walStatus === 'lost') add('error', 'slot', `${slot} is lost`, 'waybill snapshot SOURCE --reset');
  else if (info.plugin !== 'pgoutput')
    add('error', 'slot', `${slot} exists with plugin ${info.plugin}`, 'choose another name with sources.*.slot');
  else if (info.twoPhase) add('error', 'slot', twoPhaseSlot(slot).message, twoPhaseSlot(slot).sql);
  else
    add(
      'ok',
      'slot',
      `${slot} exists${info.active ? ' and is being read' : ''}; it keeps ${info.retainedBytes} bytes of WAL`,
    );
  if (row.senders >= row.walsenders)
    add(
      'error',
      'walsenders',
      `all ${row.walsenders} are taken`,
      `ALTER SYSTEM SET max_wal_senders = ${row.walsenders + 5}; -- then restart`,
    );
  if (row.keep === '-1')
    add(
      'warning',
      'max_slot_wal_keep_size',
      'a capture that stays away lets WAL grow without limit',
      "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf(); -- as much as the disk can spare",
    );
}

async function checkTables(
  client: pg.Client,
  publication: string,
  tables: readonly CapturedTable[],
  add: Add,
): Promise<void> {
  for (const table of tables) {
    const { schema, name } = table.schema;
    if (!hasIdentity(table.schema))
      add(
        'error',
        `${schema}.${name}`,
        'has no primary key (a deferrable one does not count) and no replica identity',
        `ALTER TABLE ${qualifiedName(table.schema)} REPLICA IDENTITY FULL;`,
      );
    else if (table.keyIndexes.length === 0)
      add(
        'warning',
        `${schema}.${name}`,
        'has no key: rows are found by their whole content, and the first load repeats while the table is written to',
        `ALTER TABLE ${qualifiedName(table.schema)} ADD PRIMARY KEY (...);`,
      );
  }
  for (const problem of await identityProblems(client, publication, tables)) {
    const { root, leaf, fails, generated, sql } = problem;
    add(
      'error',
      `${leaf.schema}.${leaf.name}`,
      generated.length > 0
        ? describeProblems([problem])
        : `its replica identity does not tell of updates and deletes what ${qualifiedName(root.schema)}, of which it is a partition, needs${fails ? ': once published, they fail at the source' : ''}`,
      sql,
    );
  }
  const unreadable = await unreadableTables(
    client,
    tables.map((table) => table.oid),
  );
  for (const { table, message, sql, by } of unreadable) add('error', table, message, `${sql} -- ${by}`);
}

/** Whether this user may make the publication: CREATE on the database and ownership of every table. */
async function mayPublish(client: pg.Client, tables: readonly CapturedTable[]): Promise<boolean> {
  const { rows } = await client.query<{ ok: boolean }>(
    `select has_database_privilege(current_database(), 'CREATE')
       and (select bool_and(pg_has_role(relowner, 'USAGE')) from pg_class where oid = any($1::oid[])) as ok`,
    [tables.map((table) => table.oid)],
  );
  return rows[0]?.ok === true;
}
