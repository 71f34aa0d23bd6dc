/**
 * The tables of frames, each turned into JSON and back once: a frame names all tables of its rows, so that where a source has
 * a thousand of them their definitions are most of many a frame.
 */
import type { TableSchema } from './frame.ts';

const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const HEAD = Buffer.from('"tables":[', 'latin1');
/** Of the definitions that are known, as JSON (Invariant 6); as objects they take some five times as much. */
const MOST_BYTES = 4 << 20;
/** FNV-1a. */
const HASH_BASIS = 0x811c_9dc5;
const HASH_PRIME = 0x0100_0193;

const texts = new WeakMap<TableSchema, Buffer>();

/** A table as JSON. The same object gives the same bytes: it must not change. */
export function tableText(table: TableSchema): Buffer {
  let text = texts.get(table);
  if (text === undefined) texts.set(table, (text = Buffer.from(JSON.stringify(table))));
  return text;
}

/** A definition that was met. */
interface Known {
  /** Those of an earlier one are forgotten. */
  readonly generation: number;
  readonly text: Buffer;
  readonly table: TableSchema;
  /** What stood behind it the last time: in most frames the same does. */
  next: Known | undefined;
}

let known = new Map<number, Known[]>();
let knownBytes = 0;
let generation = 0;

/**
 * Reads `"tables":[…]}` from `payload[from, …)`, which ends there. Equal definitions give the same object, of this frame and of
 * others: nobody may change one. `decode` is asked for those that are new, and throws where one is none. Undefined where
 * the text is laid out in another way than a frame writer does it.
 */
export function readTables(
  payload: Buffer,
  from: number,
  decode: (text: string) => TableSchema,
): readonly TableSchema[] | undefined {
  const end = payload.length - 2;
  let at = from + HEAD.length;
  if (at > end || payload.compare(HEAD, 0, HEAD.length, from, at) !== 0) return undefined;
  if (payload[end] !== CLOSE_LIST || payload[end + 1] !== CLOSE) return undefined;
  const tables: TableSchema[] = [];
  let before: Known | undefined;
  while (at < end) {
    if (tables.length > 0 && payload[at++] !== COMMA) return undefined;
    let found = before?.next;
    const length = found?.text.length ?? 0;
    // No object begins with another one that is whole: where the text is there, it is the definition.
    if (
      found?.generation !== generation ||
      at + length > end ||
      payload.compare(found.text, 0, length, at, at + length) !== 0
    ) {
      found = find(payload, at, end, decode);
      if (found === undefined) return undefined;
      if (before !== undefined) before.next = found;
    }
    tables.push(found.table);
    at += found.text.length;
    before = found;
  }
  return tables;
}

/** The definition that begins at `from`. Undefined where no object begins there, or none ends before `end`. */
function find(payload: Buffer, from: number, end: number, decode: (text: string) => TableSchema): Known | undefined {
  if (payload[from] !== OPEN) return undefined;
  let hash = HASH_BASIS;
  let depth = 0;
  let inText = false;
  let at = from;
  do {
    if (at >= end) return undefined;
    const byte = payload[at++]!;
    hash = Math.imul(hash ^ byte, HASH_PRIME);
    if (inText) {
      if (byte === BACKSLASH) hash = Math.imul(hash ^ payload[at++]!, HASH_PRIME);
      else if (byte === QUOTE) inText = false;
    } else if (byte === QUOTE) inText = true;
    else if (byte === OPEN || byte === OPEN_LIST) depth += 1;
    else if (byte === CLOSE || byte === CLOSE_LIST) depth -= 1;
  } while (depth > 0);
  const length = at - from;
  const same = known.get(hash);
  const met = same?.find(({ text }) => text.length === length && payload.compare(text, 0, length, from, at) === 0);
  if (met !== undefined) return met;
  // A copy: the payload's memory is given up.
  const text = Buffer.from(payload.subarray(from, at));
  const table = decode(text.toString('utf8'));
  if (knownBytes + length > MOST_BYTES) {
    known = new Map();
    knownBytes = 0;
    generation += 1;
  }
  knownBytes += length;
  const added: Known = { generation, text, table, next: undefined };
  const list = known.get(hash);
  if (list === undefined) known.set(hash, [added]);
  else list.push(added);
  return added;
}
