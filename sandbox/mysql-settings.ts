import type { MysqlFlavour } from './mysql-program.ts';

/** Server variables by name, as in my.cnf. */
export type MysqlSettings = Readonly<Record<string, string>>;

const common: MysqlSettings = {
  skip_name_resolve: 'ON',
  local_infile: 'ON',
  max_connections: '200',
  max_allowed_packet: '64M',
  default_time_zone: '+00:00',
  character_set_server: 'utf8mb4',
  log_bin: 'binlog',
  binlog_row_image: 'FULL',
  binlog_row_metadata: 'FULL',
  relay_log: 'relay',
  // The data is thrown away: it has to outlive a killed server, never a machine without power. Hence what is committed
  // is handed to the system at once (2, not 0: with that a killed server would have forgotten what its log tells of).
  innodb_flush_log_at_trx_commit: '2',
  sync_binlog: '0',
  innodb_flush_method: 'nosync',
  innodb_doublewrite: 'OFF',
  // Small.
  performance_schema: 'OFF',
  innodb_buffer_pool_size: '64M',
  innodb_log_buffer_size: '8M',
  innodb_use_native_aio: 'OFF',
  innodb_buffer_pool_dump_at_shutdown: 'OFF',
  innodb_buffer_pool_load_at_startup: 'OFF',
  table_open_cache: '400',
  table_definition_cache: '400',
};

const particular: Readonly<Record<MysqlFlavour, MysqlSettings>> = {
  mysql: {
    gtid_mode: 'ON',
    enforce_gtid_consistency: 'ON',
    mysqlx: 'OFF',
    secure_file_priv: 'NULL',
    innodb_redo_log_capacity: '64M',
  },
  mariadb: {
    binlog_format: 'ROW',
    log_slave_updates: 'ON',
    innodb_log_file_size: '64M',
  },
};

/** The settings of a sandbox's server: those of change data capture on a small machine, `settings` over them. */
export function mysqlSettings(flavour: MysqlFlavour, serverId: number, settings: MysqlSettings): MysqlSettings {
  const own = { ...common, ...particular[flavour], server_id: String(serverId) };
  const given = Object.entries(settings).map(([name, value]) => [name.replaceAll('-', '_'), value] as const);
  return { ...own, ...Object.fromEntries(given) };
}

/** The settings as arguments of the server program. */
export function settingArguments(settings: MysqlSettings): string[] {
  return Object.entries(settings).map(([name, value]) => `--${name}=${value}`);
}
