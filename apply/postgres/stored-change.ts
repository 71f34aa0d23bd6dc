/** A quarantined change as `jsonb` can hold it: that has no NUL, which texts of MySQL and MariaDB may have. */
import type { RowChange } from '../../core/frame.ts';
import type { QuarantinedChange } from '../quarantine-entry.ts';

/** What is stored in place of a text with a NUL. */
interface StoredBytes {
  readonly utf8: string;
}

export function storedChange(change: QuarantinedChange): string {
  const json = JSON.stringify(change);
  if (!json.includes(String.raw`\u0000`)) return json;
  return JSON.stringify(change, (_, value: unknown) =>
    typeof value === 'string' && value.includes('\0')
      ? ({ utf8: Buffer.from(value).toString('base64') } satisfies StoredBytes)
      : value,
  );
}

/** The change that was stored. What mappings hold, and records that wait, are of another form and stay as they are. */
export function restoredChange(stored: QuarantinedChange): QuarantinedChange {
  if (!Array.isArray(stored.change)) return stored;
  const image = (values: readonly unknown[] | null | undefined): unknown =>
    values?.map((value) => (isBytes(value) ? Buffer.from(value.utf8, 'base64').toString() : value)) ?? values;
  const [op, table, after, ...before] = stored.change;
  const images = before.length === 0 ? [] : [before[0], image(before[1])];
  return { ...stored, change: [op, table, image(after), ...images] as unknown as RowChange };
}

function isBytes(value: unknown): value is StoredBytes {
  return typeof value === 'object' && value !== null && 'utf8' in value;
}
