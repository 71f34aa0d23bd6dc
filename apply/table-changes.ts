/** The changes of one table in a segment of a batch: all rows in source order, and the net result per key. */
import { giveUp } from '../core/buffer-memory.ts';
import type { RowChange, TableSchema, Value } from '../core/frame.ts';
import type { IndexedFrame } from '../core/indexed-frame.ts';
import type { LineBlock } from '../core/packed-rows.ts';
import { PlainKeys } from './plain-keys.ts';
import { changedKey, filledImage, isPartial, keyText, type KeyShape } from './row-key.ts';

/** What compaction needs of a store's plan for a table. */
export interface PlanShape extends KeyShape {
  readonly table: TableSchema;
  /** Positions of the columns that are written. */
  readonly written: readonly number[];
  /** The target takes new rows as the lines of COPY that they may come as. */
  readonly takesLines?: boolean;
  /** Rows that go at the source stay, marked: `deletes: soft`. */
  readonly marksDeleted?: boolean;
  /** False where keys of different texts may be the same to the target. Absent: they are not. */
  readonly keyIsText?: boolean;
}

/** `mark` and `buried` only where the plan marks deleted rows: a row that is there, and one that may not be. */
export type NetKind = 'upsert' | 'partial' | 'delete' | 'mark' | 'buried';

/**
 * The net state of one key: an image to write, of a row that is there (`upsert`) or that came and went (`buried`), or the key
 * (as an image) of a row to delete or to mark.
 */
export class NetChange {
  readonly kind: NetKind;
  /** Where the state comes from. */
  readonly frame: IndexedFrame;
  readonly row: number;
  #image: readonly Value[] | undefined;

  constructor(kind: NetKind, frame: IndexedFrame, row: number, image: readonly Value[] | undefined) {
    this.kind = kind;
    this.frame = frame;
    this.row = row;
    this.#image = image;
  }

  /** Whether the state is the after-image of `row` in `frame` as it stands there. */
  get asInFrame(): boolean {
    return this.#image === undefined;
  }

  /** When the row went, microseconds since 1970; undefined of one that the source has. */
  get deletedAtUs(): number | undefined {
    return this.kind === 'mark' || this.kind === 'buried' ? this.frame.commitTimeOf(this.row) : undefined;
  }

  /** The image, decoded. */
  get image(): readonly Value[] {
    this.#image ??= this.frame.row(this.row)[2]!;
    return this.#image;
  }
}

const KINDS = ['upsert', 'partial', 'delete', 'mark', 'buried'] as const satisfies readonly NetKind[];
const UPSERT = KINDS.indexOf('upsert');

/** A state is the place of its row, and in the lowest bits its kind. */
const PLACE_BITS = 3;
const PLACE = 1 << PLACE_BITS;

/** A number stands for an integer key, the key's text for any other. */
type MapKey = number | string;

/** Of all databases; not arrays of them, nor types of somebody's own whose names begin alike. */
const INTEGER = /^(?:smallint|integer|bigint|(?:tiny|small|medium|big)?int(?:\(\d+\))?(?: unsigned)?(?: zerofill)?)$/;
/** Digits that a number holds exactly. */
const SAFE_DIGITS = 15;

export class TableChanges<P extends PlanShape> {
  readonly plan: P;
  /** All rows count, in source order: they cannot be reduced to the net result. Invariant 3. */
  ordered: boolean;
  /** Only new rows came. A key may have come twice: whoever writes them all finds out. */
  insertsOnly = true;
  /** Only rows came that were there before, and are still. */
  updatesOnly = true;
  deletes = 0;
  /** Number of rows, not of keys. */
  size = 0;
  /** By key: the place of the row that the state comes from, and the kind. A number, so that it costs no object. */
  readonly #net = new Map<MapKey, number>();
  /** Whether the keys of the rows are known. While only new rows come, which are written as they are, they need not be. */
  #indexed = false;
  /** Knows the keys instead of `#net`, while every row is its after-image alone and has a plain key. */
  #plain: PlainKeys | undefined;
  /** Of states that are not in a frame as they are. */
  readonly #images = new Map<MapKey, readonly Value[]>();
  /** Rows that came as lines, by the place of the first. */
  readonly #lines = new Map<number, LineBlock>();
  readonly #frames: IndexedFrame[] = [];
  /** Pairs: index into `#frames`, row. */
  #rows = new Uint32Array(64);
  /** The column of a key of one column. */
  readonly #keyColumn: number;
  readonly #integerKey: boolean;
  /** The columns of the key follow each other in the table, as in the key. */
  readonly #keyStandsTogether: boolean;

  constructor(plan: P) {
    const { key, table } = plan;
    this.plan = plan;
    this.ordered = key.length === 0;
    this.#keyColumn = key.length === 1 ? key[0]! : -1;
    this.#keyStandsTogether = key.every((column, index) => column === key[0]! + index);
    this.#integerKey = key.length === 1 && INTEGER.test(table.columns[key[0]!]!.type);
  }

  /** Number of keys. */
  get keys(): number {
    this.#indexKeys();
    return this.#plain?.size ?? this.#net.size;
  }

  /** The net state of every key, in the order in which the keys first came. */
  *net(): Generator<NetChange> {
    this.#indexKeys();
    if (this.#plain === undefined) for (const [key, code] of this.#net) yield this.#change(key, code);
    else for (const place of this.#plain.places()) yield this.#changeAt(place, UPSERT, undefined);
  }

  /** Whether a row may have more bytes than that, as a line or as JSON. */
  hasRowBeyond(most: number): boolean {
    return this.#frames.some((frame) => frame.hasRowBeyond(most));
  }

  /** Every row, in source order. */
  *rowRefs(): Generator<readonly [frame: IndexedFrame, row: number]> {
    for (let i = 0; i < this.size; i++) yield [this.#frames[this.#rows[2 * i]!]!, this.#rows[2 * i + 1]!];
  }

  /** Every row, in source order: rows that came as lines together, others one by one. */
  *newRows(): Generator<LineBlock | readonly [frame: IndexedFrame, row: number]> {
    for (let i = 0; i < this.size;) {
      const block = this.#lines.get(i);
      if (block !== undefined) yield block;
      else yield [this.#frames[this.#rows[2 * i]!]!, this.#rows[2 * i + 1]!];
      i += block === undefined ? 1 : block.to - block.from;
    }
  }

  /** Every row, decoded, in source order. */
  *decodedRows(): Generator<RowChange> {
    for (const [frame, row] of this.rowRefs()) yield frame.row(row);
  }

  /** Takes a row of operation i, r, u or d. */
  add(frame: IndexedFrame, row: number): void {
    this.#note(frame, row);
    const op = frame.op(row);
    if (op !== 'i' && op !== 'r') this.insertsOnly = false;
    if (op !== 'u') this.updatesOnly = false;
    if (this.ordered || (this.insertsOnly && !this.#indexed)) return;
    this.#indexKeys(this.size - 1);
    const isWhole = op !== 'd' && !(op === 'u' && (frame.hasBefore(row) || frame.hasUnchanged(row)));
    if (this.#plain !== undefined) {
      if (isWhole && this.#plain.set(frame, row, this.size - 1)) return;
      this.#givePlainUp();
    }
    if (op === 'd') this.#addDelete(frame.row(row)[4]!);
    else if (!isWhole) this.#addUpdate(frame, row);
    // The usual case: all columns are given, and the key of an update is as it was.
    else this.#set(this.#keyInFrame(frame, row), 'upsert', undefined);
  }

  /** Takes new rows that came as lines. False where each is to be taken by itself. */
  addLines(frame: IndexedFrame, block: LineBlock): boolean {
    if (this.plan.takesLines !== true || this.#indexed || !this.insertsOnly) return false;
    this.#lines.set(this.size, block);
    this.updatesOnly = false;
    this.#noteAll(frame, block.from, block.to);
    return true;
  }

  /** Gives up the memory of what was noted of rows and keys, once they have been written. */
  giveUp(): void {
    giveUp(this.#rows);
    this.#plain?.giveUp();
  }

  /** Takes up the keys of the new rows that came first, up to `end`. */
  #indexKeys(end = this.size): void {
    if (this.#indexed || this.ordered) return;
    this.#indexed = true;
    const { key } = this.plan;
    if (this.#keyStandsTogether)
      this.#plain = new PlainKeys(key[0]!, key[0]! + key.length, (place) => this.#frameOf(place));
    for (let place = 0; place < end; place++) {
      if (this.#plain?.set(this.#frameOf(place), this.#rowOf(place), place) === true) continue;
      this.#givePlainUp();
      this.#setPlace(place);
    }
  }

  /** From here on keys are texts: one has come that is not plain, or a row that is more than its after-image. */
  #givePlainUp(): void {
    const places = this.#plain?.places() ?? [];
    this.#plain = undefined;
    for (const place of places) this.#setPlace(place);
  }

  #setPlace(place: number): void {
    this.#net.set(this.#keyInFrame(this.#frameOf(place), this.#rowOf(place)), place * PLACE + UPSERT);
  }

  #frameOf(place: number): IndexedFrame {
    return this.#frames[this.#rows[2 * place]!]!;
  }

  #rowOf(place: number): number {
    return this.#rows[2 * place + 1]!;
  }

  #note(frame: IndexedFrame, row: number): void {
    if (this.#frames.at(-1) !== frame) this.#frames.push(frame);
    this.#reserve(1);
    const at = 2 * this.size;
    this.#rows[at] = this.#frames.length - 1;
    this.#rows[at + 1] = row;
    this.size += 1;
  }

  #noteAll(frame: IndexedFrame, from: number, to: number): void {
    if (this.#frames.at(-1) !== frame) this.#frames.push(frame);
    const index = this.#frames.length - 1;
    this.#reserve(to - from);
    const rows = this.#rows;
    let at = 2 * this.size;
    for (let row = from; row < to; row++) {
      rows[at++] = index;
      rows[at++] = row;
    }
    this.size += to - from;
  }

  #reserve(count: number): void {
    const needed = 2 * (this.size + count);
    if (needed <= this.#rows.length) return;
    const grown = new Uint32Array(Math.max(needed, 2 * this.#rows.length));
    grown.set(this.#rows);
    giveUp(this.#rows);
    this.#rows = grown;
  }

  #addDelete(before: readonly Value[]): void {
    const { plan } = this;
    const key = this.#mapKey(keyText(plan, before));
    this.deletes += 1;
    if (plan.marksDeleted !== true) {
      this.#set(key, 'delete', before);
      return;
    }
    const code = this.#net.get(key);
    const earlier = code === undefined ? undefined : this.#change(key, code);
    // A row that came and went in one batch stays like any other, whatever the batches are. Where its key may be that of
    // another row to the target, which it must not be written over, only the order of the source is right.
    if (earlier?.kind === 'upsert' && plan.keyIsText !== false) this.#set(key, 'buried', earlier.image);
    else {
      if (earlier !== undefined) this.ordered = true;
      this.#set(key, 'mark', before);
    }
  }

  /** An update that leaves columns unchanged, or brings the old key or row. */
  #addUpdate(frame: IndexedFrame, row: number): void {
    const { plan } = this;
    const change = frame.row(row);
    let image = filledImage(change);
    const key = keyText(plan, image, change[4]);
    const oldKey = changedKey(plan, change);
    if (image.includes(0)) {
      const earlierKey = this.#mapKey(oldKey ?? key);
      const code = this.#net.get(earlierKey);
      const earlier = code === undefined ? undefined : this.#change(earlierKey, code);
      if (earlier !== undefined && !isThere(earlier.kind)) this.ordered = true;
      else if (earlier !== undefined) image = merge(earlier.image, image);
      for (const index of plan.key) if (image[index] === 0) image = withKey(plan, image, change[4]);
    }
    const partial = isPartial(plan, image);
    if (oldKey !== undefined) {
      // The unchanged columns of the moved row are only in the target: it must be moved there.
      if (partial) this.ordered = true;
      this.#set(this.#mapKey(oldKey), 'delete', change[4]);
      this.deletes += 1;
      this.updatesOnly = false;
    }
    this.#set(this.#mapKey(key), partial ? 'partial' : 'upsert', image);
  }

  #change(key: MapKey, code: number): NetChange {
    return this.#changeAt(code >>> PLACE_BITS, code & (PLACE - 1), this.#images.get(key));
  }

  #changeAt(place: number, kind: number, image: readonly Value[] | undefined): NetChange {
    return new NetChange(KINDS[kind]!, this.#frameOf(place), this.#rowOf(place), image);
  }

  /** Sets the net state of a key from the row that was noted last. Without an image it is that row's after-image. */
  #set(key: MapKey, kind: NetKind, image: readonly Value[] | undefined): void {
    if (image !== undefined) this.#images.set(key, image);
    else if (this.#images.size > 0) this.#images.delete(key);
    this.#net.set(key, (this.size - 1) * PLACE + KINDS.indexOf(kind));
  }

  #mapKey(text: string): MapKey {
    return this.#integerKey && text.length <= SAFE_DIGITS ? Number(text) : text;
  }

  /** The key of a row's after-image, read from its bytes where it has one column. */
  #keyInFrame(frame: IndexedFrame, row: number): MapKey {
    if (this.#keyColumn < 0) return keyText(this.plan, frame.row(row)[2]!);
    if (!frame.findValue(row, this.#keyColumn)) return this.#mapKey(keyText(this.plan, frame.row(row)[2]!));
    if (this.#integerKey && frame.valueEnd - frame.valueStart <= SAFE_DIGITS) return frame.valueAsInteger();
    return frame.valueAsText();
  }
}

function isThere(kind: NetKind): boolean {
  return kind === 'upsert' || kind === 'partial';
}

/** The later image, with what it leaves unchanged taken from the earlier one. */
function merge(earlier: readonly Value[], later: readonly Value[]): Value[] {
  return later.map((value, index) => (value === 0 ? earlier[index]! : value));
}

function withKey(plan: KeyShape, image: readonly Value[], before: readonly Value[] | undefined): Value[] {
  return image.map((value, index) => (value === 0 && plan.key.includes(index) ? before![index]! : value));
}
