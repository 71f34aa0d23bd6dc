/**
 * Rows that several records may want to write, since the key of the row lacks a part of the record's: the record that came
 * first has the row, until it goes or wants another one. The target keeps whose each row is.
 */
import { hash } from 'node:crypto';
import { rowKey, type OutboundBlock, type OutboundWrite } from '../../core/outbound.ts';
import type { Cells, Claim, OutboundSession } from './outbound-session.ts';

/** A row that a record wants to write, or to end. */
export interface Wanted {
  /** JSON array of the record's key. */
  readonly key: string;
  readonly cells: Cells;
}

export class SharedRows {
  readonly #session: OutboundSession;
  /** Ids of the records that are being written, and the rows that they have now. */
  #records = new Set<string>();
  #kept = new Set<string>();
  /** Rows that were nobody's before. */
  #fresh = new Set<string>();

  constructor(session: OutboundSession) {
    this.#session = session;
  }

  /** Begins with the records of a batch: of what each had before it keeps only what it claims. */
  begin(keys: Iterable<string>): void {
    this.#records = new Set([...keys].map((key) => idOf([key])));
    this.#kept = new Set();
    this.#fresh = new Set();
  }

  /** Claims rows of a block. Gives, by their places in `wanted`, the keys of the records that had them before. */
  async claim({ write, keyLacks }: OutboundBlock, wanted: readonly Wanted[]): Promise<Map<number, string>> {
    const others = new Map<number, string>();
    if (keyLacks.length === 0 || wanted.length === 0) return others;
    const claims = wanted.map(({ key, cells }): Claim => ({ row: rowId(write, cells), record: idOf([key]), key }));
    const owners = new Map(await this.#session.claimed(claims.map(({ row }) => row)));
    const fresh: Claim[] = [];
    for (const [index, claim] of claims.entries()) {
      const { row, key } = claim;
      const owner = owners.get(row);
      if (owner !== undefined && owner !== key) {
        others.set(index, owner);
        continue;
      }
      this.#kept.add(row);
      if (owner !== undefined) continue;
      owners.set(row, key);
      fresh.push(claim);
      this.#fresh.add(row);
    }
    // The flow's position is locked: nobody else claims meanwhile.
    if (fresh.length > 0) await this.#session.claim(fresh);
    return others;
  }

  /** What was claimed and could not be written after all: who did not have the row before does not have it now. */
  async giveUp({ write, keyLacks }: OutboundBlock, wanted: readonly Wanted[]): Promise<void> {
    if (keyLacks.length === 0) return;
    const rows = wanted.map(({ cells }) => rowId(write, cells)).filter((row) => this.#fresh.delete(row));
    for (const row of rows) this.#kept.delete(row);
    if (rows.length > 0) await this.#session.unclaim(rows);
  }

  /** Places in `wanted` of rows that are no other record's. */
  async own({ write, keyLacks }: OutboundBlock, wanted: readonly Wanted[]): Promise<number[]> {
    const places = [...wanted.keys()];
    if (keyLacks.length === 0 || wanted.length === 0) return places;
    const rows = wanted.map(({ cells }) => rowId(write, cells));
    const owners = await this.#session.claimed(rows);
    return places.filter((index) => (owners.get(rows[index]!) ?? wanted[index]!.key) === wanted[index]!.key);
  }

  /** Everything is written: what records do not have any more is nobody's. One that is not in keeps what it had. */
  async end(failed: Iterable<string>): Promise<void> {
    for (const key of failed) this.#records.delete(idOf([key]));
    if (this.#records.size > 0) await this.#session.release([...this.#records], [...this.#kept]);
  }
}

/** The same for the write of a block and for that which ends its rows. */
function rowId(write: OutboundWrite, cells: Cells): string {
  const names = write.columns.filter(({ role }) => role === 'key').map(({ name }) => name);
  return idOf([write.table, names, rowKey(write, cells)]);
}

function idOf(parts: readonly unknown[]): string {
  return hash('sha256', JSON.stringify(parts), 'hex').slice(0, 32);
}
