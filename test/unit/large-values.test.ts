/** Values of which one alone is near to what a buffer, or a string, can hold. */
import { expect, test } from 'vitest';
import { FrameWriter } from '../../core/frame-writer.ts';
import { decodeTail, type TableSchema } from '../../core/frame.ts';
import { IndexedFrame } from '../../core/indexed-frame.ts';

const MB = 1 << 20;
const TABLE: TableSchema = {
  schema: 'public',
  name: 'documents',
  version: 'v',
  identity: 'default',
  key: [],
  columns: [{ name: 'body', type: 'text', portable: 'text', notNull: false }],
};

function write(value: (writer: FrameWriter) => void): Buffer {
  const writer = new FrameWriter(MB);
  writer.beginRow('i', TABLE);
  writer.beginTuple();
  value(writer);
  writer.endTuple();
  writer.endRow();
  writer.addLsnTransaction(1, 1n, 2n, 3, 1, 'whole', 0);
  return writer.finish();
}

test('a frame of a value of 440 MB is whole', () => {
  const body = Buffer.alloc(440 * MB, 'x');
  const frame = write((writer) => writer.writeText(body, 0, body.length));
  const tail = frame.subarray(frame.lastIndexOf('],"tx":[') + 2).toString();
  expect(decodeTail(`{${tail}`, 'the frame').tables).toEqual([TABLE]);
  const indexed = IndexedFrame.open(frame, 'the frame');
  expect(indexed.rowBytes(0)).toBe(body.length + '["i",0,[""]],'.length);
});

test('pieces of a value meet where they were cut', () => {
  const line = 'a "quoted" text\twith \\ and ünïcödé \u{1F600}\n\u0001';
  const text = line.repeat(Math.ceil((3 * MB) / line.length));
  const bytes = Buffer.from(text);
  const decoded = IndexedFrame.open(
    write((writer) => writer.writeText(bytes, 0, bytes.length)),
    'a',
  ).row(0)[2]![0];
  expect(decoded === text).toBe(true);
  const binary = write((writer) => writer.writeBase64(bytes, 0, bytes.length));
  expect(IndexedFrame.open(binary, 'b').row(0)[2]![0] === bytes.toString('base64')).toBe(true);
  const hex = Buffer.from(`\\x${bytes.toString('hex')}`);
  const fromHex = write((writer) => writer.writeHexAsBase64(hex, 0, hex.length));
  expect(IndexedFrame.open(fromHex, 'c').row(0)[2]![0] === bytes.toString('base64')).toBe(true);
});
