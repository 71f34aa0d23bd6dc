/** The requests that start a dump of the log, and the session variables that go before them. */
import type { GtidSet } from '../../core/gtid-set.ts';
import type { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';
import type { Flavour } from './binlog-handler.ts';

const COM_BINLOG_DUMP = 0x12;
const COM_BINLOG_DUMP_GTID = 0x1e;
/** End the dump where the log ends, instead of waiting for more. */
const FLAG_NON_BLOCK = 1;
const FLAG_THROUGH_GTID = 4;
/** Every file starts with four magic bytes. */
const FIRST_EVENT = 4;
const NANOSECONDS_A_MS = 1_000_000;
/** Seconds that the source waits for a reader that is held back, before it gives it up. */
const WRITE_TIMEOUT_S = 600;

export interface DumpOptions {
  readonly flavour: Flavour;
  readonly serverId: number;
  readonly replicaUuid: string;
  readonly start: GtidSet;
  readonly heartbeatMs: number;
  readonly stopAtEnd: boolean;
}

/** Statements for the session that will dump. */
export function sessionStatements(options: DumpOptions): string[] {
  const heartbeat = Math.round(options.heartbeatMs * NANOSECONDS_A_MS);
  const common = [
    'SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum',
    `SET @master_heartbeat_period = ${heartbeat}, @source_heartbeat_period = ${heartbeat}`,
    `SET SESSION net_write_timeout = ${WRITE_TIMEOUT_S}`,
  ];
  return options.flavour === 'mysql'
    ? [...common, `SET @slave_uuid = '${options.replicaUuid}', @replica_uuid = '${options.replicaUuid}'`]
    : [
        ...common,
        'SET @mariadb_slave_capability = 4',
        `SET @slave_connect_state = '${options.start.toString()}'`,
        'SET @slave_gtid_strict_mode = 1',
        'SET @slave_gtid_ignore_duplicates = 0',
      ];
}

/** The command packet's payload: COM_BINLOG_DUMP_GTID for MySQL, COM_BINLOG_DUMP for MariaDB. */
export function dumpRequest(options: DumpOptions): Buffer {
  const wait = options.stopAtEnd ? FLAG_NON_BLOCK : 0;
  if (options.flavour === 'mariadb') {
    // Where to start was said by @slave_connect_state; the file's name stays empty.
    const request = Buffer.alloc(11);
    request[0] = COM_BINLOG_DUMP;
    request.writeUInt32LE(FIRST_EVENT, 1);
    request.writeUInt16LE(wait, 5);
    request.writeUInt32LE(options.serverId, 7);
    return request;
  }
  const set = (options.start as MysqlGtidSet).encode();
  const request = Buffer.alloc(23 + set.length);
  request[0] = COM_BINLOG_DUMP_GTID;
  request.writeUInt16LE(FLAG_THROUGH_GTID | wait, 1);
  request.writeUInt32LE(options.serverId, 3);
  // The file's name has no bytes.
  request.writeUInt32LE(0, 7);
  request.writeBigUInt64LE(BigInt(FIRST_EVENT), 11);
  request.writeUInt32LE(set.length, 19);
  set.copy(request, 23);
  return request;
}
