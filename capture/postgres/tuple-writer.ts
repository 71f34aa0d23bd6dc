/** Copies pgoutput tuples into frames. */
import type { FrameWriter } from '../../core/frame-writer.ts';
import type { TableSchema } from '../../core/frame.ts';
import { readUint32, type TupleRange } from './pgoutput.ts';
import type { ColumnWrite } from './published-table.ts';

const KIND_NULL = 0x6e;
const KIND_UNCHANGED = 0x75;

/** Writes a pgoutput tuple (TupleData of the protocol) as a JSON array of values. */
export function writeTuple(writer: FrameWriter, buffer: Buffer, tuple: TupleRange, binary: readonly boolean[]): void {
  writer.beginTuple();
  let at = tuple.offset;
  for (let i = 0; i < tuple.count; i++) {
    if (i > 0) writer.comma();
    const kind = buffer[at++];
    if (kind === KIND_NULL) writer.writeNull();
    else if (kind === KIND_UNCHANGED) writer.writeUnchanged();
    else {
      const length = readUint32(buffer, at);
      at += 4;
      if (binary[i] === true) writer.writeHexAsBase64(buffer, at, at + length);
      else writer.writeText(buffer, at, at + length);
      at += length;
    }
  }
  writer.endTuple();
}

/** The same for a table with column rules: no value that has one is written as it is. */
export function writeGuardedTuple(
  writer: FrameWriter,
  buffer: Buffer,
  tuple: TupleRange,
  binary: readonly boolean[],
  writes: readonly ColumnWrite[],
): void {
  writer.beginTuple();
  let at = tuple.offset;
  let first = true;
  for (let i = 0; i < tuple.count; i++) {
    const kind = buffer[at++];
    const given = kind !== KIND_NULL && kind !== KIND_UNCHANGED;
    const start = given ? at + 4 : at;
    if (given) at = start + readUint32(buffer, at);
    const write = writes[i];
    if (write === 'omit') continue;
    if (!first) writer.comma();
    first = false;
    if (kind === KIND_NULL) writer.writeNull();
    else if (kind === KIND_UNCHANGED) writer.writeUnchanged();
    else if (write !== undefined) {
      const value = buffer.subarray(start, at);
      writer.writeString(write.apply(binary[i] === true ? Buffer.from(value.toString('latin1', 2), 'hex') : value));
    } else if (binary[i] === true) writer.writeHexAsBase64(buffer, start, at);
    else writer.writeText(buffer, start, at);
  }
  writer.endTuple();
}

/** Writes a pgoutput tuple as an inserted row of a table that stands as a line of COPY. No column of it may be left out. */
export function writeLine(writer: FrameWriter, buffer: Buffer, tuple: TupleRange, table: TableSchema): void {
  writer.beginLine(table);
  const { lines } = writer;
  let at = tuple.offset;
  for (let i = 0; i < tuple.count; i++) {
    if (buffer[at++] === KIND_NULL) lines.null();
    else {
      const length = readUint32(buffer, at);
      at += 4;
      lines.text(buffer, at, at + length);
      at += length;
    }
  }
  lines.end();
}

/** Whether the source left a column out because it did not change (an unchanged TOAST value). */
export function hasUnchanged(buffer: Buffer, tuple: TupleRange): boolean {
  let at = tuple.offset;
  for (let i = 0; i < tuple.count; i++) {
    const kind = buffer[at++];
    if (kind === KIND_UNCHANGED) return true;
    if (kind !== KIND_NULL) at += 4 + readUint32(buffer, at);
  }
  return false;
}

/** The key of a row in a pgoutput tuple as text that is equal for equal keys; undefined where a key column is not given. */
export function tupleKey(buffer: Buffer, tuple: TupleRange, keyIndexes: readonly number[]): string | undefined {
  const values = tupleKeyTexts(buffer, tuple, keyIndexes);
  if (values.length < keyIndexes.length || values.includes(undefined)) return undefined;
  return keyText(values as string[]);
}

/** The same as texts, as many as are given, and perhaps undefined in between. */
function tupleKeyTexts(buffer: Buffer, tuple: TupleRange, keyIndexes: readonly number[]): (string | undefined)[] {
  const values: (string | undefined)[] = [];
  let at = tuple.offset;
  for (let i = 0; i < tuple.count; i++) {
    const kind = buffer[at++];
    if (kind === KIND_NULL || kind === KIND_UNCHANGED) continue;
    const length = readUint32(buffer, at);
    at += 4;
    const position = keyIndexes.indexOf(i);
    if (position >= 0) values[position] = buffer.toString('utf8', at, at + length);
    at += length;
  }
  return values;
}

/** The new key of a row that an update moves without telling all of its columns; undefined where it is not such a one. */
export function movedTo(
  buffer: Buffer,
  before: TupleRange,
  after: TupleRange,
  keyIndexes: readonly number[],
): string[] | undefined {
  if (keyIndexes.length === 0 || !hasUnchanged(buffer, after)) return undefined;
  const old = tupleKeyTexts(buffer, before, keyIndexes);
  const given = tupleKeyTexts(buffer, after, keyIndexes);
  // What of the key did not change may be left out, too.
  const now = keyIndexes.map((_, i) => given[i] ?? old[i]);
  if (now.includes(undefined) || now.every((text, i) => text === old[i])) return undefined;
  return now as string[];
}

export function keyText(values: readonly string[]): string {
  return values.length === 1 ? values[0]! : JSON.stringify(values);
}
