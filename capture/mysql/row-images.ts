/** What a frame carries of a row of the log. */
import type { FrameWriter } from '../../core/frame-writer.ts';
import type { LoggedTable } from './catalog.ts';
import type { RowOp, RowReader } from './row-reader.ts';

/** Writes the images of the row at which the reader is. */
export function writeImages(writer: FrameWriter, rows: RowReader, table: LoggedTable, op: RowOp): void {
  if (op === 'd') {
    writer.writeNull();
    writer.before('f');
    rows.write(writer, 'before', table.guards);
    return;
  }
  // The old row of an update is needed where the key changed, and where the whole row is the key.
  const before = op === 'u' && (table.keyIndexes.length === 0 || rows.differs(table.keyIndexes));
  rows.write(writer, 'after', table.guards);
  if (!before) return;
  writer.before('f');
  rows.write(writer, 'before', table.guards);
}
