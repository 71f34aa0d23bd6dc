import { EventEmitter } from 'node:events';
import type { Connection } from 'pg';
import { describe, expect, it } from 'vitest';
import { CopyField } from '../../capture/postgres/catch-up.ts';
import { CopyOut } from '../../capture/postgres/copy-out.ts';

/** A backend message: type, length, content. */
function message(type: string, content: Buffer): Buffer {
  const header = Buffer.alloc(5);
  header.write(type, 'latin1');
  header.writeUInt32BE(content.length + 4, 1);
  return Buffer.concat([header, content]);
}

function row(value: Buffer): Buffer {
  const head = Buffer.alloc(6);
  head.writeInt16BE(1);
  head.writeInt32BE(value.length, 2);
  return Buffer.concat([head, value]);
}

const HEADER = Buffer.concat([Buffer.from('PGCOPY\n\xFF\r\n\0', 'latin1'), Buffer.alloc(8)]);
const TRAILER = Buffer.from([0xff, 0xff]);
const VALUES = [Buffer.from('one'), Buffer.alloc(0), Buffer.alloc(300_000, 7), Buffer.from('last')];
const WIRE = Buffer.concat([
  message('H', Buffer.from([1, 0, 1, 0, 1])),
  message('d', Buffer.concat([HEADER, row(VALUES[0]!)])),
  ...VALUES.slice(1).map((value) => message('d', row(value))),
  message('d', TRAILER),
  message('c', Buffer.alloc(0)),
  message('C', Buffer.from('COPY 4\0')),
  message('Z', Buffer.from('I')),
]);

/** Feeds the bytes in chunks; gives the values, and the types of the messages that were left to pg. */
async function read(chunkBytes: number): Promise<{ values: Buffer[]; others: string }> {
  const stream = Object.assign(new EventEmitter(), { pause: () => {}, resume: () => {} });
  const others: string[] = [];
  const copy = new CopyOut('copy');
  stream.on('data', (bytes: Buffer) => {
    others.push(bytes.toString('latin1', 0, 1));
    if (bytes[0] === 0x5a) copy.handleReadyForQuery();
  });
  const [pgListener] = stream.listeners('data');
  copy.submit({ stream, query: () => {} } as unknown as Connection);
  const feeding = (async () => {
    for (let at = 0; at < WIRE.length; at += chunkBytes) {
      stream.emit('data', WIRE.subarray(at, at + chunkBytes));
      await new Promise(setImmediate);
    }
  })();
  const values: Buffer[] = [];
  const field = new CopyField();
  while (await copy.more())
    while (copy.next())
      if (field.find(copy.data, copy.start, copy.end))
        values.push(Buffer.from(copy.data.subarray(field.start, copy.end)));
  await feeding;
  expect(stream.listeners('data')).toEqual([pgListener]);
  return { values, others: others.join('') };
}

describe('CopyOut', () => {
  it.each([7, 64, 4096, 65_536, WIRE.length])('finds the rows in chunks of %i bytes', async (chunkBytes) => {
    const { values, others } = await read(chunkBytes);
    expect(values.length).toBe(VALUES.length);
    for (const [i, value] of values.entries()) expect(value.equals(VALUES[i]!)).toBe(true);
    expect(others).toBe('HcCZ');
  });

  it('leaves all that follows an error to pg', async () => {
    const bytes = Buffer.concat([message('E', Buffer.from('Mno\0\0')), message('Z', Buffer.from('I'))]);
    for (let cut = 1; cut < bytes.length; cut++) {
      const stream = Object.assign(new EventEmitter(), { pause: () => {}, resume: () => {} });
      const copy = new CopyOut('copy');
      const left: Buffer[] = [];
      stream.on('data', (chunk: Buffer) => {
        left.push(chunk);
        if (chunk[0] === 0x45) copy.handleError(new Error('no'));
      });
      copy.submit({ stream, query: () => {} } as unknown as Connection);
      const reading = (async () => {
        while (await copy.more()) while (copy.next());
      })();
      reading.catch(() => {});
      for (const chunk of [bytes.subarray(0, cut), bytes.subarray(cut)]) {
        stream.emit('data', chunk);
        await new Promise(setImmediate);
      }
      await expect(reading).rejects.toThrow('no');
      expect(Buffer.concat(left).equals(bytes), `cut at ${cut}`).toBe(true);
    }
  });

  it('throws what ended the query', async () => {
    const stream = Object.assign(new EventEmitter(), { pause: () => {}, resume: () => {} });
    const copy = new CopyOut('copy');
    copy.submit({ stream, query: () => {} } as unknown as Connection);
    const more = copy.more();
    copy.handleError(new Error('gone'));
    await expect(more).rejects.toThrow('gone');
  });
});

describe('CopyField', () => {
  it.each([
    ['no signature', Buffer.concat([Buffer.alloc(19), row(Buffer.from('a'))])],
    ['two fields', Buffer.concat([HEADER, Buffer.from([0, 2]), Buffer.alloc(8)])],
    ['a null', Buffer.concat([HEADER, Buffer.from([0, 1, 255, 255, 255, 255])])],
    ['a length beyond its end', Buffer.concat([HEADER, Buffer.from([0, 1, 0, 0, 0, 9, 65])])],
    ['bytes behind its value', Buffer.concat([HEADER, row(Buffer.from('a')), Buffer.from([0])])],
  ])('refuses %s', (_, bytes) => {
    expect(() => new CopyField().find(bytes, 0, bytes.length)).toThrow(
      expect.objectContaining({ code: 'source_protocol' }),
    );
  });
});
