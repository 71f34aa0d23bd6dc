/**
 * MySQL's GTID sets: a set of transaction numbers for each source (`uuid[:tag]`). MySQL 9 manual "GTID Sets",
 * mysql-server `Gtid_set::encode` (libs/mysql/gtid). Numbers are JS numbers: beyond 2^53 - 1 parsing and adding refuse.
 */
import { ReplicationError } from './errors.ts';
import { orderOf, type MysqlGtid, type SetOrder } from './gtid.ts';
import { covers, difference, normalise, type Intervals } from './intervals.ts';

const SOURCE = /^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?::([a-z_][a-z0-9_]{0,31}))?$/;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const TAG = /^[a-z_][a-z0-9_]{0,31}$/;
const INTERVAL = /^(\d+)(?:-(\d+))?$/;

/**
 * A MySQL GTID set. `add` copies the map of sources (as many entries as there ever were writable servers) and one
 * source's intervals; where a set grows by one transaction after the other, use `GtidCursor`.
 */
export class MysqlGtidSet {
  readonly kind = 'mysql';
  readonly #sources: ReadonlyMap<string, Intervals>;

  static readonly EMPTY: MysqlGtidSet = new MysqlGtidSet(new Map());

  private constructor(sources: ReadonlyMap<string, Intervals>) {
    this.#sources = sources;
  }

  /** The set with these intervals (first, last, first, last, …: inclusive, in any order). */
  static of(sources: ReadonlyMap<string, readonly number[]>): MysqlGtidSet {
    const normal = new Map<string, Intervals>();
    for (const [source, list] of sources) if (list.length > 0) normal.set(source, normalise(list));
    return new MysqlGtidSet(normal);
  }

  /** A copy of the intervals that the caller may change. */
  intervals(): Map<string, number[]> {
    return new Map([...this.#sources].map(([source, list]) => [source, [...list]]));
  }

  /** Reads `uuid[:tag]:1-5:7,…` as the server writes it (white space allowed); undefined when the text is not a set. */
  static parse(text: string): MysqlGtidSet | undefined {
    const sources = new Map<string, number[]>();
    for (const part of text.split(',')) {
      const tokens = part.split(':').map((token) => token.trim().toLowerCase());
      if (tokens.length === 1 && tokens[0] === '') continue;
      const uuid = tokens[0]!;
      if (!UUID.test(uuid) || tokens.length < 2) return undefined;
      let source = uuid;
      let intervals = 0;
      for (const token of tokens.slice(1)) {
        if (TAG.test(token)) {
          if (source !== uuid && intervals === 0) return undefined;
          source = `${uuid}:${token}`;
          intervals = 0;
          continue;
        }
        const match = INTERVAL.exec(token);
        if (match === null) return undefined;
        const first = Number(match[1]);
        const last = match[2] === undefined ? first : Number(match[2]);
        if (first < 1 || !Number.isSafeInteger(first) || !Number.isSafeInteger(last)) return undefined;
        intervals += 1;
        // The server accepts an interval that ends before it starts as an empty one.
        if (last < first) continue;
        const list = sources.get(source) ?? [];
        list.push(first, last);
        sources.set(source, list);
      }
      if (intervals === 0) return undefined;
    }
    return MysqlGtidSet.of(sources);
  }

  /** Reads the encoding of `COM_BINLOG_DUMP_GTID` and of PREVIOUS_GTIDS events. Throws `source_protocol`. */
  static decode(bytes: Uint8Array): MysqlGtidSet {
    try {
      return MysqlGtidSet.#decode(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    } catch (cause) {
      if (cause instanceof ReplicationError) throw cause;
      throw new ReplicationError('source_protocol', `an encoded GTID set of ${bytes.length} bytes is truncated`, {
        cause,
      });
    }
  }

  static #decode(buffer: Buffer): MysqlGtidSet {
    const tagged = buffer.readUInt8(7) === 1;
    const count = tagged
      ? Number((buffer.readBigUInt64LE(0) >> 8n) & 0xffff_ffff_ffffn)
      : toNumber(buffer.readBigUInt64LE(0));
    const sources = new Map<string, number[]>();
    let at = 8;
    for (let i = 0; i < count; i++) {
      let source = formatUuid(buffer, at);
      at += 16;
      if (tagged) {
        // The tag's length is a variable-length integer; tags have at most 32 bytes, so it always fits one byte.
        const length = buffer.readUInt8(at++) >> 1;
        if (length > 32 || at + length > buffer.length) throw new RangeError('tag');
        if (length > 0) source += `:${buffer.toString('latin1', at, at + length)}`;
        at += length;
      }
      const intervals = toNumber(buffer.readBigUInt64LE(at));
      at += 8;
      const list = sources.get(source) ?? [];
      for (let n = 0; n < intervals; n++, at += 16)
        list.push(toNumber(buffer.readBigUInt64LE(at)), toNumber(buffer.readBigUInt64LE(at + 8)) - 1);
      sources.set(source, list);
    }
    if (at !== buffer.length)
      throw new ReplicationError('source_protocol', `an encoded GTID set has ${buffer.length - at} bytes too many`);
    return MysqlGtidSet.of(sources);
  }

  /** The encoding of `COM_BINLOG_DUMP_GTID`; the one with tags (MySQL 8.3 and up) only when a source has a tag. */
  encode(): Buffer {
    const sources = this.#sorted();
    const tagged = sources.some((source) => source.length > 36);
    let size = 8;
    for (const source of sources)
      size += 24 + this.#sources.get(source)!.length * 8 + (tagged ? 1 + Math.max(0, source.length - 37) : 0);
    const buffer = Buffer.alloc(size);
    buffer.writeBigUInt64LE(tagged ? (1n << 56n) | (BigInt(sources.length) << 8n) | 1n : BigInt(sources.length), 0);
    let at = 8;
    for (const source of sources) {
      at += buffer.write(source.slice(0, 36).replaceAll('-', ''), at, 'hex');
      if (tagged) {
        const tag = source.slice(37);
        buffer[at++] = tag.length << 1;
        at += buffer.write(tag, at, 'latin1');
      }
      const list = this.#sources.get(source)!;
      buffer.writeBigUInt64LE(BigInt(list.length / 2), at);
      at += 8;
      for (let i = 0; i < list.length; i += 2, at += 16) {
        buffer.writeBigUInt64LE(BigInt(list[i]!), at);
        buffer.writeBigUInt64LE(BigInt(list[i + 1]!) + 1n, at + 8);
      }
    }
    return buffer;
  }

  get empty(): boolean {
    return this.#sources.size === 0;
  }

  /** The sources (`uuid` or `uuid:tag`) that the set has transactions of. */
  get sources(): readonly string[] {
    return this.#sorted();
  }

  contains(gtid: MysqlGtid): boolean {
    const list = this.#sources.get(gtid.source);
    return list !== undefined && covers(list, gtid.gno, gtid.gno);
  }

  /** The set with one more transaction; this set itself when it has it already. Throws `source_protocol`. */
  add(gtid: MysqlGtid): MysqlGtidSet {
    const { source, gno } = gtid;
    if (!Number.isSafeInteger(gno) || gno < 1)
      throw new ReplicationError('source_protocol', `GTID ${source}:${gno} is out of range`);
    const list = this.#sources.get(source);
    let next: Intervals;
    if (list === undefined) next = [gno, gno];
    else if (list.at(-1)! + 1 === gno) {
      const grown = list.slice();
      grown[grown.length - 1] = gno;
      next = grown;
    } else if (covers(list, gno, gno)) return this;
    else next = normalise([...list, gno, gno]);
    const sources = new Map(this.#sources);
    sources.set(source, next);
    return new MysqlGtidSet(sources);
  }

  union(other: MysqlGtidSet): MysqlGtidSet {
    if (this.empty) return other;
    if (other.empty) return this;
    const sources = new Map(this.#sources);
    for (const [source, list] of other.#sources) {
      const mine = sources.get(source);
      sources.set(source, mine === undefined ? list : normalise([...mine, ...list]));
    }
    return new MysqlGtidSet(sources);
  }

  /** The transactions of this set that `other` has not. */
  subtract(other: MysqlGtidSet): MysqlGtidSet {
    const sources = new Map<string, Intervals>();
    for (const [source, list] of this.#sources) {
      const rest = difference(list, other.#sources.get(source) ?? []);
      if (rest.length > 0) sources.set(source, rest);
    }
    return new MysqlGtidSet(sources);
  }

  isSubset(other: MysqlGtidSet): boolean {
    for (const [source, list] of this.#sources) {
      const theirs = other.#sources.get(source);
      if (theirs === undefined) return false;
      for (let i = 0; i < list.length; i += 2) if (!covers(theirs, list[i]!, list[i + 1]!)) return false;
    }
    return true;
  }

  equals(other: MysqlGtidSet): boolean {
    return this === other || (this.isSubset(other) && other.isSubset(this));
  }

  compare(other: MysqlGtidSet): SetOrder {
    return orderOf(this === other || this.isSubset(other), this === other || other.isSubset(this));
  }

  /** Number of transactions in the set. */
  get size(): number {
    let size = 0;
    for (const list of this.#sources.values())
      for (let i = 0; i < list.length; i += 2) size += list[i + 1]! - list[i]! + 1;
    return size;
  }

  #sorted(): string[] {
    return [...this.#sources.keys()].sort();
  }

  /** Canonical text, equal for equal sets: sources in order, tags behind their uuid, no white space. */
  toString(): string {
    let text = '';
    let uuid = '';
    for (const source of this.#sorted()) {
      const next = source.slice(0, 36);
      if (next === uuid) text += `:${source.slice(37)}`;
      else text += `${text === '' ? '' : ','}${source}`;
      uuid = next;
      const list = this.#sources.get(source)!;
      for (let i = 0; i < list.length; i += 2)
        text += list[i] === list[i + 1] ? `:${list[i]}` : `:${list[i]}-${list[i + 1]}`;
    }
    return text;
  }

  toJSON(): string {
    return this.toString();
  }
}

/** True for a name that GTIDs of MySQL may carry in front of their number: `uuid` or `uuid:tag`, lower case. */
export function isMysqlSource(text: string): boolean {
  return SOURCE.test(text);
}

/** 16 bytes as the lower-case text of a UUID. */
export function formatUuid(bytes: Buffer, offset: number): string {
  if (offset + 16 > bytes.length) throw new RangeError('uuid');
  const hex = bytes.toString('hex', offset, offset + 16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

function toNumber(value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER))
    throw new ReplicationError('source_protocol', `transaction number ${value} is beyond what this version counts`);
  return Number(value);
}
