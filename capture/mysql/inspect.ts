/** What must be true of a source before it is captured. */
import { ReplicationError } from '../../core/errors.ts';
import type { Flavour } from './binlog-handler.ts';
import type { SqlClient } from './connection.ts';

export interface SourceFacts {
  readonly version: string;
  /** `mysql/<server_uuid>` or `mariadb/<domain>-<server id>`: names the server for people. */
  readonly origin: string;
  readonly variables: ReadonlyMap<string, string>;
}

const NAMES = [
  ['version', 'server_id', 'server_uuid', 'log_bin', 'binlog_format', 'binlog_row_image', 'binlog_row_metadata'],
  ['gtid_mode', 'gtid_strict_mode', 'gtid_domain_id', 'encrypt_binlog', 'sql_mode'],
  ['binlog_expire_logs_seconds', 'expire_logs_days', 'time_zone', 'mysql56_temporal_format'],
  ['lower_case_table_names'],
].flat();

const OLDEST: Readonly<Record<Flavour, readonly [number, number]>> = { mysql: [8, 0], mariadb: [10, 6] };

/** Reads the facts. Throws `config_invalid` when the server is of the other flavour or too old. */
export async function readFacts(client: SqlClient, flavour: Flavour): Promise<SourceFacts> {
  const list = NAMES.map((name) => `'${name}'`).join(', ');
  const rows = await client.query(`SHOW GLOBAL VARIABLES WHERE Variable_name IN (${list})`, 'inspecting the source');
  const variables = new Map(rows.map(([name, value]) => [name!.toLowerCase(), value ?? '']));
  const version = variables.get('version') ?? '';
  const found: Flavour = /mariadb/i.test(version) ? 'mariadb' : 'mysql';
  if (found !== flavour)
    throw new ReplicationError(
      'config_invalid',
      `the source is ${found} ${version}; its kind in the configuration is ${flavour}`,
    );
  const [major = 0, minor = 0] = version.split('.').map((part) => Number.parseInt(part, 10));
  const [oldMajor, oldMinor] = OLDEST[flavour];
  if (major < oldMajor || (major === oldMajor && minor < oldMinor))
    throw new ReplicationError(
      'config_invalid',
      `the source is ${flavour} ${version}; ${oldMajor}.${oldMinor} is the oldest supported`,
    );
  const origin =
    flavour === 'mysql'
      ? `mysql/${variables.get('server_uuid') ?? ''}`
      : `mariadb/${variables.get('gtid_domain_id') ?? ''}-${variables.get('server_id') ?? ''}`;
  return { version, origin, variables };
}

export interface SettingProblem {
  readonly severity: 'error' | 'warning';
  readonly setting: string;
  readonly message: string;
  readonly remedy: string;
}

/** Whether the server takes names of tables for the same that differ by the case of their letters. */
export function foldsNames({ variables }: SourceFacts): boolean {
  return (variables.get('lower_case_table_names') ?? '0') !== '0';
}

/** Settings of the source that make its log unusable (errors) or risky (warnings), with the SQL that mends them. */
export function settingProblems({ variables }: SourceFacts, flavour: Flavour): SettingProblem[] {
  const problems: SettingProblem[] = [];
  const require = (setting: string, wanted: string, remedy: string, severity: 'error' | 'warning' = 'error'): void => {
    const value = variables.get(setting);
    if (value === undefined || value.toUpperCase() === wanted) return;
    problems.push({
      severity,
      setting,
      message: `is ${value === '' ? 'empty' : value}, not ${wanted || 'empty'}`,
      remedy,
    });
  };
  const persist = flavour === 'mysql' ? 'SET PERSIST' : 'SET GLOBAL';
  const file = flavour === 'mysql' ? '' : ' -- and in my.cnf';
  require('log_bin', 'ON', 'Start the server with --log-bin (restart needed).');
  require('binlog_format', 'ROW', `${persist} binlog_format = 'ROW';${file}`);
  require('binlog_row_image', 'FULL', `${persist} binlog_row_image = 'FULL';${file}`);
  require('binlog_row_metadata', 'FULL', `${persist} binlog_row_metadata = 'FULL';${file}`);
  if (flavour === 'mysql') {
    require('gtid_mode', 'ON', 'SET PERSIST enforce_gtid_consistency = ON; SET PERSIST gtid_mode = OFF_PERMISSIVE; SET PERSIST gtid_mode = ON_PERMISSIVE; SET PERSIST gtid_mode = ON;');
  } else {
    require('encrypt_binlog', 'OFF', 'Start the server with --encrypt-binlog=OFF (restart needed).', 'warning');
    require('mysql56_temporal_format', 'ON', 'SET GLOBAL mysql56_temporal_format = ON; -- and in my.cnf; then ALTER TABLE ... FORCE for tables made since');
    require('gtid_strict_mode', 'ON', 'SET GLOBAL gtid_strict_mode = ON; -- and in my.cnf', 'warning');
  }
  const retention = Number(
    variables.get('binlog_expire_logs_seconds') ?? Number(variables.get('expire_logs_days')) * 86_400,
  );
  if (retention > 0 && retention < 86_400)
    problems.push({
      severity: 'warning',
      setting: flavour === 'mysql' ? 'binlog_expire_logs_seconds' : 'expire_logs_days',
      message: `the log is kept for ${retention} s only: a capture that stays away longer must read all tables again`,
      remedy:
        flavour === 'mysql'
          ? 'SET PERSIST binlog_expire_logs_seconds = 604800;'
          : 'SET GLOBAL expire_logs_days = 7; -- and in my.cnf',
    });
  return problems;
}

/** Throws `source_binlog_settings` naming every setting that makes the log unusable. */
export function requireSettings(facts: SourceFacts, flavour: Flavour): void {
  const errors = settingProblems(facts, flavour).filter(({ severity }) => severity === 'error');
  if (errors.length === 0) return;
  throw new ReplicationError(
    'source_binlog_settings',
    errors.map(({ setting, message, remedy }) => `${setting} ${message}; run: ${remedy}`).join(' '),
  );
}
