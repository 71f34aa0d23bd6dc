/** What `waybill check` says of a MySQL or MariaDB source, each finding with the SQL that mends it. Changes nothing. */
import type { MysqlSourceConfig } from '../../core/config.ts';
import { asReplicationError } from '../../core/errors.ts';
import { ColumnRules } from '../../core/column-rules.ts';
import type { Finding } from '../../core/finding.ts';
import { heldRights, readGrants } from '../../core/mysql-rights.ts';
import { serverName, serverUrls } from '../../core/source-url.ts';
import { checkColumnRules, type Add } from '../column-findings.ts';
import { matchingTables, tableName, type CapturedTable } from './catalog.ts';
import { connectChosen } from './choose-server.ts';
import { connectSource, quoteIdent, type SqlClient, type TextRow } from './connection.ts';
import { readFacts, settingProblems } from './inspect.ts';
import { describeUnlogged, describeUnloggedReplication, readUnlogged, readUnloggedReplication } from './log-filter.ts';
import { readRetainedBytes } from './retained-log.ts';
import { sourceError } from './source-error.ts';

/** Checks a source. An unreachable one is a finding, not an error. */
export async function checkMysqlSource(name: string, settings: MysqlSourceConfig): Promise<Finding[]> {
  const urls = serverUrls(settings.url);
  if (urls.length === 1) return await checkServer(`source ${name}`, settings, false);
  const findings: Finding[] = [];
  for (const url of urls) {
    const subject = `source ${name} (${serverName(url)})`;
    findings.push(...(await checkServer(subject, { ...settings, url }, true)));
  }
  try {
    const { client, settings: chosen } = await connectChosen(settings);
    client.end();
    const message = `reads from ${serverName(chosen.url)}, the others take over from it`;
    findings.push({ severity: 'ok', subject: `source ${name}: servers`, message });
  } catch (thrown) {
    const { code, message, remedy } = asReplicationError(thrown);
    findings.push({ severity: 'error', subject: `source ${name}: ${code}`, message, remedy });
  }
  return findings;
}

/** @param takesOver whether the server is one of several, which take over from each other */
async function checkServer(of: string, settings: MysqlSourceConfig, takesOver: boolean): Promise<Finding[]> {
  const findings: Finding[] = [];
  const add: Add = (severity, what, message, remedy) => {
    findings.push({
      severity,
      subject: `${of}: ${what}`,
      message,
      ...(remedy === undefined ? {} : { remedy }),
    });
  };
  let client: SqlClient | undefined;
  try {
    client = await connectSource(settings);
    add('ok', 'connection', 'reachable');
    const facts = await readFacts(client, settings.kind);
    const problems = settingProblems(facts, settings.kind);
    for (const { severity, setting, message, remedy } of problems) add(severity, setting, message, remedy);
    if (problems.every(({ severity }) => severity !== 'error'))
      add('ok', 'server', `${facts.version}, row-based log with full images and metadata`);
    if (takesOver) await checkTakingOver(client, settings, add);
    else {
      const setting = await readUnloggedReplication(client, settings.kind);
      if (setting !== undefined)
        add(
          'error',
          setting,
          describeUnloggedReplication(setting),
          `Start the server with --${setting.replaceAll('_', '-')} (restart needed).`,
        );
    }
    await checkPrivileges(client, settings, add);
    await checkServerId(client, facts.variables.get('server_id') ?? '', settings, add);
    await checkPreparedXa(client, add);
    const retained = await readRetainedBytes(client);
    add(
      retained === undefined ? 'warning' : 'ok',
      'retained log',
      retained === undefined ? 'this user may not see how much log there is' : `${retained} bytes`,
      ...(retained === undefined ? ['See `waybill grants SOURCE`.'] : []),
    );
    add(
      'ok',
      'session',
      `sql_mode '${facts.variables.get('sql_mode') ?? ''}', time_zone ${facts.variables.get('time_zone') ?? ''} of the source do not matter: Waybill reads in UTC with its own`,
    );
    const tables = await matchingTables(client, settings.kind, settings.tables);
    add('ok', 'tables', `${tables.length} match`);
    for (const table of tables) checkTable(table, add);
    const databases = tables.map(({ schema }) => schema.schema);
    for (const unlogged of await readUnlogged(client, settings.kind, databases))
      add(
        'error',
        unlogged.setting,
        describeUnlogged(unlogged),
        'Take it out of the settings of the server (restart needed), or out of `tables`.',
      );
    await checkForeignKeys(client, tables, add);
    checkColumnRules(
      ColumnRules.compile(settings.columns),
      tables.map(({ schema }) => schema),
      add,
    );
  } catch (thrown) {
    const error = asReplicationError(client === undefined ? thrown : sourceError(thrown, 'checking the source'));
    // Of several servers, one may be down: whether any is left to read from is a finding of its own.
    const standsBy = takesOver && error.code === 'source_unreachable';
    add(standsBy ? 'warning' : 'error', error.code, error.message, error.remedy);
  } finally {
    client?.end();
  }
  return findings;
}

/** A replica that does not write into its own log what it replicates has nothing to go on with. */
async function checkTakingOver(client: SqlClient, settings: MysqlSourceConfig, add: Add): Promise<void> {
  const [row] = await client.query(
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_replica_updates', 'log_slave_updates')",
    'asking what a replica logs',
  );
  const [setting, value] = row ?? [];
  if (value === 'ON') add('ok', 'take-over', 'logs what it replicates');
  else
    add(
      'error',
      'take-over',
      `${setting ?? 'log_slave_updates'} is off: as a replica it cannot take over, since its log lacks what it replicates`,
      `Start the server with --${settings.kind === 'mysql' ? 'log-replica-updates' : 'log-slave-updates'} (restart needed).`,
    );
}

async function checkPrivileges(client: SqlClient, settings: MysqlSourceConfig, add: Add): Promise<void> {
  const query = (sql: string): Promise<TextRow[]> => client.query(sql, 'reading the grants');
  const grants = await readGrants(query, settings.kind);
  const global = grants.filter((text) => / ON \*\.\* /.test(text)).join('\n');
  if (/ALL PRIVILEGES|REPLICATION SLAVE\b/.test(global)) add('ok', 'privileges', 'may read the log');
  else
    add(
      'error',
      'privileges',
      'lacks REPLICATION SLAVE',
      `GRANT REPLICATION SLAVE ON *.* TO ${(await currentUser(client)) ?? 'the user'};`,
    );
  const other = settings.kind === 'mysql' ? /REPLICATION CLIENT/ : /BINLOG MONITOR|SUPER|REPLICATION CLIENT/;
  if (!/ALL PRIVILEGES/.test(global) && !other.test(global))
    add('warning', 'privileges', 'may not see the size of the log', 'See `waybill grants SOURCE`.');
  for (const database of databasesWithPatterns(settings.tables))
    if (!heldRights(grants, database)('SELECT'))
      add(
        'warning',
        'privileges',
        `may not read all tables of ${database}: those that it may not read are left out, and are not seen here`,
        'See `waybill grants SOURCE`, or name the tables one by one.',
      );
}

/** Databases of which a pattern chooses more than one table. */
function databasesWithPatterns(patterns: readonly string[]): Set<string> {
  const chosen = patterns.filter((pattern) => !pattern.startsWith('!'));
  const split = chosen.map((pattern) => [pattern.slice(0, pattern.indexOf('.')), pattern] as const);
  return new Set(
    split.flatMap(([database, pattern]) => (!database.includes('*') && pattern.includes('*') ? [database] : [])),
  );
}

async function currentUser(client: SqlClient): Promise<string | undefined> {
  const [[text] = []] = await client.query('SELECT CURRENT_USER()', 'reading the user');
  const match = /^(.*)@([^@]*)$/.exec(text ?? '');
  return match === null ? undefined : `'${match[1]}'@'${match[2]}'`;
}

async function checkServerId(client: SqlClient, theirs: string, settings: MysqlSourceConfig, add: Add): Promise<void> {
  const own = settings.server_id;
  if (own === undefined) {
    add('ok', 'server_id', 'each installation reads under an id of its own');
    return;
  }
  if (String(own) === theirs) {
    add('error', 'server_id', `${own} is the id of the source itself`, 'Set sources.*.server_id to another number.');
    return;
  }
  try {
    const sql = settings.kind === 'mysql' ? 'SHOW REPLICAS' : 'SHOW SLAVE HOSTS';
    const registered = (await client.query(sql, 'listing replicas')).map(([id]) => id);
    if (registered.includes(String(own)))
      add('error', 'server_id', `${own} is a replica of this source`, 'Set sources.*.server_id to another number.');
    else add('ok', 'server_id', `${own} is free among ${registered.length} replicas`);
  } catch (thrown) {
    const error = asReplicationError(thrown);
    if (error.code !== 'source_privilege' && error.code !== 'source_query') throw error;
    add('ok', 'server_id', `${own} (this user may not see the replicas)`);
  }
}

/** Their rows are not in the log that a new capture reads; at their commit all tables are read again. */
async function checkPreparedXa(client: SqlClient, add: Add): Promise<void> {
  try {
    const prepared = await client.query('XA RECOVER', 'listing XA transactions');
    if (prepared.length > 0)
      add(
        'warning',
        'XA',
        `${prepared.length} XA transaction(s) are prepared; committed after a first start they make all tables be read again`,
        'Finish them before the first start: XA RECOVER lists them.',
      );
  } catch (thrown) {
    const error = asReplicationError(thrown);
    if (error.code !== 'source_privilege' && error.code !== 'source_query') throw error;
  }
}

/** Of a foreign key in the text of a table's definition: what happens to rows when the row that they refer to goes or changes. */
const BY_FOREIGN_KEY = /^\s*CONSTRAINT .* FOREIGN KEY .* ON (?:DELETE|UPDATE) (?:CASCADE|SET NULL|SET DEFAULT)/m;

/**
 * What a foreign key does to rows InnoDB does by itself, and the log has nothing of it; from MySQL 9.6 on the server does it,
 * unless it was started with innodb_native_foreign_keys.
 */
async function checkForeignKeys(client: SqlClient, tables: readonly CapturedTable[], add: Add): Promise<void> {
  const [[, native] = []] = await client.query(
    "SHOW GLOBAL VARIABLES LIKE 'innodb_native_foreign_keys'",
    'asking who carries out foreign keys',
  );
  if (native === 'OFF') return;
  for (const { schema } of tables) {
    const name = `${quoteIdent(schema.schema)}.${quoteIdent(schema.name)}`;
    const [[, definition] = []] = await client.query(`SHOW CREATE TABLE ${name}`, 'reading the definition of a table');
    if (BY_FOREIGN_KEY.test(definition ?? ''))
      add(
        'warning',
        tableName(schema),
        'has a foreign key that deletes or changes rows by itself (CASCADE, SET NULL): this server does not log that, so that no capture sees it',
        'Let the application delete or change these rows itself, or have them mended: `waybill verify --repair`, see the runbook.',
      );
  }
}

function checkTable(table: CapturedTable, add: Add): void {
  const { schema } = table;
  const name = `${quoteIdent(schema.schema)}.${quoteIdent(schema.name)}`;
  if (schema.key.length === 0)
    add(
      'warning',
      tableName(schema),
      'has no key: rows are found by their whole content, and the first load repeats while the table is written to',
      `ALTER TABLE ${name} ADD PRIMARY KEY (...);`,
    );
  if (!table.transactional)
    add(
      'warning',
      tableName(schema),
      'is not transactional: a crash of the source may leave its log and the table different',
      `ALTER TABLE ${name} ENGINE = InnoDB;`,
    );
}
