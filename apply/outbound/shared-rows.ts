/**
 * Rows that several records may want to write, since the key of the row lacks a part of the record's: the record that came
 * first has the row, until it goes or wants another one. Of blocks that fill different columns of a row each has its own part
 * of it. The target keeps whose each part is.
 */
import { hash } from 'node:crypto';
import { rowKey, type OutboundBlock, type OutboundPlan, type OutboundWrite } from '../../core/outbound.ts';
import type { Cells, Claim, OutboundSession } from './outbound-session.ts';

/** A row that a record wants to write, or to end. */
export interface Wanted {
  /** JSON array of the record's key. */
  readonly key: string;
  readonly cells: Cells;
}

export class SharedRows {
  readonly #session: OutboundSession;
  /** The parts of the rows of each block whose rows must be claimed. */
  readonly #parts = new Map<OutboundBlock, ReadonlySet<string>>();
  /** Ids of the records that are being written, and the rows that they have now. */
  #records = new Set<string>();
  #kept = new Set<string>();
  /** Rows that were nobody's before. */
  #fresh = new Set<string>();

  constructor(session: OutboundSession, { blocks }: OutboundPlan) {
    this.#session = session;
    for (const block of blocks) {
      const same = blocks.filter((other) => rowsOf(other) === rowsOf(block));
      // Who deletes a row must know whether others have a part of it.
      const deleted = same.some(({ gone }) => gone !== 'ignore' && gone.remove);
      if (block.keyLacks.length > 0 || (deleted && block.rowLacks.length > 0))
        this.#parts.set(block, new Set(same.map(({ part }) => part)));
    }
  }

  /** Whether several records may want to write, or to delete, a row of the block. */
  has(block: OutboundBlock): boolean {
    return this.#parts.has(block);
  }

  /** Begins with the records of a batch: of what each had before it keeps only what it claims. */
  begin(keys: Iterable<string>): void {
    if (this.#parts.size === 0) return;
    this.#records = new Set([...keys].map((key) => idOf([key])));
    this.#kept = new Set();
    this.#fresh = new Set();
  }

  /** Claims rows of a block. Gives, by their places in `wanted`, the keys of the records that had them before. */
  async claim({ write, part }: OutboundBlock, wanted: readonly Wanted[]): Promise<Map<number, string>> {
    const others = new Map<number, string>();
    if (wanted.length === 0) return others;
    const claims = wanted.map(({ key, cells }): Claim => ({
      row: rowId(write, cells, part),
      record: idOf([key]),
      key,
    }));
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
  async giveUp({ write, part }: OutboundBlock, wanted: readonly Wanted[]): Promise<void> {
    const rows = wanted.map(({ cells }) => rowId(write, cells, part)).filter((row) => this.#fresh.delete(row));
    for (const row of rows) this.#kept.delete(row);
    if (rows.length > 0) await this.#session.unclaim(rows);
  }

  /**
   * Places in `wanted` of rows that a record which has gone may end: another one has not what the block writes there, nor,
   * where the row is deleted, another part of it. `failed` are records whose newest state is not in. Asked when all is written.
   */
  async own(block: OutboundBlock, wanted: readonly Wanted[], failed: ReadonlySet<string>): Promise<number[]> {
    const { write, part, gone } = block;
    const removed = gone !== 'ignore' && gone.remove;
    const parts = [part, ...(removed ? [...this.#parts.get(block)!].filter((other) => other !== part) : [])];
    const rows = wanted.map(({ cells }) => parts.map((each) => rowId(write, cells, each)));
    const owners = rows.length === 0 ? new Map<string, string>() : await this.#session.claimed(rows.flat());
    const stays = (row: string, owner: string): boolean =>
      this.#kept.has(row) || failed.has(owner) || !this.#records.has(idOf([owner]));
    return [...wanted.keys()].filter((index) => {
      const { key } = wanted[index]!;
      const [own, ...others] = rows[index]!;
      if ((owners.get(own!) ?? key) !== key) return false;
      return others.every((row) => {
        const owner = owners.get(row) ?? key;
        return owner === key || !stays(row, owner);
      });
    });
  }

  /** Everything is written: what records do not have any more is nobody's. One that is not in keeps what it had. */
  async end(failed: Iterable<string>): Promise<void> {
    for (const key of failed) this.#records.delete(idOf([key]));
    if (this.#records.size > 0) await this.#session.release([...this.#records], [...this.#kept]);
  }
}

/** The same for the write of a block and for that which ends its rows. */
function rowId(write: OutboundWrite, cells: Cells, part: string): string {
  return idOf([write.table, keyNames(write), rowKey(write, cells), part]);
}

function rowsOf({ write }: OutboundBlock): string {
  return JSON.stringify([write.table, keyNames(write)]);
}

function keyNames({ columns }: OutboundWrite): string[] {
  return columns.filter(({ role }) => role === 'key').map(({ name }) => name);
}

function idOf(parts: readonly unknown[]): string {
  return hash('sha256', JSON.stringify(parts), 'hex').slice(0, 32);
}
