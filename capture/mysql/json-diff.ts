/**
 * Changes of parts of a binary JSON document (mysql-server sql/json_diff.cc): with `binlog_row_value_options=PARTIAL_JSON`
 * the log has them in place of the document that they lead to.
 */
import { ReplicationError } from '../../core/errors.ts';
import { ByteReader } from './byte-reader.ts';
import { KIND } from './json-binary.ts';

const OPERATION = { replace: 0, insert: 1, remove: 2 };
/** Bytes of a value by its kind; the others say their length themselves. */
const FIXED: Readonly<Record<number, number>> = {
  [KIND.literal]: 1,
  [KIND.int16]: 2,
  [KIND.uint16]: 2,
  [KIND.int32]: 4,
  [KIND.uint32]: 4,
  [KIND.int64]: 8,
  [KIND.uint64]: 8,
  [KIND.double]: 8,
};
/** Members of an object stand in the order of their lengths, those of equal length in that of their bytes. */
const byKey = ([a]: Member, [b]: Member): number => a.length - b.length || Buffer.compare(a, b);

interface Scalar {
  readonly kind: number;
  readonly bytes: Buffer;
}
type Member = [key: Buffer, value: Node];
interface ObjectNode {
  readonly members: Member[];
}
interface ArrayNode {
  readonly items: Node[];
}
type Node = Scalar | ObjectNode | ArrayNode;

/** A member by its name, or an item counted from the front or, where `last`, from the end. */
type Leg = { readonly key: Buffer } | { readonly index: number; readonly last: boolean };

/**
 * The document `before` with the changes `[start, end)` of `diffs` made to it, in binary as well. Throws `source_protocol`
 * for bytes that are no document and no changes, and for changes that do not go with the document.
 */
export function applyJsonDiffs(before: Buffer, diffs: Buffer, start: number, end: number): Buffer {
  const reader = new ByteReader(diffs, start, end, 'a partial update of JSON');
  let root: Node;
  try {
    // A document of no bytes stands for null.
    root = before.length === 0 ? { kind: KIND.literal, bytes: Buffer.alloc(1) } : parse(before, before[0]!, 1);
    while (reader.left > 0) {
      const operation = reader.uint8();
      const path = parsePath(reader.text(reader.lengthEncoded()));
      let value: Node | undefined;
      if (operation !== OPERATION.remove) {
        const bytes = reader.bytes(reader.lengthEncoded());
        value = parse(bytes, bytes[0]!, 1);
      }
      root = applied(root, operation, path, value);
    }
  } catch (cause) {
    if (cause instanceof RangeError) throw mismatch('its bytes are malformed', cause);
    throw cause;
  }
  const { kind, bytes } = written(root);
  return Buffer.concat([Buffer.of(kind), bytes]);
}

function mismatch(why: string, cause?: unknown): ReplicationError {
  return new ReplicationError('source_protocol', `a partial update of JSON cannot be made: ${why}`, { cause });
}

function applied(root: Node, operation: number, path: readonly Leg[], value: Node | undefined): Node {
  const leg = path.at(-1);
  if (leg === undefined) {
    if (operation !== OPERATION.replace) throw mismatch('it inserts or removes the whole document');
    return value!;
  }
  let parent = root;
  let replaceParent = (node: Node): void => void (root = node);
  for (const each of path.slice(0, -1)) {
    const at = place(parent, each);
    if (at === undefined) continue;
    parent = at.get();
    replaceParent = at.set;
  }
  const at = place(parent, leg);
  switch (operation) {
    case OPERATION.replace:
      if (at === undefined) replaceParent(value!);
      else if (at.exists) at.set(value!);
      else throw mismatch('it replaces what is not there');
      return root;
    case OPERATION.insert:
      if (at === undefined) throw mismatch('it inserts into what is neither object nor array');
      at.insert(value!);
      return root;
    case OPERATION.remove:
      if (at?.exists !== true) throw mismatch('it removes what is not there');
      at.remove();
      return root;
    default:
      throw mismatch(`operation ${operation} is not known`);
  }
}

interface Place {
  readonly exists: boolean;
  get(): Node;
  set(value: Node): void;
  insert(value: Node): void;
  remove(): void;
}

/** Where a leg leads from a node; undefined where it is the node itself: what is no array counts as one of one item. */
function place(node: Node, leg: Leg): Place | undefined {
  if ('key' in leg) {
    if (!('members' in node)) throw mismatch('it names a member of what is no object');
    const { members } = node;
    const found = members.findIndex(([key]) => key.equals(leg.key));
    return {
      exists: found >= 0,
      get: () => {
        if (found < 0) throw mismatch('it leads through a member that is not there');
        return members[found]![1];
      },
      set: (value) => void (members[found]![1] = value),
      insert: (value) => {
        if (found >= 0) throw mismatch('it inserts a member that is there');
        members.push([leg.key, value]);
        members.sort(byKey);
      },
      remove: () => void members.splice(found, 1),
    };
  }
  if (!('items' in node)) {
    if (leg.index !== 0) throw mismatch('it names an item of what is no array');
    return undefined;
  }
  const { items } = node;
  const index = leg.last ? items.length - 1 - leg.index : leg.index;
  return {
    exists: index >= 0 && index < items.length,
    get: () => {
      const item = items[index];
      if (item === undefined) throw mismatch('it leads through an item that is not there');
      return item;
    },
    set: (value) => void (items[index] = value),
    insert: (value) => void items.splice(Math.max(0, index), 0, value),
    remove: () => void items.splice(index, 1),
  };
}

/** A path as text: `$.name."other name"[2][last-1]`. */
function parsePath(text: string): Leg[] {
  const leg = /\.(?:"((?:[^"\\]|\\.)*)"|([^.[]+))|\[(?:(\d+)|last(?:-(\d+))?)\]/y;
  const legs: Leg[] = [];
  let at = 1;
  while (at < text.length) {
    leg.lastIndex = at;
    const match = text.startsWith('$') ? leg.exec(text) : null;
    if (match === null) throw mismatch(`its path is malformed at character ${at}`);
    const [whole, quoted, name, index, fromEnd] = match;
    if (quoted !== undefined) legs.push({ key: Buffer.from(JSON.parse(`"${quoted}"`) as string) });
    else if (name !== undefined) legs.push({ key: Buffer.from(name) });
    else legs.push({ index: Number(index ?? fromEnd ?? 0), last: index === undefined });
    at += whole.length;
  }
  return legs;
}

/** The value of type `kind` at `at`. Bounds are those of the buffer: its reads throw RangeError beyond. */
function parse(source: Buffer, kind: number, at: number): Node {
  if (kind > KIND.largeArray) return { kind, bytes: scalar(source, kind, at) };
  const large = kind === KIND.largeObject || kind === KIND.largeArray;
  const isObject = kind <= KIND.largeObject;
  const width = large ? 4 : 2;
  const read = (from: number): number => (large ? source.readUInt32LE(from) : source.readUInt16LE(from));
  const count = read(at);
  const keys = at + 2 * width;
  const values = keys + (isObject ? count * (width + 2) : 0);
  const valueOf = (i: number): Node => {
    const entry = values + i * (width + 1);
    const type = source.readUInt8(entry);
    const inline =
      (type >= KIND.literal && type <= KIND.uint16) || (large && (type === KIND.int32 || type === KIND.uint32));
    if (inline) return parse(source, type, entry + 1);
    const offset = read(entry + 1);
    // An offset that points back into the head could nest without end.
    if (offset < values + count * (width + 1) - at) throw mismatch('the document before is malformed');
    return parse(source, type, at + offset);
  };
  if (!isObject) return { items: Array.from({ length: count }, (_, i) => valueOf(i)) };
  return {
    members: Array.from({ length: count }, (_, i): Member => {
      const key = keys + i * (width + 2);
      const from = at + read(key);
      const to = from + source.readUInt16LE(key + width);
      if (to > source.length) throw mismatch('the document before is malformed');
      return [source.subarray(from, to), valueOf(i)];
    }),
  };
}

function scalar(source: Buffer, kind: number, at: number): Buffer {
  let end = at + (FIXED[kind] ?? 0);
  if (FIXED[kind] === undefined) {
    if (kind !== KIND.string && kind !== KIND.opaque)
      throw mismatch(`the document has a value of unknown type ${kind}`);
    end = kind === KIND.opaque ? at + 1 : at;
    let length = 0;
    for (let i = 0, more = true; more; i++) {
      const byte = source.readUInt8(end++);
      length += (byte & 0x7f) * 128 ** i;
      more = (byte & 0x80) !== 0;
    }
    end += length;
  }
  if (end > source.length) throw mismatch('the document before is malformed');
  return source.subarray(at, end);
}

/** A node in the large format, whatever its size. */
function written(node: Node): Scalar {
  if ('bytes' in node) return node;
  const isObject = 'members' in node;
  const keys = isObject ? node.members.map(([key]) => key) : [];
  const values = (isObject ? node.members.map(([, value]) => value) : node.items).map(written);
  const keyEntries = Buffer.alloc(6 * keys.length);
  const valueEntries = Buffer.alloc(5 * values.length);
  let offset = 8 + keyEntries.length + valueEntries.length;
  for (const [i, key] of keys.entries()) {
    keyEntries.writeUInt32LE(offset, 6 * i);
    keyEntries.writeUInt16LE(key.length, 6 * i + 4);
    offset += key.length;
  }
  const apart: Buffer[] = [];
  for (const [i, { kind, bytes }] of values.entries()) {
    valueEntries[5 * i] = kind;
    if (kind >= KIND.literal && kind <= KIND.uint32) bytes.copy(valueEntries, 5 * i + 1);
    else {
      valueEntries.writeUInt32LE(offset, 5 * i + 1);
      offset += bytes.length;
      apart.push(bytes);
    }
  }
  const head = Buffer.alloc(8);
  head.writeUInt32LE(values.length, 0);
  head.writeUInt32LE(offset, 4);
  return {
    kind: isObject ? KIND.largeObject : KIND.largeArray,
    bytes: Buffer.concat([head, keyEntries, valueEntries, ...keys, ...apart]),
  };
}
