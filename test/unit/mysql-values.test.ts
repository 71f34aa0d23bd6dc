import { describe, expect, it } from 'vitest';
import { boolText, utcText } from '../../apply/mysql-values.ts';
import { Charsets, decodeText, writeCharset } from '../../capture/mysql/charset.ts';
import { inflateColumn, prepareZstd, unzstd } from '../../capture/mysql/compression.ts';
import { decimalBytes, writeDecimal } from '../../capture/mysql/decimal.ts';
import { writeInt, writeInt64, writeUint, writeUint64 } from '../../capture/mysql/digits.ts';
import { doubleText, floatText } from '../../capture/mysql/float-text.ts';
import { JsonPrinter } from '../../capture/mysql/json-binary.ts';
import { inet6Text } from '../../capture/mysql/network-text.ts';
import { sourceError } from '../../capture/mysql/source-error.ts';
import { classifyStatement } from '../../capture/mysql/statement.ts';
import * as temporal from '../../capture/mysql/temporal.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import { createRandom } from '../../sandbox/demo/random.ts';
import { testCharsets } from '../support/binlog-events.ts';

const out = Buffer.alloc(200);

function text(end: number): string {
  return out.toString('latin1', 0, end);
}

describe('digits', () => {
  it('of integers of any size', () => {
    const random = createRandom(1);
    for (let n = 0; n < 5000; n++) {
      const big = random.bytes(8).readBigUInt64LE() >> BigInt(random.between(0, 63));
      const [low, high] = [Number(big & 0xffff_ffffn), Number(big >> 32n)];
      expect(text(writeUint64(out, 0, low, high))).toBe(String(big));
      expect(text(writeInt64(out, 0, low, high))).toBe(String(BigInt.asIntN(64, big)));
      const safe = Number(big >> 11n);
      expect(text(writeUint(out, 0, safe))).toBe(String(safe));
      expect(text(writeInt(out, 0, -safe))).toBe(String(-safe));
    }
    for (const value of [0, 9, 10, 99, 100, 999_999, 1_000_000, 2 ** 31, 2 ** 31 - 1, 2 ** 53 - 1])
      expect(text(writeUint(out, 0, value))).toBe(String(value));
  });

  it('of decimals', () => {
    // From the comment on decimal2bin: 1234567890.1234 and its negative.
    const stored = Buffer.from('810dfb38d204d2', 'hex');
    expect(decimalBytes(14, 4)).toBe(7);
    expect(text(writeDecimal(out, 0, stored, 0, 14, 4))).toBe('1234567890.1234');
    const negative = Buffer.from(stored.map((byte) => byte ^ 0xff));
    expect(text(writeDecimal(out, 0, negative, 0, 14, 4))).toBe('-1234567890.1234');
    expect(text(writeDecimal(out, 0, Buffer.from('80', 'hex'), 0, 2, 2))).toBe('0.00');
    expect(text(writeDecimal(out, 0, Buffer.from('80000000', 'hex'), 0, 9, 0))).toBe('0');
  });
});

describe('floats', () => {
  it.each([
    [0, '0'],
    [-0, '-0'],
    [1e15, '1e15'],
    [999_999_999_999_999, '999999999999999'],
    [123_456_789_012_345_680, '1.2345678901234568e17'],
    [1e-14, '0.00000000000001'],
    [1e-15, '0.000000000000001'],
    [1e-16, '1e-16'],
    [-2.5e-10, '-0.00000000025'],
    [1.7976931348623157e308, '1.7976931348623157e308'],
    [5e-324, '5e-324'],
    [2251799813685249.5, '2251799813685249.5'],
  ])('%d', (value, expected) => expect(doubleText(value)).toBe(expected));

  it('of four bytes', () => {
    expect(floatText(Math.fround(0.1))).toBe('0.1');
    expect(floatText(16_777_216)).toBe('16777216');
    expect(floatText(Math.fround(1.2345678))).toBe('1.2345677614212036');
    const random = createRandom(2);
    for (let n = 0; n < 3000; n++) {
      const value = random.bytes(4).readFloatLE();
      if (Number.isFinite(value)) expect(Math.fround(Number(floatText(value)))).toBe(value);
    }
  });
});

describe('dates and times', () => {
  it('of tables from before MySQL 5.6', () => {
    const time = Buffer.alloc(3);
    time.writeIntLE(-1_234_556, 0, 3);
    expect(text(temporal.writeOldTime(out, 0, time, 0))).toBe('-123:45:56');
    const datetime = Buffer.alloc(8);
    datetime.writeBigUInt64LE(20_240_229_235_958n);
    expect(text(temporal.writeOldDatetime(out, 0, datetime, 0))).toBe('2024-02-29 23:59:58');
    const timestamp = Buffer.alloc(4);
    expect(text(temporal.writeOldTimestamp(out, 0, timestamp, 0))).toBe('0000-00-00 00:00:00');
    timestamp.writeUInt32LE(951_868_799);
    expect(text(temporal.writeOldTimestamp(out, 0, timestamp, 0))).toBe('2000-02-29 23:59:59');
  });

  it('of every day from 1970 to 2106', () => {
    const stored = Buffer.alloc(4);
    for (let seconds = 1; seconds < 2 ** 32; seconds += 43_210) {
      stored.writeUInt32BE(seconds);
      const expected = new Date(seconds * 1000).toISOString().slice(0, 19).replace('T', ' ');
      if (text(temporal.writeTimestamp2(out, 0, stored, 0, 0)) !== expected) expect(seconds).toBe(expected);
    }
  });
});

describe('binary JSON', () => {
  const printer = new JsonPrinter();
  const print = (hex: string): string => {
    const bytes = Buffer.from(hex, 'hex');
    const length = printer.print(bytes, 0, bytes.length);
    return printer.buffer.toString('utf8', 0, length);
  };
  const document = '0001001e000b000100020c006b020012000501000b0a000000000000000440';

  it('is printed as the server does', () => {
    expect(print(document)).toBe('{"k": [1, 2.5]}');
    expect(print('')).toBe('null');
    expect(print('0401')).toBe('true');
    expect(print('0c03610a22')).toBe('"a\\n\\""');
    expect(print('0affffffffffffffff')).toBe('18446744073709551615');
  });

  it('is refused when it is damaged', () => {
    const random = createRandom(3);
    const bytes = Buffer.from(document, 'hex');
    for (let length = 1; length < bytes.length; length++)
      expect(() => print(bytes.subarray(0, length).toString('hex'))).toThrow(
        expect.objectContaining({ code: 'source_protocol' }),
      );
    for (let round = 0; round < 5000; round++) {
      const damaged = Buffer.from(bytes);
      damaged[random.between(0, bytes.length - 1)] = random.between(0, 255);
      try {
        print(damaged.toString('hex'));
      } catch (thrown) {
        expect(thrown).toMatchObject({ code: 'source_protocol' });
      }
    }
    expect(() => print('0d00')).toThrow('unknown type 13');
  });
});

describe('character sets', () => {
  const charsets = testCharsets();

  it('become UTF-8 with JSON escapes', () => {
    const writer = new FrameWriter(100);
    const from = writer.bytes;
    const bytes = Buffer.from('"é\n\\', 'latin1');
    writeCharset(writer, charsets.of(8, 'c'), bytes, 0, bytes.length);
    expect(writer.textFrom(from)).toBe('"\\"é\\n\\\\"');
    expect(decodeText(charsets.of(8, 'c'), bytes)).toBe('"é\n\\');
  });

  it('that are unknown, or bytes that they lack, are errors', () => {
    expect(() => charsets.of(9999, 'column a of t')).toThrow('column a of t has the unknown collation 9999');
    expect(() => charsets.of(95, 'c')).toThrow('cp932');
    const holes = new Charsets(new Map([[1, 'holed']]), new Map([['holed', () => new Map([[0x41, 'A']])]]));
    expect(decodeText(holes.of(1, 'c'), Buffer.from('AA'))).toBe('AA');
    expect(() => decodeText(holes.of(1, 'c'), Buffer.from('AB'))).toThrow(
      expect.objectContaining({ code: 'source_encoding' }),
    );
    const wide = new Charsets(
      new Map([
        [1, 'ucs2'],
        [2, 'two'],
      ]),
      new Map([
        [
          'two',
          () =>
            new Map([
              [0x41, 'A'],
              [0x8140, '漢'],
            ]),
        ],
      ]),
    );
    expect(decodeText(wide.of(2, 'c'), Buffer.from([0x41, 0x81, 0x40]))).toBe('A漢');
    expect(() => decodeText(wide.of(2, 'c'), Buffer.from([0x81]))).toThrow(
      expect.objectContaining({ code: 'source_encoding' }),
    );
    expect(() => decodeText(wide.of(1, 'c'), Buffer.from([0x81]))).toThrow(
      expect.objectContaining({ code: 'source_encoding' }),
    );
  });
});

describe('compressed values', () => {
  it('that are damaged are refused', async () => {
    await prepareZstd();
    for (const bytes of [Buffer.from('x'), Buffer.from('28b52ffd600c003d0600020b282f', 'hex'), Buffer.alloc(5000, 7)])
      expect(() => [...unzstd(bytes)]).toThrow(expect.objectContaining({ code: 'source_protocol' }));
    expect(inflateColumn(Buffer.from('\0plain')).toString()).toBe('plain');
    for (const bytes of [Buffer.from([0x11]), Buffer.from([0x81]), Buffer.from([0x81, 5, 1, 2])])
      expect(() => inflateColumn(bytes)).toThrow(expect.objectContaining({ code: 'source_protocol' }));
  });
});

describe('inet6', () => {
  it.each([
    ['00000000000000000000000000000000', '::'],
    ['00000000000000000000000000000001', '::1'],
    ['00000000000000000000ffffc0000201', '::ffff:192.0.2.1'],
    ['20010db8000000000000000000000001', '2001:db8::1'],
    ['20010db8000000010000000000000000', '2001:db8:0:1::'],
  ])('%s', (hex, expected) => expect(inet6Text(Buffer.from(hex, 'hex'))).toBe(expected));
});

describe('statements', () => {
  it.each([
    ['BEGIN', { kind: 'begin' }],
    ['commit', { kind: 'commit' }],
    ['ROLLBACK WORK TO SAVEPOINT s1', { kind: 'rollback-to', name: 's1' }],
    [
      '/* c1 */ -- c2\n truncate a.b',
      { kind: 'other', verb: 'TRUNCATE', truncates: { schema: 'a', name: 'b' }, movesRows: false },
    ],
    [
      'TRUNCATE TABLE "a""b"',
      { kind: 'other', verb: 'TRUNCATE', truncates: { schema: 'db', name: 'a"b' }, movesRows: false },
    ],
    [
      '/*!100001 START ALTER 7 */ ALTER TABLE t ADD c int',
      { kind: 'other', verb: 'ALTER', truncates: undefined, movesRows: false },
    ],
    [
      '/*!40000 ALTER TABLE t DISABLE KEYS */',
      { kind: 'other', verb: 'ALTER', truncates: undefined, movesRows: false },
    ],
    ['# note\nDROP TABLE x', { kind: 'other', verb: 'DROP', truncates: undefined, movesRows: true }],
    ['DROP /*!40005 TEMPORARY */ TABLE x', { kind: 'other', verb: 'DROP', truncates: undefined, movesRows: false }],
    ['DROP INDEX i ON t', { kind: 'other', verb: 'DROP', truncates: undefined, movesRows: false }],
    ['rename table a to b, c to a', { kind: 'other', verb: 'RENAME', truncates: undefined, movesRows: true }],
    ['CREATE OR REPLACE TABLE a (b int)', { kind: 'other', verb: 'CREATE', truncates: undefined, movesRows: true }],
    ['CREATE VIEW a AS SELECT 1', { kind: 'other', verb: 'CREATE', truncates: undefined, movesRows: false }],
    ['ALTER TABLE t\nRENAME TO u', { kind: 'other', verb: 'ALTER', truncates: undefined, movesRows: true }],
    ['ALTER TABLE t RENAME COLUMN a TO b', { kind: 'other', verb: 'ALTER', truncates: undefined, movesRows: false }],
    ['load data infile "x" into table t', { kind: 'dml', verb: 'LOAD' }],
    [
      'alter table t drop partition if exists p0',
      { kind: 'other', verb: 'ALTER', truncates: undefined, movesRows: true },
    ],
    [
      'ALTER TABLE t\nTRUNCATE /* x */ PARTITION ALL',
      { kind: 'other', verb: 'ALTER', truncates: undefined, movesRows: true },
    ],
    [
      'ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u',
      { kind: 'other', verb: 'ALTER', truncates: undefined, movesRows: true },
    ],
    [
      'ALTER TABLE t CONVERT TABLE u TO PARTITION p',
      { kind: 'other', verb: 'ALTER', truncates: undefined, movesRows: true },
    ],
    ['ALTER TABLE t IMPORT TABLESPACE', { kind: 'other', verb: 'ALTER', truncates: undefined, movesRows: true }],
    [
      'ALTER TABLE t ADD PARTITION (PARTITION p VALUES IN (1))',
      { kind: 'other', verb: 'ALTER', truncates: undefined, movesRows: false },
    ],
    [
      'ALTER TABLE t DROP COLUMN partition_of',
      { kind: 'other', verb: 'ALTER', truncates: undefined, movesRows: false },
    ],
    ...[
      'TRUNCATE /* for the night */ TABLE t',
      'TRUNCATE TABLE/**/t',
      'TRUNCATE # why\n TABLE -- which\n t',
      'TRUNCATE /*!50000 TABLE */ t',
      'SET STATEMENT lock_wait_timeout = 5 FOR TRUNCATE TABLE t',
      "/* c */ set statement sql_mode = ' for x', max_statement_time=1 for /* c */ truncate `t`",
    ].map((sql): [string, object] => [
      sql,
      { kind: 'other', verb: 'TRUNCATE', truncates: { schema: 'db', name: 't' }, movesRows: false },
    ]),
    ['SET STATEMENT max_statement_time = 1 FOR INSERT INTO t VALUES (1)', { kind: 'dml', verb: 'INSERT' }],
    [
      'SET STATEMENT lock_wait_timeout = 5 FOR ALTER TABLE t DROP PARTITION p',
      { kind: 'other', verb: 'ALTER', truncates: undefined, movesRows: true },
    ],
    [
      'ALTER ONLINE IGNORE TABLE t ADD UNIQUE (a)',
      { kind: 'other', verb: 'ALTER', truncates: undefined, movesRows: true },
    ],
    ['RENAME/**/TABLE a TO b', { kind: 'other', verb: 'RENAME', truncates: undefined, movesRows: true }],
    [
      "ALTER TABLE t COMMENT '/* DROP PARTITION p */'",
      { kind: 'other', verb: 'ALTER', truncates: undefined, movesRows: true },
    ],
    ['SAVEPOINT `A`', { kind: 'savepoint', name: 'a' }],
    ['ROLLBACK TO A', { kind: 'rollback-to', name: 'a' }],
    ['XA RECOVER', { kind: 'other', verb: 'XA', truncates: undefined, movesRows: false }],
  ])('%j', (sql, expected) => expect(classifyStatement(sql, 'db')).toEqual(expected));
});

describe('errors of the source', () => {
  it.each([
    [{ errno: 1236, message: 'Cannot replicate because the source purged required binary logs.' }, 'source_log_purged'],
    [{ errno: 1236, message: 'Could not find first log file name in binary log index file' }, 'source_log_purged'],
    [{ errno: 1236, message: 'Replica has more GTIDs than the source has' }, 'source_diverged'],
    [
      { errno: 1236, message: 'A replica with the same server_uuid/server_id as this replica' },
      'source_server_id_clash',
    ],
    [{ errno: 1236, message: 'something new' }, 'source_protocol'],
    [{ errno: 4052, message: 'A slave with the same id' }, 'source_server_id_clash'],
    [{ errno: 1045, message: 'Access denied' }, 'source_auth'],
    [{ errno: 1227, message: 'Access denied; you need REPLICATION SLAVE' }, 'source_privilege'],
    [{ errno: -111, code: 'ECONNREFUSED', message: 'connect' }, 'source_unreachable'],
    [{ code: 'HANDSHAKE_NO_SSL_SUPPORT', message: 'Server does not support secure connection' }, 'source_auth'],
    [{ code: 'AUTH_SWITCH_PLUGIN_ERROR', message: 'unknown plugin client_ed25519' }, 'source_auth'],
    // A connection that broke while it was made safe.
    [{ code: 'HANDSHAKE_SSL_ERROR', message: 'disconnected', localAddress: null }, 'source_unreachable'],
    [{ code: 'HANDSHAKE_SSL_ERROR', message: 'read ECONNRESET', syscall: 'read' }, 'source_unreachable'],
    [{ errno: 1064, message: 'You have an error', sqlState: '42000' }, 'source_query'],
  ] as const)('%j', (given, code) => {
    expect(sourceError(Object.assign(new Error(given.message), given), 'x').code).toBe(code);
  });
});

it('values of records are written to MySQL as those of Postgres tables are, which print them otherwise', () => {
  expect(['t', 'true', 'f', 'false'].map(boolText)).toEqual(['1', '1', '0', '0']);
  expect(['2026-03-01 12:00:00.5+00', '2026-03-01T12:00:00.500000Z'].map(utcText)).toEqual([
    '2026-03-01 12:00:00.5',
    '2026-03-01 12:00:00.500000',
  ]);
});
