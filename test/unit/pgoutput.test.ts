import { describe, expect, it } from 'vitest';
import {
  PgOutputDecoder,
  type PgOutputHandler,
  type StreamHandler,
  type TupleRange,
} from '../../capture/postgres/pgoutput.ts';

type Call = readonly unknown[];

/** Writes down what it is told; tuples as arrays of text, null and undefined for unchanged. */
function recorder(): { calls: Call[]; decoder: PgOutputDecoder } {
  const calls: Call[] = [];
  const values = (buffer: Buffer, { offset, count }: TupleRange): (string | null | undefined)[] => {
    let at = offset;
    return Array.from({ length: count }, () => {
      const kind = buffer.toString('latin1', at, ++at);
      if (kind !== 't') return kind === 'n' ? null : undefined;
      const length = buffer.readUInt32BE(at);
      at += 4 + length;
      return buffer.toString('utf8', at - length, at);
    });
  };
  const note =
    (name: string) =>
    (...args: unknown[]): void =>
      void calls.push([name, ...args]);
  const handler: PgOutputHandler & StreamHandler = {
    begin: note('begin'),
    commit: note('commit'),
    origin: note('origin'),
    relation: note('relation'),
    type: note('type'),
    insert: (oid, buffer, after, xid) => calls.push(['insert', oid, values(buffer, after), xid]),
    update: (oid, buffer, kind, before, after, xid) =>
      calls.push(['update', oid, kind, kind === undefined ? [] : values(buffer, before), values(buffer, after), xid]),
    delete: (oid, buffer, kind, before, xid) => calls.push(['delete', oid, kind, values(buffer, before), xid]),
    truncate: note('truncate'),
    message: (transactional, lsn, prefix, content, xid) =>
      calls.push(['message', transactional, lsn, prefix, content.toString('utf8'), xid]),
    streamStart: note('streamStart'),
    streamStop: note('streamStop'),
    streamCommit: note('streamCommit'),
    streamAbort: note('streamAbort'),
    twoPhase: note('twoPhase'),
  };
  return { calls, decoder: new PgOutputDecoder(handler, handler) };
}

const u8 = (value: number): Buffer => Buffer.from([value]);
const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 255]);
const u32 = (value: number): Buffer => {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32BE(value >>> 0);
  return buffer;
};
const u64 = (value: bigint): Buffer => {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(BigInt.asUintN(64, value));
  return buffer;
};
const str = (text: string): Buffer => Buffer.from(`${text}\0`);
const ascii = (text: string): Buffer => Buffer.from(text, 'latin1');
const message = (...parts: Buffer[]): Buffer => Buffer.concat(parts);
const tuple = (...values: (string | null | undefined)[]): Buffer =>
  message(
    u16(values.length),
    ...values.map((value) =>
      value === null
        ? ascii('n')
        : value === undefined
          ? ascii('u')
          : message(ascii('t'), u32(Buffer.byteLength(value)), Buffer.from(value)),
    ),
  );

const LSN = 0x0000_0016_b374_d848n;
const END = 0xffff_ffff_ffff_ffffn;
/** 2026-01-02T03:04:05.678901Z */
const TIME_US = 1_767_323_045_678_901;
const TIME = u64(BigInt(TIME_US) - 946_684_800_000_000n);
const XID = 0xfffffff0;

interface Fixture {
  readonly name: string;
  readonly bytes: Buffer;
  readonly call: Call;
  /** Carries an xid when it stands inside a stream block; `call` then ends with undefined outside of one. */
  readonly streamable?: true;
  /** Lengths at which what is left is a complete message too. */
  readonly completeAt?: readonly number[];
}

const RELATION = {
  oid: 16385,
  schema: 'Säge',
  name: 'a "b"',
  identity: 'd',
  columns: [
    { key: true, name: 'id', typeOid: 23, typmod: -1 },
    { key: false, name: 'preis', typeOid: 1700, typmod: 786_438 },
  ],
};

const FIXTURES: readonly Fixture[] = [
  {
    name: 'begin',
    bytes: message(ascii('B'), u64(LSN), TIME, u32(XID)),
    call: ['begin', LSN, TIME_US, XID],
  },
  {
    name: 'begin before 2000',
    bytes: message(ascii('B'), u64(LSN), u64(-1_000_001n), u32(3)),
    call: ['begin', LSN, 946_684_798_999_999, 3],
  },
  {
    name: 'commit',
    bytes: message(ascii('C'), u8(0), u64(LSN), u64(END), TIME),
    call: ['commit', LSN, END, TIME_US],
  },
  { name: 'origin', bytes: message(ascii('O'), u64(LSN), str('pg_16389')), call: ['origin', LSN, 'pg_16389'] },
  {
    name: 'relation',
    streamable: true,
    bytes: message(
      ascii('R'),
      u32(16385),
      str('Säge'),
      str('a "b"'),
      ascii('d'),
      u16(2),
      u8(1),
      str('id'),
      u32(23),
      u32(-1),
      u8(0),
      str('preis'),
      u32(1700),
      u32(786_438),
    ),
    call: ['relation', RELATION, undefined],
  },
  {
    name: 'relation of pg_catalog, without columns',
    streamable: true,
    bytes: message(ascii('R'), u32(1), str(''), str('t'), ascii('n'), u16(0)),
    call: ['relation', { oid: 1, schema: 'pg_catalog', name: 't', identity: 'n', columns: [] }, undefined],
  },
  {
    name: 'type',
    streamable: true,
    bytes: message(ascii('Y'), u32(0xfffffffe), str('public'), str('mood')),
    call: ['type', 0xfffffffe, 'public', 'mood', undefined],
  },
  {
    name: 'insert',
    streamable: true,
    bytes: message(ascii('I'), u32(16385), ascii('N'), tuple('1', null, 'grüße 🚚', '')),
    call: ['insert', 16385, ['1', null, 'grüße 🚚', ''], undefined],
  },
  {
    name: 'insert of a row without columns',
    streamable: true,
    bytes: message(ascii('I'), u32(16385), ascii('N'), tuple()),
    call: ['insert', 16385, [], undefined],
  },
  {
    name: 'update without old row',
    streamable: true,
    bytes: message(ascii('U'), u32(16385), ascii('N'), tuple('1', undefined, 'x')),
    call: ['update', 16385, undefined, [], ['1', undefined, 'x'], undefined],
  },
  {
    name: 'update with old key',
    streamable: true,
    bytes: message(ascii('U'), u32(16385), ascii('K'), tuple('1', null), ascii('N'), tuple('2', 'x')),
    call: ['update', 16385, 'K', ['1', null], ['2', 'x'], undefined],
  },
  {
    name: 'update with old row',
    streamable: true,
    bytes: message(ascii('U'), u32(16385), ascii('O'), tuple('1', 'old'), ascii('N'), tuple('1', 'new')),
    call: ['update', 16385, 'O', ['1', 'old'], ['1', 'new'], undefined],
  },
  {
    name: 'delete by key',
    streamable: true,
    bytes: message(ascii('D'), u32(16385), ascii('K'), tuple('1', null)),
    call: ['delete', 16385, 'K', ['1', null], undefined],
  },
  {
    name: 'delete by whole row',
    streamable: true,
    bytes: message(ascii('D'), u32(16385), ascii('O'), tuple('1', 'x')),
    call: ['delete', 16385, 'O', ['1', 'x'], undefined],
  },
  ...[0, 1, 2, 3].map((options): Fixture => ({
    name: `truncate with options ${options}`,
    streamable: true,
    bytes: message(ascii('T'), u32(2), u8(options), u32(16385), u32(16390)),
    call: ['truncate', [16385, 16390], (options & 1) !== 0, (options & 2) !== 0, undefined],
  })),
  ...[true, false].map((transactional): Fixture => ({
    name: `message, ${transactional ? '' : 'not '}transactional`,
    streamable: true,
    bytes: message(ascii('M'), u8(transactional ? 1 : 0), u64(LSN), str('waybill:x'), u32(3), ascii('abc')),
    call: ['message', transactional, LSN, 'waybill:x', 'abc', undefined],
  })),
  {
    name: 'message without content',
    streamable: true,
    bytes: message(ascii('M'), u8(1), u64(LSN), str(''), u32(0)),
    call: ['message', true, LSN, '', '', undefined],
  },
  { name: 'stream start, first', bytes: message(ascii('S'), u32(XID), u8(1)), call: ['streamStart', XID, true] },
  { name: 'stream start, again', bytes: message(ascii('S'), u32(XID), u8(0)), call: ['streamStart', XID, false] },
  { name: 'stream stop', bytes: ascii('E'), call: ['streamStop'] },
  {
    name: 'stream commit',
    bytes: message(ascii('c'), u32(XID), u8(0), u64(LSN), u64(END), TIME),
    call: ['streamCommit', XID, LSN, END, TIME_US],
  },
  { name: 'stream abort', bytes: message(ascii('A'), u32(XID), u32(7)), call: ['streamAbort', XID, 7] },
  {
    name: 'stream abort of a parallel stream',
    bytes: message(ascii('A'), u32(XID), u32(7), u64(LSN), TIME),
    call: ['streamAbort', XID, 7],
    completeAt: [9],
  },
  {
    name: 'begin prepare',
    bytes: message(ascii('b'), u64(LSN), u64(END), TIME, u32(XID), str('gid 1')),
    call: ['twoPhase', 'b', LSN, END, XID, 'gid 1'],
  },
  ...(['P', 'K', 'p'] as const).map((step): Fixture => ({
    name: { P: 'prepare', K: 'commit prepared', p: 'stream prepare' }[step],
    bytes: message(ascii(step), u8(0), u64(LSN), u64(END), TIME, u32(XID), str('gid 1')),
    call: ['twoPhase', step, LSN, END, XID, 'gid 1'],
  })),
  {
    name: 'rollback prepared',
    bytes: message(ascii('r'), u8(0), u64(LSN), u64(END), TIME, TIME, u32(XID), str('gid 1')),
    call: ['twoPhase', 'r', LSN, END, XID, 'gid 1'],
  },
];

const START = message(ascii('S'), u32(XID), u8(1));
const refusal = (part: string | RegExp): unknown =>
  expect.objectContaining({
    name: 'ReplicationError',
    code: 'source_protocol',
    message: expect.stringMatching(part) as string,
  });

/** A fixture as it stands inside a stream block. */
function streamed({ bytes, call }: Fixture): { bytes: Buffer; call: Call } {
  return {
    bytes: message(bytes.subarray(0, 1), u32(XID), bytes.subarray(1)),
    call: [...call.slice(0, -1), XID],
  };
}

const CASES = [
  ...FIXTURES.map((fixture) => ({ ...fixture, before: [] as Buffer[] })),
  ...FIXTURES.filter((fixture) => fixture.streamable).map((fixture) => ({
    ...streamed(fixture),
    name: `${fixture.name}, in a stream block`,
    completeAt: fixture.completeAt,
    before: [START],
  })),
];

describe.each(CASES)('pgoutput $name', ({ bytes, call, before, completeAt = [] }) => {
  const prepared = (): ReturnType<typeof recorder> => {
    const made = recorder();
    for (const earlier of before) made.decoder.decode(earlier);
    made.calls.length = 0;
    return made;
  };

  it('is decoded', () => {
    const { calls, decoder } = prepared();
    decoder.decode(bytes);
    expect(calls).toEqual([call]);
  });

  it('is decoded where it lies inside a larger buffer', () => {
    const { calls, decoder } = prepared();
    const around = message(Buffer.alloc(5, 0xff), bytes, Buffer.alloc(7, 0x74));
    decoder.decode(around.subarray(5, 5 + bytes.length));
    expect(calls).toEqual([call]);
  });

  it('is refused at every shorter length, and the handler hears nothing', () => {
    for (let length = 0; length < bytes.length; length++) {
      if (completeAt.includes(length)) continue;
      const { calls, decoder } = prepared();
      expect(() => decoder.decode(bytes.subarray(0, length)), `${length} bytes`).toThrow(refusal(/./) as Error);
      expect(calls, `${length} bytes`).toEqual([]);
    }
  });

  it('is refused with bytes behind it', () => {
    // The short form of a stream abort with eight bytes more is a long one that is cut off.
    for (const extra of [1, 2, 8]) {
      const { decoder } = prepared();
      expect(() => decoder.decode(message(bytes, Buffer.alloc(extra)))).toThrow(
        refusal(/bytes more than known|truncated/) as Error,
      );
    }
  });
});

describe('pgoutput', () => {
  it('carries xids from a stream start to a stream stop only', () => {
    const { calls, decoder } = recorder();
    const insert = message(ascii('I'), u32(1), ascii('N'), tuple('a'));
    const inStream = message(ascii('I'), u32(9), u32(1), ascii('N'), tuple('a'));
    decoder.decode(insert);
    decoder.decode(START);
    decoder.decode(inStream);
    decoder.decode(ascii('E'));
    decoder.decode(insert);
    expect(calls).toEqual([
      ['insert', 1, ['a'], undefined],
      ['streamStart', XID, true],
      ['insert', 1, ['a'], 9],
      ['streamStop'],
      ['insert', 1, ['a'], undefined],
    ]);
  });

  it('refuses every type that is not one of the protocol', () => {
    const known = new Set(Buffer.from('BCORYIUDTMSEcAbPKrp'));
    expect(known.size).toBe(19);
    for (let type = 0; type < 256; type++) {
      if (known.has(type)) continue;
      const { calls, decoder } = recorder();
      const hex = `0x${type.toString(16).padStart(2, '0')}`;
      expect(() => decoder.decode(Buffer.from([type, 1, 2]))).toThrow(refusal(`unknown.*${hex} of 3 bytes`) as Error);
      expect(calls).toEqual([]);
    }
  });

  it.each([
    [
      'a binary value',
      message(ascii('I'), u32(1), ascii('N'), u16(1), ascii('b'), u32(1), u8(1)),
      /unknown byte "b" 0x62/,
    ],
    ['an unknown kind of value', message(ascii('I'), u32(1), ascii('N'), u16(1), u8(0)), /unknown byte 0x00 at 8/],
    ['an insert without N', message(ascii('I'), u32(1), ascii('K'), tuple('1')), /unknown byte "K"/],
    ['an update of an unknown kind', message(ascii('U'), u32(1), ascii('X'), tuple('1')), /unknown byte "X"/],
    ['an update with two old rows', message(ascii('U'), u32(1), ascii('K'), tuple('1'), ascii('O'), tuple('1')), /"O"/],
    ['a delete with a new row', message(ascii('D'), u32(1), ascii('N'), tuple('1')), /unknown byte "N"/],
    [
      'a value longer than the message',
      message(ascii('I'), u32(1), ascii('N'), u16(1), ascii('t'), u32(-1)),
      /truncated/,
    ],
    ['a truncate of more tables than named', message(ascii('T'), u32(-1), u8(0), u32(1)), /truncated/],
    ['content longer than the message', message(ascii('M'), u8(1), u64(LSN), str('p'), u32(-1), u8(0)), /truncated/],
    ['a name without end', message(ascii('O'), u64(LSN), ascii('name')), /truncated/],
  ])('refuses %s', (_, bytes, part) => {
    const { calls, decoder } = recorder();
    expect(() => decoder.decode(bytes)).toThrow(refusal(part) as Error);
    expect(calls).toEqual([]);
  });

  it('lets through what its handler throws', () => {
    const thrown = new Error('from the handler');
    const decoder = new PgOutputDecoder({
      origin() {
        throw thrown;
      },
    } as unknown as PgOutputHandler);
    expect(() => decoder.decode(message(ascii('O'), u64(LSN), str('n')))).toThrow(thrown);
  });
});

describe('transactions in progress that nobody asked for', () => {
  const unasked = (): { calls: Call[]; decoder: PgOutputDecoder } => {
    const calls: Call[] = [];
    const handler = new Proxy({} as PgOutputHandler, {
      get:
        (_, name) =>
        (...args: unknown[]): void =>
          void calls.push([name, ...args]),
    });
    return { calls, decoder: new PgOutputDecoder(handler) };
  };

  it('are refused, as they begin, end and are committed', () => {
    const { calls, decoder } = unasked();
    for (const message of [
      Buffer.concat([Buffer.from('S'), u32(7), u8(1)]),
      Buffer.from('E'),
      Buffer.concat([Buffer.from('c'), u32(7), u8(0), u64(1n), u64(2n), u64(3n)]),
    ])
      expect(() => decoder.decode(message)).toThrow('which this connection did not ask for');
    expect(calls).toEqual([]);
  });

  it('may have been rolled back: nothing of them was sent', () => {
    const { calls, decoder } = unasked();
    decoder.decode(Buffer.concat([Buffer.from('A'), u32(7), u32(8)]));
    expect(calls).toEqual([]);
  });
});
