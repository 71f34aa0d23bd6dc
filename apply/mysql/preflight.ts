/** What `waybill check` says of a MySQL or MariaDB target. Changes nothing. */
import type { FlowConfig, TargetConfig } from '../../core/config.ts';
import { asReplicationError } from '../../core/errors.ts';
import type { Finding } from '../../core/finding.ts';
import type { TableSchema } from '../../core/frame.ts';
import { heldRights, readGrants } from '../../core/mysql-rights.ts';
import { compileTablePatterns } from '../../core/table-pattern.ts';
import { FLOW_RIGHTS, OWN_RIGHTS } from './grants.ts';
import { databaseOf, MysqlSession } from './session.ts';
import { addNotices, noticesOf } from '../followed-tables.ts';
import { SOFT_REMEDY, softProblems } from '../soft-problems.ts';
import { shapeProblems } from './table-shape.ts';
import { targetDatabase } from './table-places.ts';
import { readTableRecords } from './table-records.ts';
import { readTable } from './target-table.ts';
import { targetError } from './target-error.ts';

/** The oldest releases that have what is used here: row aliases and exact collations; uuid and no-pad collations. */
const OLDEST = { mysql: [8, 0, 19], mariadb: [10, 7, 0] } as const;
const REMEDY_FOR_RIGHTS = 'waybill grants';

type Add = (severity: Finding['severity'], what: string, message: string, remedy?: string) => void;

/** Checks a target for the flows that write to it. An unreachable one is a finding, not an error. */
export async function checkTarget(
  name: string,
  target: TargetConfig,
  flows: Readonly<Record<string, FlowConfig>>,
  tables: Readonly<Record<string, readonly TableSchema[]>>,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  const add: Add = (severity, what, message, remedy) => {
    findings.push({
      severity,
      subject: `target ${name}: ${what}`,
      message,
      ...(remedy === undefined ? {} : { remedy }),
    });
  };
  let session: MysqlSession | undefined;
  try {
    session = await MysqlSession.open(target, 'waybill check');
    add('ok', 'connection', 'reachable');
    checkServer(session, target, add);
    const grants = `${REMEDY_FOR_RIGHTS} ${name}`;
    await checkRights(session, 'waybill', 'rights', 'keep positions in database waybill', grants, add, OWN_RIGHTS);
    for (const [flow, settings] of Object.entries(flows)) {
      if (settings.to !== name) continue;
      const what = `flow ${flow}`;
      const known = tables[flow] ?? [];
      const included = settings.tables === undefined ? () => true : compileTablePatterns(settings.tables);
      const ofUrl = databaseOf(target.url);
      const databases = new Set(known.map((table) => targetDatabase(table, settings, ofUrl)));
      if (settings.schema !== undefined) databases.add(settings.schema);
      for (const database of databases)
        await checkRights(session, database, what, `write into database ${database}`, grants, add, FLOW_RIGHTS);
      for (const table of known) {
        if (!included(table.schema, table.name)) continue;
        const database = targetDatabase(table, settings, ofUrl);
        const found = await readTable(session, database, table.name);
        const say = (problem: string, remedy: string): void =>
          add('error', what, `table ${database}.${table.name}: ${problem}`, remedy);
        for (const problem of softProblems(table, settings)) say(problem, SOFT_REMEDY);
        for (const problem of shapeProblems(table, database, found, session.facts.flavour, settings.deletes))
          say(problem, 'see docs/type-mapping.md');
      }
      addNotices(noticesOf(await readTableRecords(session, flow, true)), settings.mirror, what, add);
    }
  } catch (thrown) {
    const error = asReplicationError(session === undefined ? thrown : targetError(thrown, 'checking the target'));
    add('error', error.code, error.message, error.remedy);
  } finally {
    await session?.close();
  }
  return findings;
}

function checkServer({ facts }: MysqlSession, target: TargetConfig, add: Add): void {
  const { flavour, version, localInfile, readOnly } = facts;
  const called = { mysql: 'MySQL', mariadb: 'MariaDB' }[flavour];
  if (flavour !== target.kind)
    add('error', 'server', `is ${called} ${version}`, `set kind: ${flavour} for this target`);
  const numbers = version.split(/[.-]/).map(Number);
  const oldest = OLDEST[flavour];
  const place = oldest.findIndex((number, index) => number !== numbers[index]);
  if (place >= 0 && (numbers[place] ?? 0) < oldest[place]!)
    add('error', 'server', `${called} ${version} is too old`, `use ${oldest.join('.')} or later`);
  if (readOnly) add('error', 'server', 'is read-only', 'point the url at the primary');
  if (localInfile) add('ok', 'server', 'LOAD DATA LOCAL is allowed');
  else
    add(
      'warning',
      'server',
      'local_infile is off: large batches travel as INSERT statements, which is slower',
      'SET PERSIST local_infile = ON (MySQL) or SET GLOBAL local_infile = ON (MariaDB)',
    );
}

/** What Waybill does in a database, and with which right. */
async function checkRights(
  session: MysqlSession,
  database: string,
  what: string,
  doing: string,
  remedy: string,
  add: Add,
  wanted: readonly string[],
): Promise<void> {
  const [user] = await session.rows('SELECT CURRENT_USER()');
  const account = user![0]!;
  const holds = heldRights(await readGrants((sql) => session.rows(sql), session.facts.flavour), database);
  const missing = wanted.filter((right) => !holds(right));
  if (missing.length === 0) add('ok', what, `${account} may ${doing}`);
  else add('error', what, `${account} lacks ${missing.join(', ')} to ${doing}`, remedy);
}
