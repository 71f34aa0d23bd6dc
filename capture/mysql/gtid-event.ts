/** GTID events of both servers: GTID_LOG, GTID_TAGGED_LOG (MySQL), GTID (MariaDB), and the XIDs in them. */
import type { MariadbGtid, MysqlGtid } from '../../core/gtid.ts';
import { formatUuid } from '../../core/mysql-gtid-set.ts';
import { ReplicationError } from '../../core/errors.ts';
import type { Xid } from './binlog-handler.ts';
import type { ByteReader } from './byte-reader.ts';

export interface MysqlGroup {
  readonly gtid: MysqlGtid;
  /** Commit time on the server that is read, microseconds since 1970; undefined where the event is of an old server. */
  readonly commitTimeUs: number | undefined;
  readonly transactionBytes: number | undefined;
}

const LOGICAL_CLOCK = 2;
const TIMESTAMP_BYTES = 7;
/** In the highest bit of a 56-bit time: the time at the original server follows. */
const HAS_ORIGINAL = 2 ** 55;

/** The text of a source changes once in a failover, and is asked for once a transaction. */
let lastUuid: Buffer = Buffer.alloc(16);
let lastSource = formatUuid(lastUuid, 0);

function sourceText(buffer: Buffer, at: number): string {
  if (buffer.compare(lastUuid, 0, 16, at, at + 16) !== 0) {
    lastUuid = Buffer.from(buffer.subarray(at, at + 16));
    lastSource = formatUuid(lastUuid, 0);
  }
  return lastSource;
}

/** GTID_LOG_EVENT (mysql-server `Gtid_event`). */
export function decodeGtid(reader: ByteReader): MysqlGroup {
  reader.skip(1);
  const source = sourceText(reader.buffer, reader.skip(16));
  const gtid: MysqlGtid = { kind: 'mysql', source, gno: reader.uint64() };
  let commitTimeUs: number | undefined;
  let transactionBytes: number | undefined;
  if (reader.left >= 17 && reader.uint8() === LOGICAL_CLOCK) {
    reader.skip(16);
    if (reader.left >= TIMESTAMP_BYTES) {
      const time = readUint56(reader);
      commitTimeUs = time >= HAS_ORIGINAL ? time - HAS_ORIGINAL : time;
      if (time >= HAS_ORIGINAL) reader.skip(TIMESTAMP_BYTES);
      if (reader.left > 0) transactionBytes = reader.lengthEncoded();
    }
  }
  return { gtid, commitTimeUs, transactionBytes };
}

function readUint56(reader: ByteReader): number {
  const at = reader.skip(TIMESTAMP_BYTES);
  return reader.buffer.readUInt32LE(at) + reader.buffer.readUIntLE(at + 4, 3) * 0x1_0000_0000;
}

const TAGGED = {
  flags: 0,
  uuid: 1,
  gno: 2,
  tag: 3,
  lastCommitted: 4,
  sequenceNumber: 5,
  immediateCommitTime: 6,
  originalCommitTime: 7,
  transactionLength: 8,
} as const;

/**
 * GTID_TAGGED_LOG_EVENT: fields in the format of mysql::serialization (version, size, last field that must be
 * understood, then number and value of each field; all integers of variable length, signed ones in zigzag).
 */
export function decodeTaggedGtid(reader: ByteReader): MysqlGroup {
  const version = reader.varint();
  reader.varint();
  const mustKnow = reader.varint();
  if (version !== 0n && version !== 1n)
    throw new ReplicationError('source_protocol', `a tagged GTID event has the unknown format ${version}`);
  let uuid = '';
  let gno = 0;
  let tag = '';
  let commitTimeUs: number | undefined;
  let transactionBytes: number | undefined;
  while (reader.left > 0) {
    const field = Number(reader.varint());
    switch (field) {
      case TAGGED.flags:
        reader.varint();
        break;
      case TAGGED.uuid: {
        const bytes = Buffer.alloc(16);
        // Each byte of the array is an integer of its own.
        for (let i = 0; i < 16; i++) bytes[i] = Number(reader.varint());
        uuid = formatUuid(bytes, 0);
        break;
      }
      case TAGGED.gno:
        gno = Number(zigzag(reader.varint()));
        break;
      case TAGGED.tag:
        tag = reader.text(Number(reader.varint()), 'latin1');
        break;
      case TAGGED.lastCommitted:
      case TAGGED.sequenceNumber:
      case TAGGED.originalCommitTime:
        reader.varint();
        break;
      case TAGGED.immediateCommitTime:
        commitTimeUs = Number(reader.varint());
        break;
      case TAGGED.transactionLength:
        transactionBytes = Number(reader.varint());
        break;
      default:
        // The rest is about server versions and groups of commits; nothing behind it matters here.
        if (BigInt(field) <= mustKnow && field < TAGGED.transactionLength)
          throw new ReplicationError('source_protocol', `a tagged GTID event has the unknown field ${field}`);
        reader.skip(reader.left);
    }
  }
  if (uuid === '' || gno < 1)
    throw new ReplicationError('source_protocol', 'a tagged GTID event has no uuid or no number');
  return {
    gtid: { kind: 'mysql', source: tag === '' ? uuid : `${uuid}:${tag}`, gno },
    commitTimeUs,
    transactionBytes,
  };
}

function zigzag(value: bigint): bigint {
  return (value & 1n) === 1n ? -((value + 1n) >> 1n) : value >> 1n;
}

const FLAG_STANDALONE = 0x01;
const FLAG_GROUP_COMMIT_ID = 0x02;
const FLAG_TRANSACTIONAL = 0x04;
const FLAG_PREPARED_XA = 0x40;
const FLAG_COMPLETED_XA = 0x80;

export interface MariadbGroup {
  readonly gtid: MariadbGtid;
  /** Whether the group is one statement; else a BEGIN is implied. */
  readonly standalone: boolean;
  /** The XA transaction that the group prepares or ends. */
  readonly xid: Xid | undefined;
  /** Whether it is the first of the two, with the changes. */
  readonly prepares: boolean;
  readonly transactional: boolean;
}

/** GTID_EVENT of MariaDB (sql/log_event.h, `Gtid_log_event`). */
export function decodeMariadbGtid(reader: ByteReader, server: number): MariadbGroup {
  const seq = reader.uint64();
  const domain = reader.uint32();
  const flags = reader.uint8();
  if ((flags & FLAG_GROUP_COMMIT_ID) !== 0) reader.skip(8);
  const xid = (flags & (FLAG_PREPARED_XA | FLAG_COMPLETED_XA)) !== 0 ? readShortXid(reader) : undefined;
  return {
    gtid: { kind: 'mariadb', domain, server, seq },
    standalone: (flags & FLAG_STANDALONE) !== 0,
    xid,
    prepares: (flags & FLAG_PREPARED_XA) !== 0,
    transactional: (flags & FLAG_TRANSACTIONAL) !== 0,
  };
}

function readShortXid(reader: ByteReader): Xid {
  const format = reader.uint32();
  return readXidData(reader, format, reader.uint8(), reader.uint8());
}

/** XA_PREPARE_LOG_EVENT: whether it is a commit in one phase, and of which transaction. */
export function decodeXaPrepare(reader: ByteReader): { onePhase: boolean; xid: Xid } {
  const onePhase = reader.uint8() !== 0;
  const format = reader.uint32();
  return { onePhase, xid: readXidData(reader, format, reader.uint32(), reader.uint32()) };
}

function readXidData(reader: ByteReader, format: number, gtridBytes: number, bqualBytes: number): Xid {
  const gtrid = reader.bytes(gtridBytes).toString('hex');
  return xidText(gtrid, reader.bytes(bqualBytes).toString('hex'), format);
}

/** The one form of an XID: hex of gtrid, hex of bqual, format id. */
export function xidText(gtridHex: string, bqualHex: string, format: number): Xid {
  return `${gtridHex.toLowerCase()},${bqualHex.toLowerCase()},${format}`;
}
