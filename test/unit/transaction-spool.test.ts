import { fstatSync, ftruncateSync, readdirSync, readSync, writeSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { PgOutputDecoder, type PgOutputHandler, type TupleRange } from '../../capture/postgres/pgoutput.ts';
import { TransactionSpool } from '../../capture/postgres/transaction-spool.ts';

const TIME = 1_700_000_000_000_000;
const PG_EPOCH_US = 946_684_800_000_000;
const XID = 700;
const OTHER = 800;

const u8 = (value: number): Buffer => Buffer.from([value]);
const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 255]);
const u32 = (value: number): Buffer => {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32BE(value);
  return buffer;
};
const u64 = (value: bigint): Buffer => {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(value);
  return buffer;
};
const ascii = (text: string): Buffer => Buffer.from(text, 'latin1');
const start = (xid: number, isFirst = true): Buffer => Buffer.concat([ascii('S'), u32(xid), u8(isFirst ? 1 : 0)]);
const again = (xid: number): Buffer => start(xid, false);
const stop = ascii('E');
const abort = (xid: number, subXid = xid): Buffer => Buffer.concat([ascii('A'), u32(xid), u32(subXid)]);
const commit = (xid: number, lsn = 90n): Buffer =>
  Buffer.concat([ascii('c'), u32(xid), u8(0), u64(lsn), u64(lsn + 9n), u64(BigInt(TIME - PG_EPOCH_US))]);
const insert = (xid: number, value: string): Buffer =>
  Buffer.concat([ascii('I'), u32(xid), u32(1), ascii('N'), u16(1), ascii('t'), u32(value.length), ascii(value)]);
const relation = (xid: number, name: string): Buffer =>
  Buffer.concat([ascii('R'), u32(xid), u32(1), ascii('public\0'), ascii(`${name}\0`), ascii('d'), u16(0)]);
const origin = (name: string): Buffer => Buffer.concat([ascii('O'), u64(0n), ascii(`${name}\0`)]);
const message = (xid: number, prefix: string, content: string): Buffer =>
  Buffer.concat([ascii('M'), u32(xid), u8(1), u64(1n), ascii(`${prefix}\0`), u32(content.length), ascii(content)]);

function textOf(buffer: Buffer, { offset }: TupleRange): string {
  return buffer.toString('latin1', offset + 5, offset + 5 + buffer.readUInt32BE(offset + 1));
}

/** The files of this process that no folder names, and their sizes. */
function namelessSizes(): [fd: number, size: number][] {
  return readdirSync('/dev/fd').flatMap((name): [number, number][] => {
    try {
      const stat = fstatSync(Number(name));
      return stat.isFile() && stat.nlink === 0 ? [[Number(name), stat.size]] : [];
    } catch {
      // Closed meanwhile: the descriptor that read the folder.
      return [];
    }
  });
}

/** What is in them. */
function namelessFiles(): Buffer[] {
  return namelessSizes().map(([fd, size]) => {
    const bytes = Buffer.alloc(size);
    readSync(fd, bytes, 0, bytes.length, 0);
    return bytes;
  });
}

let folder: string;
const spools: TransactionSpool[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'waybill-spool-test-'));
});
afterEach(async () => {
  for (const spool of spools.splice(0)) await spool.close();
  await rm(folder, { recursive: true, force: true });
});

function open(options: { mostBytes?: number; mostSubtransactions?: number; folder?: string } = {}) {
  const calls: string[] = [];
  const held: Promise<void>[] = [];
  let onInsert = (): void => {};
  const handler = {
    begin: (lsn: bigint, timeUs: number, xid: number) => calls.push(`begin ${lsn} ${timeUs} ${xid}`),
    commit: (lsn: bigint, end: bigint, timeUs: number) => calls.push(`commit ${lsn} ${end} ${timeUs}`),
    origin: (_: bigint, name: string) => calls.push(`origin ${name}`),
    relation: ({ name }: { name: string }) => calls.push(`relation ${name}`),
    insert: (_: number, buffer: Buffer, after: TupleRange) => {
      calls.push(textOf(buffer, after));
      onInsert();
    },
    message: (_: boolean, __: bigint, prefix: string, content: Buffer) => calls.push(`${prefix} ${content.toString()}`),
  } as unknown as PgOutputHandler;
  const spool = new TransactionSpool({
    folder,
    mostBytes: 1 << 30,
    markPrefix: 'waybill:slot',
    handler,
    onActivity: () => {},
    hold: (work) => void held.push(work),
    ...options,
  });
  spools.push(spool);
  const decoder = new PgOutputDecoder(handler, spool);
  const take = (bytes: Buffer): void => {
    // As it comes: behind a header, in memory that is used again.
    const data = Buffer.concat([Buffer.alloc(25), bytes]);
    if (!spool.take(data, 25)) decoder.decode(data, 25);
    data.fill(0xee);
  };
  return {
    calls,
    spool,
    take,
    async feed(...messages: Buffer[]): Promise<string[]> {
      for (const bytes of messages) {
        take(bytes);
        for (const work of held.splice(0)) await work;
      }
      return calls.splice(0);
    },
    heldWork: () => held.splice(0),
    onInsert: (hook: () => void) => void (onInsert = hook),
  };
}
const begins = (xid: number, lsn = 90): string => `begin ${lsn} ${TIME} ${xid}`;
const ends = (lsn = 90): string => `commit ${lsn} ${lsn + 9} ${TIME}`;
const refusal = (code: string): unknown => expect.objectContaining({ code });

describe('spool of transactions in progress', () => {
  it('hands on at the commit what came in blocks, in its order and as protocol 1 has it', async () => {
    const { feed, spool } = open();
    const bytes = [start(XID), origin('o'), relation(XID, 't'), insert(XID, 'a'), stop];
    expect(await feed(...bytes, start(OTHER), insert(OTHER, 'x'), stop, again(XID), insert(XID, 'b'), stop)).toEqual(
      [],
    );
    expect(spool.kept.transactions).toBe(2);
    expect(await readdir(folder), 'its files have no names').toEqual([]);
    expect(await feed(commit(OTHER, 50n))).toEqual([begins(OTHER, 50), 'x', ends(50)]);
    expect(await feed(commit(XID))).toEqual([begins(XID), 'origin o', 'relation t', 'a', 'b', ends()]);
    expect(spool.kept).toEqual({ bytes: 0, transactions: 0 });
  });

  it('drops a transaction that is rolled back', async () => {
    const { feed, spool } = open();
    await feed(start(XID), insert(XID, 'a'), stop, start(OTHER), insert(OTHER, 'x'), stop, abort(XID));
    expect(spool.kept.transactions).toBe(1);
    expect(await feed(abort(XID), commit(OTHER))).toEqual([begins(OTHER), 'x', ends()]);
    // The id may come back, long after.
    expect(await feed(start(XID), insert(XID, 'b'), stop, commit(XID))).toEqual([begins(XID), 'b', ends()]);
    expect(spool.kept).toEqual({ bytes: 0, transactions: 0 });
  });

  it('drops what was rolled back to a savepoint, and what was released inside', async () => {
    const { feed } = open();
    const [kept, outer, inner, later] = [XID + 1, XID + 2, XID + 3, XID + 4];
    await feed(start(XID), insert(XID, 'top'), insert(kept, 'kept'), insert(XID, 'top again'), stop);
    await feed(
      again(XID),
      insert(outer, 'out'),
      insert(inner, 'in'),
      stop,
      again(XID),
      insert(outer, 'out again'),
      stop,
    );
    // The server names each of those that end, whether it sent anything of them or not.
    await feed(abort(XID, inner), abort(XID, outer), abort(XID, XID + 99));
    await feed(again(XID), relation(XID, 't'), insert(later, 'later'), stop);
    expect(await feed(commit(XID))).toEqual([begins(XID), 'top', 'kept', 'top again', 'relation t', 'later', ends()]);
  });

  it('keeps messages of any size', async () => {
    const { feed } = open();
    const values = Array.from({ length: 3000 }, (_, i) => `${i}`.padEnd(i % 1000 === 7 ? 700_000 : 300, '.'));
    for (let from = 0; from < values.length; from += 500)
      await feed(start(XID, from === 0), ...values.slice(from, from + 500).map((value) => insert(XID, value)), stop);
    const calls = await feed(commit(XID));
    expect(calls.length).toBe(values.length + 2);
    expect(calls.slice(1, -1)).toEqual(values);
  });

  it('keeps a transaction that goes back to savepoints again and again', async () => {
    const { feed } = open();
    const expected: string[] = [];
    await feed(start(XID), insert(XID, 'top'), stop);
    for (let sub = XID + 1; sub < XID + 400; sub++) {
      const values = [`${sub}`.padEnd(sub % 50 === 0 ? 300_000 : 700, '.'), `${sub} again`];
      await feed(again(XID), ...values.map((value) => insert(sub, value)), stop);
      if (sub % 3 === 0) await feed(abort(XID, sub));
      else expected.push(...values);
    }
    expect(await feed(commit(XID))).toEqual([begins(XID), 'top', ...expected, ends()]);
  });

  it('keeps nothing that can be read in its file', async () => {
    const { feed } = open();
    await feed(start(XID), insert(XID, 'a secret'), stop);
    const length = 8 + insert(XID, 'a secret').length - 4;
    const bytes = namelessFiles().find((file) => file.length === length)!;
    expect(bytes).toBeDefined();
    expect(bytes.toString('latin1')).not.toContain('secret');
    expect(await feed(commit(XID))).toEqual([begins(XID), 'a secret', ends()]);
  });

  it('refuses more bytes than it may keep', async () => {
    const one = insert(XID, 'x'.repeat(1000)).length;
    const { feed, spool } = open({ mostBytes: 3 * one + 20 });
    await feed(start(XID), insert(XID, 'x'.repeat(1000)), stop);
    await feed(start(OTHER), insert(OTHER, 'x'.repeat(1000)), insert(OTHER + 1, 'x'.repeat(1000)), stop);
    // What is dropped makes room.
    await feed(abort(OTHER, OTHER + 1), again(OTHER), insert(OTHER, 'x'.repeat(1000)), stop, abort(XID));
    await feed(start(XID), insert(XID, 'x'.repeat(1000)));
    await expect(feed(insert(XID, 'x'.repeat(1000)))).rejects.toThrow(refusal('spool_full') as Error);
    expect(spool.kept.bytes).toBeLessThanOrEqual(3 * one + 20);
  });

  it('refuses transactions with too many subtransactions in memory', async () => {
    const { feed } = open({ mostSubtransactions: 3 });
    await feed(start(XID), insert(XID + 1, 'a'), insert(XID + 2, 'b'), insert(XID + 1, 'a'), stop, abort(XID, XID + 2));
    await feed(again(XID), insert(XID + 3, 'c'), insert(XID + 4, 'd'));
    await expect(feed(insert(XID + 5, 'e'))).rejects.toThrow(refusal('spool_unsuited') as Error);
  });

  it('refuses messages of which it cannot tell whether they were rolled back', async () => {
    const { feed } = open();
    await feed(start(XID), message(XID, 'waybill:slot', '1'), message(XID, 'waybill:origin', '2'), stop);
    expect(await feed(commit(XID))).toEqual([begins(XID), 'waybill:slot 1', 'waybill:origin 2', ends()]);
    await feed(start(XID));
    for (const prefix of ['app', 'waybill:slot2', 'waybill', 'waybill.ddl', ''])
      await expect(feed(message(XID, prefix, 'x')), prefix).rejects.toThrow(refusal('spool_unsuited') as Error);
  });

  it.each([
    ['a commit of what was never streamed', [commit(XID)]],
    ['a block behind others that are not there', [again(XID)]],
    ['a first block that is not the first', [start(XID), insert(XID, 'a'), stop, start(XID)]],
    ['a block in a block', [start(XID), insert(XID, 'a'), start(OTHER)]],
    ['an end without a block', [stop]],
    ['a commit in a block', [start(XID), commit(XID)]],
    ['an unknown message in a block', [start(XID), ascii('Z12345')]],
    ['a truncated message in a block', [start(XID), ascii('I123')]],
    ['an empty message in a block', [start(XID), Buffer.alloc(0)]],
  ] as const)('refuses %s', async (_, messages) => {
    const { feed } = open();
    await feed(...messages.slice(0, -1));
    await expect(feed(messages.at(-1)!)).rejects.toThrow(refusal('source_protocol') as Error);
  });

  it('says that its folder cannot be written to', async () => {
    const { feed } = open({ folder: '/dev/null/spool' });
    await expect(feed(start(XID), insert(XID, 'a'), stop)).rejects.toThrow(refusal('spool_failed') as Error);
  });

  it('says that what was kept cannot be read any more, and ends nothing that it handed on in part', async () => {
    const { feed, take, calls, heldWork } = open();
    await feed(start(XID), ...Array.from({ length: 2000 }, () => insert(XID, 'x'.repeat(500))), stop);
    const [[fd, size]] = namelessSizes() as [[number, number]];
    ftruncateSync(fd, Math.floor(size / 2));
    take(commit(XID));
    const [replay] = heldWork() as [Promise<void>];
    await expect(replay).rejects.toMatchObject({
      code: 'spool_failed',
      message: expect.stringMatching(`^reading a file in ${folder}: it ends at \\d+, not at ${size}$`) as string,
      remedy: expect.stringContaining('spool_dir') as string,
    });
    expect(calls.filter((call) => call === 'x'.repeat(500)).length).toBeGreaterThan(400);
    expect(calls).not.toContain(ends());
  });

  it('hands nothing on that a disk made something else of', async () => {
    const kept = async (damage: (fd: number, size: number) => void): Promise<string[]> => {
      const { feed, take, calls, heldWork } = open();
      await feed(start(XID), insert(XID, 'one'), insert(XID, 'two'), stop);
      const [[fd, size]] = namelessSizes() as [[number, number]];
      damage(fd, size);
      take(commit(XID));
      const [replay] = heldWork() as [Promise<void>];
      await replay.catch((thrown: unknown) => calls.push((thrown as { code: string }).code));
      for (const spool of spools.splice(0)) await spool.close();
      return calls;
    };
    let bytes = 0;
    expect(await kept((_, size) => (bytes = size))).toEqual([begins(XID), 'one', 'two', ends()]);
    for (let at = 0; at < bytes; at++) {
      const calls = await kept((fd) => {
        const byte = Buffer.alloc(1);
        readSync(fd, byte, 0, 1, at);
        byte[0]! ^= 0x10;
        writeSync(fd, byte, 0, 1, at);
      });
      expect(calls, `byte ${at}`).toEqual([begins(XID), ...(at < bytes / 2 ? [] : ['one']), 'spool_failed']);
    }
  });

  it('waits for look-ups, and for frames to be published, while it hands a transaction on', async () => {
    const { feed, take, spool, calls, onInsert, heldWork } = open();
    const values = Array.from({ length: 2000 }, (_, i) => `${i}`.padEnd(500, '.'));
    await feed(start(XID), ...values.map((value) => insert(XID, value)), stop);
    let found = (): void => {};
    onInsert(() => {
      if (calls.length === 4) spool.replay!.holdUntil(new Promise((resolve) => (found = resolve)));
      if (calls.length === 5) spool.replay!.pause();
    });
    take(commit(XID));
    const [replay] = heldWork() as [Promise<void>];
    const until = async (count: number): Promise<void> => {
      while (calls.length < count) await new Promise((resolve) => setImmediate(resolve));
    };
    await until(4);
    await new Promise((resolve) => setImmediate(resolve));
    expect(calls.length).toBe(4);
    found();
    await until(400);
    expect(calls.length, 'one piece is decoded').toBeLessThan(600);
    spool.replay!.resume();
    await replay;
    expect(calls.length).toBe(values.length + 2);
    expect(spool.replay).toBeUndefined();
  });

  it('lets a transaction be where it is when it is closed', async () => {
    const { feed, take, spool, calls, onInsert, heldWork } = open();
    await feed(start(XID), ...Array.from({ length: 2000 }, () => insert(XID, 'x'.repeat(500))), stop);
    onInsert(() => spool.replay!.pause());
    take(commit(XID));
    const [replay] = heldWork() as [Promise<void>];
    const failed = expect(replay).rejects.toThrow(/abort/);
    while (calls.length < 400) await new Promise((resolve) => setImmediate(resolve));
    await spool.close();
    await failed;
    expect(calls).not.toContain(ends());
  });
});
