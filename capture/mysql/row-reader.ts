/** Rows events: iterates over the rows and writes their images into frames (mysql-server `Rows_event`). */
import { ReplicationError } from '../../core/errors.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import type { Charsets } from './charset.ts';
import { planColumns, planSizes, READ, type ColumnPlan } from './column-plan.ts';
import { bit, countBits, readLength } from './image-bytes.ts';
import { guarded, type Guards } from './published-table.ts';
import type { TableMap } from './table-map.ts';
import { ValueWriter } from './value-writer.ts';

export type RowOp = 'i' | 'u' | 'd';
export type Image = 'before' | 'after';

/** `timestamp(6)` up to the year 2038, and up to 2106 from MariaDB 11.5 on. */
const LAST_TIMES = ['7fffffff0f423f', 'ffffffff0f423f'].map((hex) => Buffer.from(hex, 'hex'));
const LAST_NUMBER = 2n ** 64n - 1n;

/** A rows event's parts. */
export interface RowsEvent {
  op: RowOp;
  map: TableMap;
  buffer: Buffer;
  /** Where the bitmap of columns in the (first) image starts. */
  before: number;
  /** Where that of the after-image of an update starts; else as `before`. */
  after: number;
  start: number;
  end: number;
}

/**
 * The rows of one event. One instance is reused for all events: do not keep it. Usage:
 *
 *     while (rows.next()) { writer.beginRow(rows.op, schema); rows.write(writer, 'after'); …; writer.endRow(); }
 *
 * Inserts have an `after` image, deletes a `before` image, updates both, which may be written in either order, or not
 * at all. Values have the canonical text of core/mysql-column-text.ts.
 */
export class RowReader {
  readonly #charsets: Charsets;
  readonly #plans = new WeakMap<TableMap, ColumnPlan>();
  readonly #sizesOf = new WeakMap<TableMap, Int32Array>();
  readonly #values = new ValueWriter();
  readonly #scratch = new FrameWriter(1024);
  #event!: RowsEvent;
  #buffer!: Buffer;
  #end = 0;
  #sizes!: Int32Array;
  #plan: ColumnPlan | undefined;
  #width = 0;
  #beforeWhole = true;
  #afterWhole = true;
  #beforeCount = 0;
  #afterCount = 0;
  /** Start of the current row's images; -1 where it is not known yet. */
  #before = -1;
  #after = -1;
  /** Start of the next row; -1 while the end of the current one is not known. */
  #next = 0;

  constructor(charsets: Charsets) {
    this.#charsets = charsets;
  }

  /** Starts with the rows of an event. For the decoder. */
  open(event: RowsEvent): void {
    const { map, buffer } = event;
    this.#event = event;
    this.#buffer = buffer;
    this.#end = event.end;
    this.#width = map.columns.length;
    let sizes = this.#sizesOf.get(map);
    if (sizes === undefined) {
      sizes = planSizes(map);
      this.#sizesOf.set(map, sizes);
    }
    this.#sizes = sizes;
    this.#plan = undefined;
    this.#beforeCount = countBits(buffer, event.before, this.#width);
    this.#afterCount = event.after === event.before ? this.#beforeCount : countBits(buffer, event.after, this.#width);
    this.#beforeWhole = this.#beforeCount === this.#width;
    this.#afterWhole = this.#afterCount === this.#width;
    this.#before = -1;
    this.#after = -1;
    this.#next = event.start;
  }

  get op(): RowOp {
    return this.#event.op;
  }

  get map(): TableMap {
    return this.#event.map;
  }

  /**
   * Whether every column's value is known in each image, but for columns that are omitted. The after-image of an update
   * may leave out what did not change (`binlog_row_image=FULL_NODUP`): the before-image has it.
   */
  get complete(): boolean {
    if (this.#beforeWhole && (this.op === 'u' || this.#afterWhole)) return true;
    const { map, before } = this.#event;
    for (let i = 0; i < this.#width; i++)
      if (!bit(this.#buffer, before, i) && map.hints.get(i) !== 'omit') return false;
    return true;
  }

  /** Whether column `index` is in the image. */
  has(image: Image, index: number): boolean {
    return bit(this.#buffer, image === 'before' ? this.#event.before : this.#event.after, index);
  }

  /** Rows of the event; costs a pass over it. To be called before `next`. */
  count(): number {
    let rows = 0;
    while (this.next()) rows += 1;
    this.#next = this.#event.start;
    return rows;
  }

  /** Goes to the next row. Throws `source_protocol` when the event's bytes do not make up whole rows. */
  next(): boolean {
    if (this.#next < 0)
      this.#next = this.op === 'd' ? this.#skip('before', this.#before) : this.#skip('after', this.#after);
    const start = this.#next;
    // Rows without a byte would never end.
    if (this.#beforeCount + this.#afterCount === 0) throw this.#truncated();
    if (start >= this.#end) {
      if (start > this.#end) throw this.#truncated();
      return false;
    }
    this.#next = -1;
    if (this.op === 'i') this.#after = start;
    else {
      this.#before = start;
      if (this.op === 'u') this.#after = this.#skip('before', start);
    }
    return true;
  }

  /**
   * Writes an image as a JSON array with all columns of the map that are not omitted. A column that the after-image of an update leaves out
   * has the value of the before-image; where that has none either it is *unchanged*. Values of columns with a guard are
   * written through it.
   */
  write(writer: FrameWriter, image: Image, guards?: Guards): void {
    const plan = this.#planned();
    const buffer = this.#buffer;
    const present = image === 'before' ? this.#event.before : this.#event.after;
    const nulls = this.#start(image);
    const width = this.#width;
    const whole = image === 'before' ? this.#beforeWhole : this.#afterWhole;
    let at = nulls + (((image === 'before' ? this.#beforeCount : this.#afterCount) + 7) >> 3);
    let n = 0;
    let first = true;
    writer.beginTuple();
    for (let i = 0; i < width; i++) {
      if (plan.reads[i] === READ.omit) {
        if (!whole && !bit(buffer, present, i)) continue;
        if (((buffer[nulls + (n >> 3)]! >> (n & 7)) & 1) === 0) at = this.#step(i, at);
        n += 1;
        continue;
      }
      if (!first) writer.comma();
      first = false;
      if (!whole && !bit(buffer, present, i)) {
        this.#writeAbsent(writer, plan, image, i, guards);
        continue;
      }
      if (((buffer[nulls + (n >> 3)]! >> (n & 7)) & 1) === 1) writer.writeNull();
      else if (guards === undefined) at = this.#writeValue(writer, plan, i, at);
      else at = this.#writeGuarded(writer, plan, i, at, guards);
      n += 1;
    }
    writer.endTuple();
    if (at > this.#end) throw this.#truncated();
    if (image === 'after' || this.op === 'd') this.#next = at;
  }

  /** MariaDB: what a change of a table with history is to its present rows; undefined where it is none to them. */
  presentOp(rowEnd: number): RowOp | undefined {
    const was = this.op !== 'i' && this.#isPresent('before', rowEnd);
    const is = this.op !== 'd' && this.#isPresent('after', rowEnd);
    if (was) return is ? 'u' : 'd';
    return is ? 'i' : undefined;
  }

  /**
   * Whether a row is a present one, whose `ROW END` is the last time that there is, or the last number. One that
   * the image leaves out has not changed.
   */
  #isPresent(image: Image, rowEnd: number): boolean {
    const [start, end] = this.#locate(image, rowEnd);
    if (start < 0) return image === 'before' || this.op === 'i' || this.#isPresent('before', rowEnd);
    if (end - start === 8) return this.#buffer.readBigUInt64LE(start) === LAST_NUMBER;
    return LAST_TIMES.some((last) => this.#buffer.compare(last, 0, last.length, start, end) === 0);
  }

  /** Whether the bytes of any of these columns differ between the images of an update. */
  differs(indexes: readonly number[]): boolean {
    for (const index of indexes) {
      const [beforeStart, beforeEnd] = this.#locate('before', index);
      const [afterStart, afterEnd] = this.#locate('after', index);
      // Not sent, so not changed.
      if (afterStart < 0 || beforeStart < 0) continue;
      const length = beforeEnd - beforeStart;
      if (length !== afterEnd - afterStart) return true;
      for (let i = 0; i < length; i++) if (this.#buffer[beforeStart + i] !== this.#buffer[afterStart + i]) return true;
      // NULL and a value of no bytes look alike but for the bitmap.
      if (length === 0 && this.#isNull('before', index) !== this.#isNull('after', index)) return true;
    }
    return false;
  }

  /**
   * Texts of some columns as the source has them; null for NULL, undefined for a column not in the image. For keys; not
   * for hot paths.
   */
  values(image: Image, indexes: readonly number[]): (string | null | undefined)[] {
    const plan = this.#planned();
    return indexes.map((index) => {
      const [start] = this.#locate(image, index);
      if (start < 0) return undefined;
      if (this.#isNull(image, index)) return null;
      return this.#text(plan, index, start)[0];
    });
  }

  /** A value as text, and where it ends. */
  #text(plan: ColumnPlan, index: number, at: number): [text: string, end: number] {
    this.#scratch.reset();
    const from = this.#scratch.bytes;
    const end = this.#writeValue(this.#scratch, plan, index, at);
    return [JSON.parse(this.#scratch.textFrom(from)) as string, end];
  }

  /** `writeValue` for a table with column rules. */
  #writeGuarded(writer: FrameWriter, plan: ColumnPlan, index: number, at: number, guards: Guards): number {
    const guard = guards[index];
    if (guard === undefined) return this.#writeValue(writer, plan, index, at);
    const [text, end] = this.#text(plan, index, at);
    writer.writeString(guarded(guard, text));
    return end;
  }

  #planned(): ColumnPlan {
    if (this.#plan !== undefined) return this.#plan;
    const { map } = this.#event;
    let plan = this.#plans.get(map);
    if (plan === undefined) {
      plan = planColumns(map, this.#charsets);
      this.#plans.set(map, plan);
    }
    this.#plan = plan;
    return plan;
  }

  #start(image: Image): number {
    const start = image === 'before' ? this.#before : this.#after;
    if (start < 0)
      throw new ReplicationError(
        'internal',
        `the rows of a ${this.op} event have no image ${image}, or none was begun`,
      );
    return start;
  }

  #truncated(): ReplicationError {
    const { map } = this.#event;
    return new ReplicationError(
      'source_protocol',
      `a rows event of ${map.schema}.${map.name} is truncated: its rows end beyond its ${this.#end - this.#event.start} bytes`,
    );
  }

  /** End of the image that starts at `start`. */
  #skip(image: Image, start: number): number {
    const present = image === 'before' ? this.#event.before : this.#event.after;
    const count = image === 'before' ? this.#beforeCount : this.#afterCount;
    return this.#walk(start, present, count, this.#width);
  }

  #writeAbsent(writer: FrameWriter, plan: ColumnPlan, image: Image, index: number, guards: Guards = []): void {
    const [start] = image === 'after' && this.op === 'u' ? this.#locate('before', index) : [-1];
    if (start < 0) writer.writeUnchanged();
    else if (this.#isNull('before', index)) writer.writeNull();
    else this.#writeGuarded(writer, plan, index, start, guards);
  }

  /** Where column `until` starts (the end of the image for `until` = width) in the image that starts at `start`. */
  #walk(start: number, present: number, count: number, until: number): number {
    const buffer = this.#buffer;
    const sizes = this.#sizes;
    const whole = count === this.#width;
    let at = start + ((count + 7) >> 3);
    let n = 0;
    for (let i = 0; i < until; i++) {
      if (!whole && !bit(buffer, present, i)) continue;
      if (((buffer[start + (n >> 3)]! >> (n & 7)) & 1) === 0) {
        const size = sizes[i]!;
        at += size >= 0 ? size : readLength(buffer, at, size) - size;
      }
      n += 1;
    }
    if (at > this.#end) throw this.#truncated();
    return at;
  }

  /** End of the value of column `index` that starts at `at`. */
  #step(index: number, at: number): number {
    const size = this.#sizes[index]!;
    return at + (size >= 0 ? size : readLength(this.#buffer, at, size) - size);
  }

  /** Where the bytes of a column lie in an image, empty for NULL; [-1, -1] when it is not in it. */
  #locate(image: Image, index: number): [start: number, end: number] {
    const present = image === 'before' ? this.#event.before : this.#event.after;
    if (!bit(this.#buffer, present, index)) return [-1, -1];
    const count = image === 'before' ? this.#beforeCount : this.#afterCount;
    const at = this.#walk(this.#start(image), present, count, index);
    if (this.#isNull(image, index)) return [at, at];
    const end = this.#step(index, at);
    if (end > this.#end) throw this.#truncated();
    return [at, end];
  }

  #isNull(image: Image, index: number): boolean {
    const present = image === 'before' ? this.#event.before : this.#event.after;
    const n = (image === 'before' ? this.#beforeWhole : this.#afterWhole)
      ? index
      : countBits(this.#buffer, present, index);
    return bit(this.#buffer, this.#start(image), n);
  }

  /** Writes the value that starts at `at`; gives where it ends. */
  #writeValue(writer: FrameWriter, plan: ColumnPlan, index: number, at: number): number {
    const size = plan.sizes[index]!;
    if (size < 0) {
      const from = at - size;
      const end = from + readLength(this.#buffer, at, size);
      if (end > this.#end) throw this.#truncated();
      this.#values.variable(writer, this.#event.map, plan, index, this.#buffer, from, end);
      return end;
    }
    if (at + size > this.#end) throw this.#truncated();
    this.#values.fixed(writer, this.#event.map, plan, index, this.#buffer, at);
    return at + size;
  }
}
