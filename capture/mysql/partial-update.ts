/**
 * PARTIAL_UPDATE_ROWS events (`binlog_row_value_options=PARTIAL_JSON`): updates whose after-images have changes of JSON
 * documents in place of documents (mysql-server `Rows_log_event::print_verbose_one_row`).
 */
import { ReplicationError } from '../../core/errors.ts';
import { ByteReader } from './byte-reader.ts';
import { planSizes } from './column-plan.ts';
import { TYPE } from './column-types.ts';
import { bit, countBits, readLength } from './image-bytes.ts';
import { applyJsonDiffs } from './json-diff.ts';
import type { TableMap } from './table-map.ts';

const PARTIAL_JSON = 1;
/** Bytes of the length in front of a document, and of changes. */
const LENGTH_BYTES = 4;

/** The bitmaps of columns that the images of an event have. */
interface Bitmaps {
  readonly before: number;
  readonly after: number;
}

/**
 * The rows of an event, all that `head` has left, as those of an ordinary update. Throws `source_binlog_settings` where the
 * document before a change is not in the log, and `source_protocol` for bytes that do not make up whole rows.
 */
export function wholeUpdates(map: TableMap, head: ByteReader, { before, after }: Bitmaps): Buffer {
  const { buffer } = head;
  const sizes = planSizes(map);
  const isJson = map.columns.map(({ type }) => type === TYPE.json);
  const partialBytes = (isJson.filter(Boolean).length + 7) >> 3;
  const out: Buffer[] = [];
  const value = (index: number): Buffer => {
    const size = sizes[index]!;
    const from = head.at;
    head.skip(size >= 0 ? size : readLength(buffer, from, size) - size);
    return buffer.subarray(from, head.at);
  };
  while (head.left > 0) {
    const documents = new Map<number, Buffer>();
    const start = head.at;
    const beforeNulls = head.skip((countBits(buffer, before, sizes.length) + 7) >> 3);
    for (let i = 0, n = 0; i < sizes.length; i++) {
      if (!bit(buffer, before, i) || bit(buffer, beforeNulls, n++)) continue;
      const bytes = value(i);
      if (isJson[i] === true) documents.set(i, bytes);
    }
    out.push(buffer.subarray(start, head.at));
    const isPartial = (head.lengthEncoded() & PARTIAL_JSON) !== 0;
    const partial = isPartial ? head.skip(partialBytes) : 0;
    const nullBytes = (countBits(buffer, after, sizes.length) + 7) >> 3;
    const afterNulls = head.skip(nullBytes);
    out.push(buffer.subarray(afterNulls, afterNulls + nullBytes));
    for (let i = 0, n = 0, json = 0; i < sizes.length; i++) {
      // The bitmap has a bit for each column of JSON, also where the image does not have the column.
      const changes = isJson[i] === true && isPartial && bit(buffer, partial, json++);
      if (!bit(buffer, after, i) || bit(buffer, afterNulls, n++)) continue;
      if (!changes) {
        out.push(value(i));
        continue;
      }
      const document = documents.get(i);
      if (document === undefined)
        throw new ReplicationError(
          'source_binlog_settings',
          `the log has a partial update of column ${map.columns[i]!.name || i + 1} of ${map.schema}.${map.name} without what was before (binlog_row_image)`,
        );
      const length = head.uint32();
      const from = head.skip(length);
      if (length === 0) {
        out.push(document);
        continue;
      }
      const whole = applyJsonDiffs(document.subarray(LENGTH_BYTES), buffer, from, from + length);
      const lengthBytes = Buffer.alloc(LENGTH_BYTES);
      lengthBytes.writeUInt32LE(whole.length);
      out.push(lengthBytes, whole);
    }
  }
  return Buffer.concat(out);
}
