import { describe, expect, it } from 'vitest';
import { compareGtidSets, GtidCursor } from '../../core/gtid-set.ts';
import { formatGtid } from '../../core/gtid.ts';
import { MariadbGtidSet } from '../../core/mariadb-gtid-set.ts';
import { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';

const A = '3e11fa47-71ca-11e1-9e33-c80aa9429562';
const B = 'f1bf8af1-e844-11f1-ba6d-02fc00000001';

describe('GTID sets of MySQL as text', () => {
  it('are read as the server writes them, and written in one form', () => {
    const text = `${B}:7:1-3:tag_b:5:tag_a:1-2,\n${A.toUpperCase()}:4-6:5-9`;
    expect(MysqlGtidSet.parse(text)!.toString()).toBe(`${A}:4-9,${B}:1-3:7:tag_a:1-2:tag_b:5`);
    expect(MysqlGtidSet.parse('')!.empty).toBe(true);
    expect(MysqlGtidSet.parse(`${A}:5-4`)!.empty).toBe(true);
  });

  it.each(['x', A, `${A}:`, `${A}:0`, `${A}:1-`, `${A}:tag`, `${A}:1:a b:2`, `${A}:1 ${B}:2`, `${A}:9007199254740993`])(
    'refuse %j',
    (text) => expect(MysqlGtidSet.parse(text)).toBeUndefined(),
  );
});

describe('the binary form of GTID sets', () => {
  it('is that of the protocol, without tags', () => {
    const bytes = MysqlGtidSet.parse(`${A}:1-5`)!.encode();
    expect(bytes.toString('hex')).toBe(
      `0100000000000000${A.replaceAll('-', '')}010000000000000001000000000000000600000000000000`,
    );
  });

  it('is that of the protocol, with tags', () => {
    const bytes = MysqlGtidSet.parse(`${A}:ab:2`)!.encode();
    expect(bytes.toString('hex')).toBe(
      `0101000000000001${A.replaceAll('-', '')}046162010000000000000002000000000000000300000000000000`,
    );
  });

  it('is refused when it is cut or too long', () => {
    const bytes = MysqlGtidSet.parse(`${A}:1-5:tag:7,${B}:3`)!.encode();
    for (let length = 0; length < bytes.length; length++)
      expect(() => MysqlGtidSet.decode(bytes.subarray(0, length))).toThrow(
        expect.objectContaining({ code: 'source_protocol' }),
      );
    expect(() => MysqlGtidSet.decode(Buffer.concat([bytes, Buffer.alloc(1)]))).toThrow('too many');
  });
});

describe('positions of MariaDB as text', () => {
  it('are read in any order, and written by domain', () => {
    expect(MariadbGtidSet.parse(' 10-1-5, 0-2-7 ')!.toString()).toBe('0-2-7,10-1-5');
    expect(MariadbGtidSet.parse('0-1-5,0-2-9')!.toString()).toBe('0-2-9');
    expect(MariadbGtidSet.parse('')!.empty).toBe(true);
    for (const text of ['0-1', '0-1-x', '4294967296-1-1', '0-1-9007199254740993'])
      expect(MariadbGtidSet.parse(text)).toBeUndefined();
  });
});

describe('GTIDs', () => {
  it('are printed as their server does', () => {
    expect(formatGtid({ kind: 'mysql', source: `${A}:tag`, gno: 5 })).toBe(`${A}:tag:5`);
    expect(formatGtid({ kind: 'mariadb', domain: 0, server: 1, seq: 5 })).toBe('0-1-5');
  });

  it('of one flavour do not go with a position of the other', () => {
    expect(() => compareGtidSets(MysqlGtidSet.EMPTY, MariadbGtidSet.EMPTY)).toThrow(
      expect.objectContaining({ code: 'source_identity_mismatch' }),
    );
    const cursor = new GtidCursor(MysqlGtidSet.EMPTY);
    expect(() => cursor.add({ kind: 'mariadb', domain: 0, server: 1, seq: 1 })).toThrow('mysql');
    expect(() => cursor.add({ kind: 'mysql', source: A, gno: 2 ** 53 })).toThrow('out of range');
  });
});
