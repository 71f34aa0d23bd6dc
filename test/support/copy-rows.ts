/** Rows of COPY out of lines, and what frames carry of them. */
import { CopyRows } from '../../capture/postgres/copy-lines.ts';
import type { PublishedTable } from '../../capture/postgres/published-table.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import type { FramePayload } from '../../core/frame.ts';

type RowTable = Pick<PublishedTable, 'binary' | 'keyIndexes' | 'writes'>;

const ESCAPES: Readonly<Record<string, string>> = {
  '\b': String.raw`\b`,
  '\f': String.raw`\f`,
  '\n': String.raw`\n`,
  '\r': String.raw`\r`,
  '\t': String.raw`\t`,
  '\v': String.raw`\v`,
  '\\': '\\\\',
};

/** As CopyAttributeOutText of Postgres writes a value. */
export function copyField(value: string | null): string {
  if (value === null) return String.raw`\N`;
  return value.replaceAll(/[\b\f\n\r\t\v\\]/g, (char) => ESCAPES[char]!);
}

/** Rows that came as these lines; by default of a table without rules, key and bytea. */
export function copyRows(lines: readonly string[], table: Partial<RowTable> = {}): CopyRows {
  const rows = new CopyRows({ binary: [], keyIndexes: [], writes: undefined, ...table });
  for (const line of lines) {
    const bytes = Buffer.from(`..${line}\n`);
    rows.add(bytes, 2, bytes.length);
    bytes.fill('#');
  }
  return rows;
}

/** The images that a frame of the rows carries. */
export function imagesOf(rows: CopyRows): unknown[] {
  const writer = new FrameWriter(64);
  for (let row = 0; row < rows.length; row++) {
    writer.beginRow('r', undefined);
    rows.write(row, writer);
    writer.endRow();
  }
  const payload = JSON.parse(Buffer.from(writer.finish()).toString('utf8')) as FramePayload;
  return payload.rows.map(([, , image]) => image);
}
