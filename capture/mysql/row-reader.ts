/** Rows events: iterates over the rows and writes their images into frames. */
import type { FrameWriter } from '../../core/frame-writer.ts';
import type { TableMap } from './table-map.ts';

export type RowOp = 'i' | 'u' | 'd';
export type Image = 'before' | 'after';

/**
 * The rows of one event. One instance is reused for all events: do not keep it. Usage:
 *
 *     while (rows.next()) { writer.beginRow(rows.op, schema); rows.write(writer, 'after'); …; writer.endRow(); }
 *
 * Inserts have an `after` image, deletes a `before` image, updates both, which may be written in either order, or not
 * at all. Values have the canonical text of column-text.ts.
 */
export interface RowReader {
  readonly op: RowOp;
  readonly map: TableMap;
  /** Whether the images hold every column (`binlog_row_image=FULL`). */
  readonly complete: boolean;
  /** Whether column `index` is in the image. */
  has(image: Image, index: number): boolean;
  /** Rows of the event; costs a pass over it. May be called before `next` only. */
  count(): number;
  /** Goes to the next row. Throws `source_protocol` when the event's bytes do not make up whole rows. */
  next(): boolean;
  /** Writes an image as a JSON array with all columns of the map; a column not in the image as *unchanged*. */
  write(writer: FrameWriter, image: Image): void;
  /** Whether the bytes of any of these columns differ between the images of an update. */
  differs(indexes: readonly number[]): boolean;
  /** Texts of some columns; null for NULL, undefined for a column not in the image. For keys; not for hot paths. */
  values(image: Image, indexes: readonly number[]): (string | null | undefined)[];
}
