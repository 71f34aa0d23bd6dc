/** Names of rows and of records in few characters, as `waybill.outbound_rows` has them. */
import { hash } from 'node:crypto';

export function idOf(parts: readonly unknown[]): string {
  return hash('sha256', JSON.stringify(parts), 'hex').slice(0, 32);
}

/** `key` is the JSON array of a record's key. */
export function recordId(key: string): string {
  return idOf([key]);
}
