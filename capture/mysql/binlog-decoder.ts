/**
 * Decodes binlog events one at a time and tells a handler what they mean: groups (transactions), table maps, rows,
 * statements. An event that is not known and not marked as ignorable stops the source (invariant 7).
 */
import { ReplicationError } from '../../core/errors.ts';
import { formatGtid, type Gtid } from '../../core/gtid.ts';
import { checksum } from '../checksum.ts';
import type { BinlogHandler, Flavour, GroupEnd, GroupInfo, Xid } from './binlog-handler.ts';
import { ByteReader } from './byte-reader.ts';
import type { Charsets } from './charset.ts';
import { inflateEvent } from './compression.ts';
import { EVENT, FLAG_ARTIFICIAL, FLAG_IGNORABLE, HEADER_BYTES, readHeader, type EventHeader } from './event-types.ts';
import { decodeGtid, decodeMariadbGtid, decodeTaggedGtid, decodeXaPrepare } from './gtid-event.ts';
import { wholeUpdates } from './partial-update.ts';
import { TransactionPayload } from './transaction-payload.ts';
import { decodeQuery, isBegin } from './query-event.ts';
import { RowReader, type RowOp, type RowsEvent } from './row-reader.ts';
import { classifyStatement } from './statement.ts';
import { decodeTableMap, type TableMap } from './table-map.ts';

const CHECKSUM_BYTES = 4;
const CHECKSUM_CRC32 = 1;
const CHECKSUM_OFF = 0;
const TWO_32 = 0x1_0000_0000;
/** A rows event with this table id holds no rows: it only ends a statement. */
const NO_TABLE = 0xff_ffff;

export interface DecoderOptions {
  readonly flavour: Flavour;
  readonly charsets: Charsets;
  /** Whether events carry a CRC32 before the first FORMAT_DESCRIPTION event says so: `@@global.binlog_checksum`. */
  readonly checksum: boolean;
  readonly handler: BinlogHandler;
}

/** `none`: between groups. `begun`: after the GTID. `open`: after BEGIN. */
type GroupState = 'none' | 'begun' | 'open';

interface KnownTable {
  readonly map: TableMap;
  /** The body of the event, by which the same map is recognised. */
  readonly bytes: Buffer;
}

export class BinlogDecoder {
  readonly #options: DecoderOptions;
  readonly #handler: BinlogHandler;
  readonly #header: EventHeader = { timestamp: 0, type: 0, serverId: 0, size: 0, endPosition: 0, flags: 0 };
  readonly #reader: RowReader;
  readonly #tables = new Map<number, KnownTable>();
  readonly #rows: RowsEvent = { op: 'i', map: undefined!, buffer: undefined!, before: 0, after: 0, start: 0, end: 0 };
  #checksum: boolean;
  #file = '';
  #offset = 0;
  #group: GroupState = 'none';
  #gtid: Gtid | undefined;
  #info: GroupInfo | undefined;
  /** The XA transaction that the open group belongs to. */
  #xid: Xid | undefined;
  /** A compressed transaction whose events are being delivered. */
  #payload: TransactionPayload | undefined;
  #suspended = false;

  constructor(options: DecoderOptions) {
    this.#options = options;
    this.#handler = options.handler;
    this.#reader = new RowReader(options.charsets);
    this.#checksum = options.checksum;
  }

  /** File of the source's log, and the end of the last event decoded in it. */
  get file(): string {
    return this.#file;
  }

  get offset(): number {
    return this.#offset;
  }

  get inGroup(): boolean {
    return this.#group !== 'none';
  }

  /** Stops the delivery of the events inside a compressed transaction; to be called in a handler's call. */
  suspend(): void {
    this.#suspended = true;
  }

  /** Goes on after `suspend`; true when nothing is left to deliver and `decode` may be called again. */
  proceed(): boolean {
    this.#suspended = false;
    return this.#drainPayload();
  }

  /**
   * Decodes the event in `buffer[start, end)`. Throws `source_protocol`, `source_binlog_settings`,
   * `source_incident`, `source_encoding`, and what the handler throws. False when it was suspended inside it.
   */
  decode(buffer: Buffer, start: number, end: number): boolean {
    const header = this.#header;
    readHeader(header, buffer, start, end);
    if (header.size !== end - start) throw this.#error(`says it has ${header.size} bytes, and ${end - start} came`);
    if (header.type === EVENT.formatDescription) this.#readChecksumAlgorithm(buffer, start, end);
    const bodyEnd = this.#checksum || header.type === EVENT.formatDescription ? end - CHECKSUM_BYTES : end;
    if (this.#checksum && !hasChecksum(buffer, start, bodyEnd)) throw this.#error('has a wrong checksum');
    this.#advance(header);
    this.#dispatch(header, buffer, start + HEADER_BYTES, bodyEnd);
    return this.#drainPayload();
  }

  /** Delivers the events of a compressed transaction as far as nobody suspends it. */
  #drainPayload(): boolean {
    const payload = this.#payload;
    if (payload === undefined) return true;
    const header = this.#header;
    while (!this.#suspended) {
      const event = payload.next();
      if (event === undefined) {
        this.#payload = undefined;
        return true;
      }
      readHeader(header, event, 0, event.length);
      // A transaction in a transaction would let one event bring on any depth.
      if (header.type === EVENT.transactionPayload) throw this.#error('is inside a compressed transaction');
      this.#dispatch(header, event, HEADER_BYTES, event.length);
    }
    return false;
  }

  #readChecksumAlgorithm(buffer: Buffer, start: number, end: number): void {
    const algorithm = buffer[end - CHECKSUM_BYTES - 1];
    if (end - start < HEADER_BYTES + 57 + CHECKSUM_BYTES + 1) throw this.#error('is truncated');
    if (algorithm !== CHECKSUM_CRC32 && algorithm !== CHECKSUM_OFF)
      throw this.#error(`names the unknown checksum algorithm ${algorithm}`);
    this.#checksum = algorithm === CHECKSUM_CRC32;
  }

  /** Positions in the log have 32 bits in events; files may be larger. */
  #advance(header: EventHeader): void {
    if (header.endPosition === 0 || (header.flags & FLAG_ARTIFICIAL) !== 0) return;
    const low = this.#offset % TWO_32;
    let high = this.#offset - low;
    if (header.endPosition < low && low - header.endPosition > TWO_32 / 2) high += TWO_32;
    this.#offset = Math.max(this.#offset, high + header.endPosition);
  }

  #error(what: string): ReplicationError {
    const { type } = this.#header;
    return new ReplicationError(
      'source_protocol',
      `binlog event of type ${type} at ${this.#file}:${this.#offset} ${what}`,
    );
  }

  #dispatch(header: EventHeader, buffer: Buffer, start: number, end: number): void {
    switch (header.type) {
      case EVENT.tableMap:
        return this.#tableMap(buffer, start, end);
      case EVENT.writeRows:
        return this.#rowsEvent('i', buffer, start, end, 2);
      case EVENT.updateRows:
        return this.#rowsEvent('u', buffer, start, end, 2);
      case EVENT.partialUpdateRows:
        return this.#rowsEvent('u', buffer, start, end, 2, 'partial');
      case EVENT.deleteRows:
        return this.#rowsEvent('d', buffer, start, end, 2);
      case EVENT.writeRowsV1:
        return this.#rowsEvent('i', buffer, start, end, 1);
      case EVENT.updateRowsV1:
        return this.#rowsEvent('u', buffer, start, end, 1);
      case EVENT.deleteRowsV1:
        return this.#rowsEvent('d', buffer, start, end, 1);
      case EVENT.mariadbWriteRowsCompressedV1:
        return this.#rowsEvent('i', buffer, start, end, 1, 'compressed');
      case EVENT.mariadbUpdateRowsCompressedV1:
        return this.#rowsEvent('u', buffer, start, end, 1, 'compressed');
      case EVENT.mariadbDeleteRowsCompressedV1:
        return this.#rowsEvent('d', buffer, start, end, 1, 'compressed');
      case EVENT.mariadbWriteRowsCompressed:
        return this.#rowsEvent('i', buffer, start, end, 2, 'compressed');
      case EVENT.mariadbUpdateRowsCompressed:
        return this.#rowsEvent('u', buffer, start, end, 2, 'compressed');
      case EVENT.mariadbDeleteRowsCompressed:
        return this.#rowsEvent('d', buffer, start, end, 2, 'compressed');
      case EVENT.xid:
        return this.#end({ kind: 'commit' });
      case EVENT.query:
      case EVENT.mariadbQueryCompressed:
        return this.#query(header.type === EVENT.mariadbQueryCompressed, buffer, start, end);
      case EVENT.gtid:
      case EVENT.gtidTagged:
        return this.#mysqlGroup(header, new ByteReader(buffer, start, end, 'a GTID event'));
      case EVENT.mariadbGtid:
        return this.#mariadbGroup(header, new ByteReader(buffer, start, end, 'a GTID event'));
      case EVENT.xaPrepare: {
        const { onePhase, xid } = decodeXaPrepare(new ByteReader(buffer, start, end, 'an XA_PREPARE event'));
        return this.#end(onePhase ? { kind: 'commit' } : { kind: 'xa-prepare', xid });
      }
      case EVENT.transactionPayload:
        this.#payload = TransactionPayload.read(buffer, start, end);
        if (this.#info !== undefined) this.#info.payload = this.#payload;
        return;
      case EVENT.rotate:
        return this.#rotate(buffer, start, end);
      case EVENT.heartbeat:
        return this.#handler.heartbeat(buffer.toString('utf8', start, end), header.endPosition);
      case EVENT.heartbeatV2:
        return this.#heartbeatV2(new ByteReader(buffer, start, end, 'a HEARTBEAT event'));
      default:
        return this.#rare(header, buffer, start, end);
    }
  }

  #rare(header: EventHeader, buffer: Buffer, start: number, end: number): void {
    switch (header.type) {
      case EVENT.formatDescription:
        // Table ids mean something within one run of the server only.
        this.#tables.clear();
        return;
      case EVENT.stop:
      case EVENT.previousGtids:
      case EVENT.rowsQuery:
      case EVENT.ignorable:
      // Of group replication: conflict detection and changes of membership.
      // falls through
      case EVENT.transactionContext:
      case EVENT.viewChange:
      case EVENT.mariadbAnnotateRows:
      case EVENT.mariadbCheckpoint:
      case EVENT.mariadbGtidList:
      // Context of a statement; the statement itself, if it is DML, is refused.
      // falls through
      case EVENT.intvar:
      case EVENT.rand:
      case EVENT.userVar:
        return;
      case EVENT.incident: {
        const reader = new ByteReader(buffer, start, end, 'an INCIDENT event');
        const number = reader.uint16();
        const message = reader.text(reader.uint8());
        throw new ReplicationError('source_incident', `the source logged incident ${number}: ${message}`, {
          context: this.#context(),
        });
      }
      case EVENT.beginLoadQuery:
      case EVENT.executeLoadQuery:
        throw new ReplicationError(
          'source_binlog_settings',
          'the log has the statement of a change (LOAD DATA) instead of its rows (binlog_format)',
          { context: this.#context() },
        );
      case EVENT.anonymousGtid:
        throw new ReplicationError('source_binlog_settings', 'the log has a transaction without a GTID (gtid_mode)', {
          context: this.#context(),
        });
      case EVENT.mariadbStartEncryption:
        throw new ReplicationError('source_binlog_settings', 'the source sends its log encrypted (encrypt_binlog)', {
          context: this.#context(),
        });
      case EVENT.mariadbPartialRowData:
        throw new ReplicationError('source_binlog_settings', 'the log has rows in fragments', {
          context: this.#context(),
        });
      default:
        if ((header.flags & FLAG_IGNORABLE) !== 0) return;
        // Invariant 7: nothing unreadable is skipped.
        throw this.#error(`is not known (${end - start} bytes)`);
    }
  }

  #context(): Record<string, string | number | undefined> {
    return {
      file: this.#file,
      offset: this.#offset,
      gtid: this.#gtid === undefined ? undefined : formatGtid(this.#gtid),
    };
  }

  #rotate(buffer: Buffer, start: number, end: number): void {
    const reader = new ByteReader(buffer, start, end, 'a ROTATE event');
    this.#offset = reader.uint64();
    this.#file = reader.text(reader.left);
    this.#handler.rotate(this.#file, this.#offset);
  }

  #heartbeatV2(reader: ByteReader): void {
    let file = this.#file;
    let offset = this.#offset;
    while (reader.left > 0) {
      const field = reader.lengthEncoded();
      // The list ends with field 0, which has no value.
      if (field === 0) break;
      const length = reader.lengthEncoded();
      if (field === 1) file = reader.text(length);
      else if (field === 2) {
        const value = new ByteReader(reader.buffer, reader.at, reader.at + length, 'the position of a HEARTBEAT event');
        reader.skip(length);
        offset = value.lengthEncoded();
      } else reader.skip(length);
    }
    this.#handler.heartbeat(file, offset);
  }

  #mysqlGroup(header: EventHeader, reader: ByteReader): void {
    this.#expectNoGroup();
    const group = header.type === EVENT.gtid ? decodeGtid(reader) : decodeTaggedGtid(reader);
    this.#beginGroup(header, group.gtid, group.commitTimeUs ?? header.timestamp * 1e6, group.transactionBytes, false);
  }

  #mariadbGroup(header: EventHeader, reader: ByteReader): void {
    this.#expectNoGroup();
    const group = decodeMariadbGtid(reader, header.serverId);
    this.#beginGroup(header, group.gtid, header.timestamp * 1e6, undefined, group.transactional);
    this.#xid = group.xid;
    if (group.xid !== undefined && group.prepares) this.#handler.xaStart?.(group.xid);
    if (!group.standalone) this.#group = 'open';
  }

  #beginGroup(
    header: EventHeader,
    gtid: Gtid,
    commitTimeUs: number,
    transactionBytes: number | undefined,
    transactional: boolean,
  ): void {
    this.#gtid = gtid;
    this.#xid = undefined;
    this.#group = 'begun';
    this.#info = {
      serverId: header.serverId,
      commitTimeUs,
      transactionBytes,
      transactional,
      file: this.#file,
      offset: Math.max(0, this.#offset - header.size),
    };
    this.#handler.gtid(gtid, this.#info);
  }

  #expectNoGroup(): void {
    if (this.#group !== 'none') throw this.#error(`starts a group while ${formatGtid(this.#gtid!)} has not ended`);
  }

  #end(end: GroupEnd): void {
    if (this.#group === 'none') throw this.#error('ends a group, and none was begun');
    this.#group = 'none';
    // A compressed group may be large.
    this.#info = undefined;
    this.#handler.end(end);
  }

  #query(compressed: boolean, buffer: Buffer, start: number, end: number): void {
    if (!compressed && this.#group === 'begun' && isBegin(buffer, start, end)) {
      this.#group = 'open';
      return;
    }
    const reader = new ByteReader(buffer, start, end, 'a QUERY event');
    const { schema, sql } = decodeQuery(reader, this.#options.charsets, compressed);
    const statement = classifyStatement(sql, schema);
    if (this.#group === 'none') {
      if (statement.kind === 'ignored') return;
      throw new ReplicationError(
        this.#options.flavour === 'mysql' ? 'source_binlog_settings' : 'source_protocol',
        `the log has a statement without a GTID`,
        { context: this.#context() },
      );
    }
    switch (statement.kind) {
      case 'begin':
        this.#group = 'open';
        return;
      case 'commit':
        return this.#end({ kind: 'commit' });
      case 'rollback':
        return this.#end({ kind: 'rollback' });
      case 'ignored':
        if (this.#group === 'begun') this.#end({ kind: 'commit' });
        return;
      case 'savepoint':
        return this.#handler.savepoint(statement.name);
      case 'rollback-to':
        return this.#handler.rollbackTo(statement.name);
      case 'xa-start':
        this.#group = 'open';
        this.#xid = statement.xid;
        this.#handler.xaStart?.(statement.xid);
        return;
      case 'xa-end':
        return;
      case 'xa-commit':
      case 'xa-rollback':
        // Within the group of its own rows it ends that one; else it is the second phase of an earlier one.
        if (this.#group === 'open' && this.#xid === statement.xid && statement.onePhase)
          return this.#end({ kind: 'commit' });
        return this.#end({ kind: statement.kind, xid: statement.xid });
      case 'dml':
        throw new ReplicationError(
          'source_binlog_settings',
          `the log has the statement of a change (${statement.verb}) instead of its rows (binlog_format)`,
          { context: this.#context() },
        );
      case 'other': {
        const inGroup = this.#group === 'open';
        const { verb, truncates, movesRows } = statement;
        this.#handler.statement({ schema, sql, verb, truncates, movesRows, inGroup });
        if (!inGroup) this.#end({ kind: 'commit' });
      }
    }
  }

  #tableMap(buffer: Buffer, start: number, end: number): void {
    if (end - start < 8) throw this.#error('is truncated');
    const id = readTableId(buffer, start);
    const known = this.#tables.get(id);
    if (known !== undefined && known.bytes.compare(buffer, start, end) === 0) return;
    const map = decodeTableMap(buffer, start, end, this.#options.flavour, this.#options.charsets);
    this.#tables.set(id, { map, bytes: Buffer.from(buffer.subarray(start, end)) });
    this.#handler.tableMap(map);
  }

  #rowsEvent(
    op: RowOp,
    buffer: Buffer,
    start: number,
    end: number,
    version: 1 | 2,
    packed?: 'compressed' | 'partial',
  ): void {
    if (end - start < (version === 2 ? 11 : 9)) throw this.#error('is truncated');
    if (this.#group !== 'open') throw this.#error('has rows outside of a transaction');
    const id = readTableId(buffer, start);
    if (id === NO_TABLE) return;
    const known = this.#tables.get(id);
    if (known === undefined) throw this.#error(`names table ${id}, which was not described`);
    // Id of six bytes, flags of two, in version 2 the length (itself included) and bytes of extra data.
    let at = start + 8;
    if (version === 2) at += buffer[at]! | (buffer[at + 1]! << 8);
    const head = new ByteReader(buffer, start, end, 'a rows event');
    head.skip(at - start);
    const width = head.lengthEncoded();
    if (width !== known.map.columns.length)
      throw this.#error(`has ${width} columns, and its table map ${known.map.columns.length}`);
    const bitmapBytes = (width + 7) >> 3;
    const rows = this.#rows;
    rows.op = op;
    rows.map = known.map;
    rows.before = head.skip(bitmapBytes);
    rows.after = op === 'u' ? head.skip(bitmapBytes) : rows.before;
    if (packed !== undefined) {
      const unpacked =
        packed === 'compressed' ? inflateEvent(head.bytes(head.left)) : wholeUpdates(known.map, head, rows);
      // The bitmaps move in front of the rows, so that all lies in one buffer.
      const bitmaps = buffer.subarray(rows.before, rows.after + bitmapBytes);
      rows.buffer = Buffer.concat([bitmaps, unpacked]);
      rows.after -= rows.before;
      rows.before = 0;
      rows.start = bitmaps.length;
      rows.end = rows.buffer.length;
    } else {
      rows.buffer = buffer;
      rows.start = head.at;
      rows.end = end;
    }
    this.#reader.open(rows);
    this.#handler.rows(this.#reader);
  }
}

function readTableId(buffer: Buffer, at: number): number {
  return (
    (buffer[at]! | (buffer[at + 1]! << 8) | (buffer[at + 2]! << 16)) +
    (buffer[at + 3]! | (buffer[at + 4]! << 8) | (buffer[at + 5]! << 16)) * 0x100_0000
  );
}

/** Whether the event in `buffer[start, end)` is followed by its checksum. */
function hasChecksum(buffer: Buffer, start: number, end: number): boolean {
  if (end - start < HEADER_BYTES) return false;
  const stored = (buffer[end]! | (buffer[end + 1]! << 8) | (buffer[end + 2]! << 16)) + buffer[end + 3]! * 0x100_0000;
  return checksum(buffer, start, end) === stored;
}
