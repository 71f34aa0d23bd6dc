/** Event type codes of both servers (MySQL `Log_event_type`, MariaDB `Log_event_type` from 160 on) and the header. */
import { ReplicationError } from '../../core/errors.ts';

export const EVENT = {
  query: 2,
  stop: 3,
  rotate: 4,
  intvar: 5,
  rand: 13,
  userVar: 14,
  formatDescription: 15,
  xid: 16,
  beginLoadQuery: 17,
  executeLoadQuery: 18,
  tableMap: 19,
  writeRowsV1: 23,
  updateRowsV1: 24,
  deleteRowsV1: 25,
  incident: 26,
  heartbeat: 27,
  ignorable: 28,
  rowsQuery: 29,
  writeRows: 30,
  updateRows: 31,
  deleteRows: 32,
  gtid: 33,
  anonymousGtid: 34,
  previousGtids: 35,
  transactionContext: 36,
  viewChange: 37,
  xaPrepare: 38,
  partialUpdateRows: 39,
  transactionPayload: 40,
  heartbeatV2: 41,
  gtidTagged: 42,
  mariadbAnnotateRows: 160,
  mariadbCheckpoint: 161,
  mariadbGtid: 162,
  mariadbGtidList: 163,
  mariadbStartEncryption: 164,
  mariadbQueryCompressed: 165,
  mariadbWriteRowsCompressedV1: 166,
  mariadbUpdateRowsCompressedV1: 167,
  mariadbDeleteRowsCompressedV1: 168,
  mariadbWriteRowsCompressed: 169,
  mariadbUpdateRowsCompressed: 170,
  mariadbDeleteRowsCompressed: 171,
  mariadbPartialRowData: 172,
} as const;

/** Bytes of the header: time 4, type 1, server id 4, size 4, end position 4, flags 2. */
export const HEADER_BYTES = 19;
/** Made up by the server for this connection; not in its log. */
export const FLAG_ARTIFICIAL = 0x20;
/** A reader that does not know the event may skip it. */
export const FLAG_IGNORABLE = 0x80;

export interface EventHeader {
  timestamp: number;
  type: number;
  serverId: number;
  size: number;
  /** End of the event in its file, modulo 2^32; 0 for events that are not in a file. */
  endPosition: number;
  flags: number;
}

/** Reads the header at `start` into `header`. Throws `source_protocol` when there are not enough bytes. */
export function readHeader(header: EventHeader, buffer: Buffer, start: number, end: number): void {
  if (end - start < HEADER_BYTES)
    throw new ReplicationError('source_protocol', `a binlog event of ${end - start} bytes has no header`);
  header.timestamp = uint32(buffer, start);
  header.type = buffer[start + 4]!;
  header.serverId = uint32(buffer, start + 5);
  header.size = uint32(buffer, start + 9);
  header.endPosition = uint32(buffer, start + 13);
  header.flags = buffer[start + 17]! | (buffer[start + 18]! << 8);
}

function uint32(buffer: Buffer, at: number): number {
  return (buffer[at]! | (buffer[at + 1]! << 8) | (buffer[at + 2]! << 16)) + buffer[at + 3]! * 0x100_0000;
}
