import { deflateSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { BinlogDecoder } from '../../capture/mysql/binlog-decoder.ts';
import { prepareZstd } from '../../capture/mysql/compression.ts';
import { EVENT, FLAG_IGNORABLE, HEADER_BYTES } from '../../capture/mysql/event-types.ts';
import type { TableMap } from '../../capture/mysql/table-map.ts';
import { ReplicationError } from '../../core/errors.ts';
import { createRandom } from '../../sandbox/demo/random.ts';
import { event, sealed, testCharsets, truncated } from '../support/binlog-events.ts';
import { MARIADB_EVENTS, MYSQL_EVENTS } from '../support/binlog-fixtures.ts';
import { emptySet, Recorder } from '../support/binlog-recorder.ts';

type Flavour = 'mysql' | 'mariadb';
const FIXTURES = { mysql: MYSQL_EVENTS, mariadb: MARIADB_EVENTS } as const;

beforeAll(prepareZstd);

function open(flavour: Flavour): { decoder: BinlogDecoder; recorder: Recorder } {
  const recorder = new Recorder(emptySet(flavour));
  return {
    recorder,
    decoder: new BinlogDecoder({ flavour, charsets: testCharsets(), checksum: true, handler: recorder }),
  };
}

function feed(decoder: BinlogDecoder, bytes: Buffer): boolean {
  return decoder.decode(bytes, 0, bytes.length);
}

function fixture(flavour: Flavour): Buffer[] {
  return FIXTURES[flavour].map((hex) => Buffer.from(hex, 'hex'));
}

/** The error of decoding `bytes` after the fixture's events of the same kind of log, in a group. */
function errorOf(
  bytes: Buffer,
  flavour: Flavour = 'mysql',
  prepare: (decoder: BinlogDecoder) => void = () => {},
): ReplicationError {
  const { decoder } = open(flavour);
  prepare(decoder);
  try {
    feed(decoder, bytes);
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(ReplicationError);
    return thrown as ReplicationError;
  }
  throw new Error('it was taken');
}

function gtidEvent(gno = 5): Buffer {
  const body = Buffer.alloc(42);
  body.fill(0xab, 1, 17);
  body.writeBigUInt64LE(BigInt(gno), 17);
  body[25] = 2;
  return event(EVENT.gtid, body);
}

function queryEvent(sql: string, schema = 'shop'): Buffer {
  const head = Buffer.alloc(13);
  head[8] = schema.length;
  return event(EVENT.query, Buffer.concat([head, Buffer.from(`${schema}\0${sql}`)]));
}

describe('the log of real servers', () => {
  it('of MySQL', () => {
    const { decoder, recorder } = open('mysql');
    const maps: TableMap[] = [];
    recorder.tableMap = (map) => void maps.push(map);
    for (const bytes of fixture('mysql')) expect(feed(decoder, bytes)).toBe(true);
    expect(recorder.lines).toEqual([
      'i t ["1","é","ö","{\\"k\\": [1, 2.5]}","-12.50"]',
      'end commit',
      'u t ["1","é","ö","{\\"k\\": [1, 2.5]}","-12.50"] ["2",null,"ö","{\\"k\\": [1, 2.5]}","-12.50"]',
      'end commit',
      'TRUNCATE fx.t',
      'end commit',
      'i t ["9",null,null,null,null]',
      'end xa-prepare 67,62,3',
      'end xa-rollback 67,62,3',
      'i t ["11",null,null,null,null]',
      'end commit',
    ]);
    expect(recorder.gtids[0]).toMatch(/^[0-9a-f-]{36}:tag_a:\d+$/);
    expect(recorder.gtids[1]).toMatch(/^[0-9a-f-]{36}:\d+$/);
    // A map that comes again unchanged is not told again; TRUNCATE made another table of it.
    expect(maps.length).toBe(2);
    expect(maps[0]).toMatchObject({ schema: 'fx', name: 't', primaryKey: [0], fullMetadata: true });
    expect(
      maps[0]!.columns.map(({ name, unsigned, nullable, collation }) => [name, unsigned, nullable, collation]),
    ).toEqual([
      ['id', true, false, undefined],
      ['name', false, true, 8],
      ['kind', false, true, 8],
      ['doc', false, true, undefined],
      ['amount', false, true, undefined],
    ]);
    expect(maps[0]!.columns[2]!.labels).toEqual(['a', 'ö']);
    expect(decoder.inGroup).toBe(false);
    expect(decoder.file).toBe('binlog.000001');
  });

  it('of MariaDB', () => {
    const { decoder, recorder } = open('mariadb');
    for (const bytes of fixture('mariadb')) feed(decoder, bytes);
    const x = 'x'.repeat(20);
    expect(recorder.lines).toEqual([
      'i t ["1","é","ö","{\\"k\\": [1, 2.5]}","-12.50"]',
      'end commit',
      `u t ["1","é","ö","{\\"k\\": [1, 2.5]}","-12.50"] ["2","${x}","ö","{\\"k\\": [1, 2.5]}","-12.50"]`,
      'end commit',
      'TRUNCATE fx.t',
      'end commit',
      'i t ["9",null,null,null,null]',
      'end xa-prepare 67,62,3',
      'end xa-rollback 67,62,3',
    ]);
    expect(recorder.gtids[0]).toMatch(/^0-1-\d+$|^0-\d+-\d+$/);
  });

  it('delivers a compressed transaction in pieces when it is suspended', () => {
    const { decoder, recorder } = open('mysql');
    const { rows } = recorder;
    recorder.rows = (reader) => {
      rows(reader);
      decoder.suspend();
    };
    const events = fixture('mysql');
    for (const bytes of events.slice(0, -1)) {
      feed(decoder, bytes);
      decoder.proceed();
    }
    expect(feed(decoder, events.at(-1)!)).toBe(false);
    expect(recorder.lines.at(-1)).toBe('i t ["11",null,null,null,null]');
    expect(decoder.inGroup).toBe(true);
    expect(decoder.proceed()).toBe(true);
    expect(recorder.lines.at(-1)).toBe('end commit');
  });
});

describe.each(['mysql', 'mariadb'] as const)('damaged events of %s', (flavour) => {
  const MUST_FAIL = new Set<number>([
    EVENT.tableMap,
    EVENT.writeRows,
    EVENT.updateRows,
    EVENT.writeRowsV1,
    EVENT.mariadbUpdateRowsCompressedV1,
    EVENT.mariadbQueryCompressed,
    EVENT.xaPrepare,
    EVENT.mariadbGtid,
    EVENT.transactionPayload,
  ]);

  it('are refused wherever they are cut', () => {
    const events = fixture(flavour);
    let refused = 0;
    for (const [index, bytes] of events.entries()) {
      const whole = bytes.length - HEADER_BYTES - 4;
      for (let length = 0; length < whole; length++) {
        const { decoder, recorder } = open(flavour);
        for (const earlier of events.slice(0, index)) feed(decoder, earlier);
        const lines = recorder.lines.length;
        let thrown: unknown;
        try {
          feed(decoder, truncated(bytes, length));
        } catch (error) {
          thrown = error;
        }
        if (thrown !== undefined) expect(thrown).toBeInstanceOf(ReplicationError);
        // Optional metadata may be missing from a table map, whole fields at a time: then its rows are refused.
        // An event with no row at all is a sound one.
        const optional = bytes[4] === EVENT.tableMap || bytes[4] === EVENT.mariadbGtid;
        if (MUST_FAIL.has(bytes[4]!) && !optional && thrown === undefined)
          expect([length < 20, recorder.lines.length], `type ${bytes[4]} cut to ${length}`).toEqual([true, lines]);
        if (thrown !== undefined) refused += 1;
      }
    }
    expect(refused).toBeGreaterThan(300);
  });

  it('never make anything but a clear error, whichever byte is wrong', () => {
    const events = fixture(flavour);
    const random = createRandom(20_240_229);
    for (let round = 0; round < 1000; round++) {
      const { decoder } = open(flavour);
      const index = random.between(0, events.length - 1);
      for (const earlier of events.slice(0, index)) feed(decoder, earlier);
      const damaged = Buffer.from(events[index]!);
      for (let n = random.between(1, 3); n > 0; n--)
        damaged[random.between(HEADER_BYTES, damaged.length - 5)] = random.between(0, 255);
      try {
        feed(decoder, sealed(damaged));
        for (const later of events.slice(index + 1)) feed(decoder, later);
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(ReplicationError);
      }
    }
  });

  it('are refused by their checksum', () => {
    const events = fixture(flavour);
    const { decoder } = open(flavour);
    const damaged = Buffer.from(events[0]!);
    damaged[HEADER_BYTES + 9] = damaged[HEADER_BYTES + 9]! ^ 1;
    expect(() => feed(decoder, damaged)).toThrow('wrong checksum');
  });
});

describe('events that stop the source', () => {
  const body = Buffer.alloc(20);
  it.each([
    ['an unknown type', event(99, body), 'source_protocol'],
    ['one of the future', event(250, body), 'source_protocol'],
    ['a transaction without a GTID', event(EVENT.anonymousGtid, body), 'source_binlog_settings'],
    ['encryption', event(EVENT.mariadbStartEncryption, body), 'source_binlog_settings'],
    ['rows in fragments', event(EVENT.mariadbPartialRowData, body), 'source_binlog_settings'],
    ['LOAD DATA as a statement', event(EVENT.beginLoadQuery, Buffer.alloc(8)), 'source_binlog_settings'],
    ['LOAD DATA as a statement, carried out', event(EVENT.executeLoadQuery, Buffer.alloc(8)), 'source_binlog_settings'],
    ['an incident', event(EVENT.incident, Buffer.from('\x01\x00\x04lost', 'latin1')), 'source_incident'],
    ['rows outside of a group', event(EVENT.writeRows, body), 'source_protocol'],
    ['a commit outside of a group', event(EVENT.xid, Buffer.alloc(8)), 'source_protocol'],
    ['a statement outside of a group', queryEvent('CREATE TABLE t (id int)'), 'source_binlog_settings'],
    ['too few bytes for a header', Buffer.alloc(10), 'source_protocol'],
  ] as const)('%s', (_, bytes, code) => {
    expect(errorOf(bytes).code).toBe(code);
  });

  it('a size that is not the packet’s', () => {
    const bytes = event(EVENT.stop, Buffer.alloc(0));
    bytes.writeUInt32LE(bytes.length + 1, 9);
    expect(errorOf(bytes).code).toBe('source_protocol');
  });

  it('a group in a group, and rows of a table that was not described', () => {
    expect(errorOf(gtidEvent(6), 'mysql', (decoder) => void feed(decoder, gtidEvent(5))).code).toBe('source_protocol');
    const inGroup = (decoder: BinlogDecoder): void => {
      feed(decoder, gtidEvent());
      feed(decoder, queryEvent('BEGIN'));
    };
    expect(errorOf(event(EVENT.writeRows, body), 'mysql', inGroup).message).toContain('was not described');
  });

  it('DML as a statement, in a group and as one', () => {
    for (const sql of [
      'INSERT INTO t VALUES (1)',
      '/* app */ update t set a = 1',
      'DELETE FROM t',
      'REPLACE INTO t VALUES (1)',
    ]) {
      const error = errorOf(queryEvent(sql), 'mysql', (decoder) => void feed(decoder, gtidEvent()));
      expect(error.code).toBe('source_binlog_settings');
    }
  });
});

describe('events that say nothing of rows', () => {
  it.each(
    [EVENT.stop, EVENT.previousGtids, EVENT.rowsQuery, EVENT.ignorable, EVENT.mariadbAnnotateRows]
      .concat([EVENT.mariadbCheckpoint, EVENT.mariadbGtidList, EVENT.intvar, EVENT.rand, EVENT.userVar] as never)
      .concat([EVENT.transactionContext, EVENT.viewChange] as never),
  )('type %i', (type) => {
    const { decoder, recorder } = open('mysql');
    feed(decoder, event(type, Buffer.alloc(12)));
    expect(recorder.lines).toEqual([]);
  });

  it('unknown ones that are marked as ignorable', () => {
    const { decoder } = open('mysql');
    expect(feed(decoder, event(99, Buffer.alloc(12), { flags: FLAG_IGNORABLE }))).toBe(true);
  });

  it('heartbeats of both forms and rotations', () => {
    const { decoder, recorder } = open('mysql');
    const beats: (string | number)[] = [];
    recorder.heartbeat = (file, offset) => beats.push(file, offset);
    feed(decoder, event(EVENT.heartbeat, Buffer.from('binlog.000007'), { endPosition: 4321 }));
    const name = Buffer.from('binlog.000008');
    const position = Buffer.from([0xfe, 0, 0, 0, 0, 2, 0, 0, 0]);
    feed(
      decoder,
      event(
        EVENT.heartbeatV2,
        Buffer.concat([
          Buffer.from([1, name.length]),
          name,
          Buffer.from([2, position.length]),
          position,
          Buffer.from([0]),
        ]),
      ),
    );
    expect(beats).toEqual(['binlog.000007', 4321, 'binlog.000008', 2 ** 33]);
    const rotate = Buffer.alloc(8);
    rotate.writeBigUInt64LE(4n);
    feed(
      decoder,
      event(EVENT.rotate, Buffer.concat([rotate, Buffer.from('binlog.000009')]), { flags: 0x20, endPosition: 0 }),
    );
    expect([decoder.file, decoder.offset]).toEqual(['binlog.000009', 4]);
  });

  it('counts positions beyond four gigabytes', () => {
    const { decoder } = open('mysql');
    feed(decoder, event(EVENT.stop, Buffer.alloc(0), { endPosition: 4_294_967_000 }));
    feed(decoder, event(EVENT.stop, Buffer.alloc(0), { endPosition: 500 }));
    expect(decoder.offset).toBe(2 ** 32 + 500);
  });
});

describe('groups', () => {
  function story(...sqls: string[]): string[] {
    const { decoder, recorder } = open('mysql');
    for (const sql of sqls) feed(decoder, sql === 'GTID' ? gtidEvent(recorder.gtids.length + 1) : queryEvent(sql));
    return recorder.lines;
  }

  it('end by statements too', () => {
    expect(story('GTID', 'BEGIN', 'COMMIT', 'GTID', 'BEGIN', 'ROLLBACK')).toEqual(['end commit', 'end rollback']);
    expect(story('GTID', 'BEGIN', 'SAVEPOINT `a``b`', 'ROLLBACK TO `a``b`', 'COMMIT')).toEqual([
      'savepoint a`b',
      'rollback to a`b',
      'end commit',
    ]);
  });

  it('of XA transactions in one phase and in two', () => {
    expect(
      story(
        'GTID',
        "XA START X'6131',X'',1",
        "XA END X'6131',X'',1",
        "XA COMMIT X'6131',X'',1 ONE PHASE",
        'GTID',
        "XA COMMIT X'6132',X'62',9",
      ),
    ).toEqual(['end commit', 'end xa-commit 6132,62,9']);
  });

  it('of statements that are committed by themselves', () => {
    expect(story('GTID', 'DROP TABLE BEGIN')).toEqual(['DROP', 'end commit']);
    expect(story('GTID', 'ALTER TABLE t ADD c int', 'GTID', 'truncate `o``dd`.`t``t`')).toEqual([
      'ALTER',
      'end commit',
      'TRUNCATE o`dd.t`t',
      'end commit',
    ]);
  });
});

describe('compressed events of MariaDB', () => {
  it('with a wrong length, algorithm or stream are refused', () => {
    const good = deflateSync(Buffer.from('TRUNCATE TABLE t'));
    const of = (...head: number[]): Buffer =>
      event(EVENT.mariadbQueryCompressed, Buffer.concat([Buffer.alloc(13), Buffer.from([0, ...head]), good]));
    const inGroup = (decoder: BinlogDecoder): void => void feed(decoder, gtidEvent());
    for (const bytes of [of(0x81, 99), of(0x91, 16), of(0x01, 16), of(0x80), of(0x84, 0xff, 0xff, 0xff, 0xff)])
      expect(errorOf(bytes, 'mysql', inGroup).code).toBe('source_protocol');
    const { decoder, recorder } = open('mysql');
    inGroup(decoder);
    feed(decoder, of(0x81, 16));
    expect(recorder.lines[0]).toBe('TRUNCATE .t');
  });
});
