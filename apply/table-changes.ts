/** The changes of one table in a segment of a batch: all rows in source order, and the net result per key. */
import type { RowChange, TableSchema, Value } from '../core/frame.ts';
import type { IndexedFrame } from '../core/indexed-frame.ts';
import { changedKey, filledImage, isPartial, keyText, type KeyShape } from './row-key.ts';

/** What compaction needs of a store's plan for a table. */
export interface PlanShape extends KeyShape {
  readonly table: TableSchema;
  /** Positions of the columns that are written. */
  readonly written: readonly number[];
}

/** The net state of one key: an image to write, or the key (as an image) of a row to delete. */
export class NetChange {
  kind: 'upsert' | 'partial' | 'delete';
  /** Where the state comes from. */
  frame: IndexedFrame;
  row: number;
  #image: readonly Value[] | undefined;

  constructor(kind: NetChange['kind'], frame: IndexedFrame, row: number, image: readonly Value[] | undefined) {
    this.kind = kind;
    this.frame = frame;
    this.row = row;
    this.#image = image;
  }

  replace(kind: NetChange['kind'], frame: IndexedFrame, row: number, image: readonly Value[] | undefined): void {
    this.kind = kind;
    this.frame = frame;
    this.row = row;
    this.#image = image;
  }

  /** Whether the state is the after-image of `row` in `frame` as it stands there. */
  get asInFrame(): boolean {
    return this.#image === undefined;
  }

  /** The image, decoded. */
  get image(): readonly Value[] {
    this.#image ??= this.frame.row(this.row)[2]!;
    return this.#image;
  }
}

/** A number stands for an integer key, the key's text for any other. */
type MapKey = number | string;

const INTEGER = /^(smallint|integer|bigint|(tiny|small|medium|big)?int\b)/;
/** Digits that a number holds exactly. */
const SAFE_DIGITS = 15;

export class TableChanges<P extends PlanShape> {
  readonly plan: P;
  readonly net = new Map<MapKey, NetChange>();
  /** All rows count, in source order: they cannot be reduced to the net result. Invariant 3. */
  ordered: boolean;
  /** Only new rows came, each key once. */
  insertsOnly = true;
  deletes = 0;
  readonly #frames: IndexedFrame[] = [];
  readonly #rows: number[] = [];
  /** The column of a key of one column. */
  readonly #keyColumn: number;
  readonly #integerKey: boolean;

  constructor(plan: P) {
    const { key, table } = plan;
    this.plan = plan;
    this.ordered = key.length === 0;
    this.#keyColumn = key.length === 1 ? key[0]! : -1;
    this.#integerKey = key.length === 1 && INTEGER.test(table.columns[key[0]!]!.type);
  }

  /** Number of rows, not of keys. */
  get size(): number {
    return this.#rows.length;
  }

  /** Every row, in source order. */
  *rowRefs(): Generator<readonly [frame: IndexedFrame, row: number]> {
    for (let i = 0; i < this.#rows.length; i++) yield [this.#frames[i]!, this.#rows[i]!];
  }

  /** Every row, decoded, in source order. */
  *decodedRows(): Generator<RowChange> {
    for (let i = 0; i < this.#rows.length; i++) yield this.#frames[i]!.row(this.#rows[i]!);
  }

  /** Takes a row of operation i, r, u or d. */
  add(frame: IndexedFrame, row: number): void {
    this.#frames.push(frame);
    this.#rows.push(row);
    const op = frame.op(row);
    if (op !== 'i' && op !== 'r') this.insertsOnly = false;
    if (this.ordered) return;
    if (op === 'd') {
      const before = frame.row(row)[4]!;
      this.deletes += 1;
      this.#set(this.#mapKey(keyText(this.plan, before)), 'delete', frame, row, before);
    } else if (op === 'u' && (frame.hasBefore(row) || frame.hasUnchanged(row))) this.#addUpdate(frame, row);
    // The usual case: all columns are given, and the key of an update is as it was.
    else if (!this.#set(this.#keyInFrame(frame, row), 'upsert', frame, row, undefined)) this.insertsOnly = false;
  }

  /** An update that leaves columns unchanged, or brings the old key or row. */
  #addUpdate(frame: IndexedFrame, row: number): void {
    const { plan } = this;
    const change = frame.row(row);
    let image = filledImage(change);
    const key = keyText(plan, image, change[4]);
    const oldKey = changedKey(plan, change);
    const earlier = this.net.get(this.#mapKey(oldKey ?? key));
    if (image.includes(0)) {
      if (earlier?.kind === 'delete') this.ordered = true;
      else if (earlier !== undefined) image = merge(earlier.image, image);
      for (const index of plan.key) if (image[index] === 0) image = withKey(plan, image, change[4]);
    }
    const partial = isPartial(plan, image);
    if (oldKey !== undefined) {
      // The unchanged columns of the moved row are only in the target: it must be moved there.
      if (partial) this.ordered = true;
      this.#set(this.#mapKey(oldKey), 'delete', frame, row, change[4]);
      this.deletes += 1;
    }
    this.#set(this.#mapKey(key), partial ? 'partial' : 'upsert', frame, row, image);
  }

  /** Sets the net state of a key. True when it had none in this segment. */
  #set(
    key: MapKey,
    kind: NetChange['kind'],
    frame: IndexedFrame,
    row: number,
    image: readonly Value[] | undefined,
  ): boolean {
    const known = this.net.get(key);
    if (known === undefined) {
      this.net.set(key, new NetChange(kind, frame, row, image));
      return true;
    }
    known.replace(kind, frame, row, image);
    return false;
  }

  #mapKey(text: string): MapKey {
    return this.#integerKey && text.length <= SAFE_DIGITS ? Number(text) : text;
  }

  /** The key of a row's after-image, read from its bytes where it is one column. */
  #keyInFrame(frame: IndexedFrame, row: number): MapKey {
    if (this.#keyColumn < 0) return keyText(this.plan, frame.row(row)[2]!);
    if (!frame.findValue(row, this.#keyColumn)) return this.#mapKey(keyText(this.plan, frame.row(row)[2]!));
    if (this.#integerKey && frame.valueEnd - frame.valueStart <= SAFE_DIGITS) return frame.valueAsInteger();
    return frame.valueAsText();
  }
}

/** The later image, with what it leaves unchanged taken from the earlier one. */
function merge(earlier: readonly Value[], later: readonly Value[]): Value[] {
  return later.map((value, index) => (value === 0 ? earlier[index]! : value));
}

function withKey(plan: KeyShape, image: readonly Value[], before: readonly Value[] | undefined): Value[] {
  return image.map((value, index) => (value === 0 && plan.key.includes(index) ? before![index]! : value));
}
