/**
 * Brings the newest states of records into the tables of a system, within a transaction that others begin and end. A record
 * goes in with all of its rows or not at all, whatever becomes of those beside it.
 */
import { OutboundFault, type OutboundBlock, type OutboundPlan, type OutboundWrite } from '../../core/outbound.ts';
import type { RowFailure } from '../quarantine-entry.ts';
import type { Cells, OutboundSession } from './outbound-session.ts';
import type { RowRivals } from './row-rivals.ts';
import type { SharedRows, Wanted } from './shared-rows.ts';

export type Values = readonly (string | null)[];

/** The newest state of a key. */
export interface Item {
  readonly key: string;
  /** Of a record that has gone only the key. */
  readonly values: Values;
  readonly gone: boolean;
}

export class RecordWriter {
  readonly #session: OutboundSession;
  readonly #plan: OutboundPlan;
  readonly #shared: SharedRows;
  readonly #rivals: RowRivals;
  /** Records of which something was written since the savepoint. */
  #touched = new Set<Item>();

  /** In `rivals` it notes who has the rows of those that are not in. */
  constructor(session: OutboundSession, plan: OutboundPlan, shared: SharedRows, rivals: RowRivals) {
    this.#session = session;
    this.#plan = plan;
    this.#shared = shared;
    this.#rivals = rivals;
  }

  /**
   * Writes all of them together; where a row is refused, in parts that are halved until it is alone, and grow again behind it.
   * Gives those that are not in, and why.
   */
  async write(items: readonly Item[]): Promise<Map<Item, RowFailure>> {
    const failures = new Map<Item, RowFailure>();
    let size = items.length;
    let parted = false;
    for (let at = 0; at < items.length;) {
      const part = items.slice(at, at + size);
      this.#rivals.forget(part.map(({ key }) => key));
      const tried = await this.#attempt(part);
      if (!(tried instanceof Map) && part.length > 1) {
        size = Math.ceil(part.length / 2);
        parted = true;
        continue;
      }
      at += part.length;
      if (tried instanceof Map) {
        size *= 2;
        for (const [item, failure] of tried) failures.set(item, failure);
      } else failures.set(part[0]!, tried);
    }
    if (!parted) return failures;
    const held = new Map(
      [...failures.keys()].filter(({ key }) => this.#rivals.has(key)).map((item) => [item.key, item]),
    );
    for (const group of this.#rivals.groupsOf([...held.keys()]))
      if (group.length > 1)
        await this.exchange(
          group.map((key) => held.get(key)!),
          failures,
        );
    return failures;
  }

  /** Records that want each other's rows get them together or not at all. Takes those that are in from `failures`. */
  async exchange(group: readonly Item[], failures: Map<Item, RowFailure>): Promise<void> {
    const exchanged = await this.#attempt(group);
    // What is said of those that are not in stays the same, try after try.
    if (!(exchanged instanceof Map) || exchanged.size === group.length) return;
    for (const item of group) {
      const failure = exchanged.get(item);
      if (failure === undefined) failures.delete(item);
      else failures.set(item, failure);
    }
  }

  /**
   * Writes records under a savepoint. Gives those that are not in; where none may be written so, why. One that is not in has
   * nothing written of it, in any table, and no other record has a row of it.
   */
  async #attempt(items: readonly Item[]): Promise<Map<Item, RowFailure> | RowFailure> {
    const session = this.#session;
    const refused = new Map<Item, RowFailure>();
    for (let left = items; left.length > 0; left = left.filter((item) => !refused.has(item))) {
      await session.savepoint();
      try {
        const failures = await this.#together(left);
        const half = [...failures].filter(([item]) => this.#touched.has(item) || this.#shared.hasHandedOn(item.key));
        if (half.length === 0) {
          await session.settle();
          for (const [item, failure] of failures) refused.set(item, failure);
          break;
        }
        await session.rollbackToSavepoint();
        for (const [item, failure] of half) refused.set(item, failure);
      } catch (thrown) {
        const failure = session.rowFailure(thrown);
        if (failure === undefined) throw thrown;
        await session.rollbackToSavepoint();
        return failure;
      }
    }
    return refused;
  }

  async #together(items: readonly Item[]): Promise<Map<Item, RowFailure>> {
    const failures = new Map<Item, RowFailure>();
    this.#touched = new Set();
    const there = items.filter((item) => !item.gone);
    const gone = items.filter((item) => item.gone);
    const { blocks } = this.#plan;
    this.#shared.begin(
      there.map(({ key }) => key),
      gone.map(({ key }) => key),
    );
    for (const block of blocks) await this.#writeRows(block, block.write, there, failures);
    // What depends on another row goes before it.
    for (const block of blocks.toReversed()) {
      const { gone: ending } = block;
      if (ending === 'ignore') continue;
      const own = await this.#ending(block, ending.write, gone, failures);
      if (!ending.remove) await this.#writeRows(undefined, ending.write, own, failures);
      else {
        const { rows, of } = this.#cells(ending.write, own, failures);
        if (rows.length > 0) await this.#session.remove(ending.write, rows);
        for (const item of of) this.#touched.add(item);
      }
    }
    await this.#shared.end(keysOf(failures));
    return failures;
  }

  /** Of records that have gone those whose rows are no other's. */
  async #ending(
    block: OutboundBlock,
    write: OutboundWrite,
    gone: readonly Item[],
    failures: Map<Item, RowFailure>,
  ): Promise<readonly Item[]> {
    if (!this.#shared.has(block)) return gone;
    const { rows, of } = this.#cells(write, gone, failures);
    if (rows.length === 0) return [];
    const { names } = await this.#session.look(write, rows);
    // What cannot be found is not there.
    const places = [...rows.keys()].filter((index) => names[index] !== undefined);
    const wanted = places.map((index): Wanted => ({ key: of[index]!.key, cells: rows[index]!, name: names[index]! }));
    return (await this.#shared.own(block, wanted, keysOf(failures))).map((place) => of[places[place]!]!);
  }

  /** Writes rows; those of a block unless they are another record's. */
  async #writeRows(
    block: OutboundBlock | undefined,
    write: OutboundWrite,
    items: readonly Item[],
    failures: Map<Item, RowFailure>,
  ): Promise<void> {
    const { rows, of } = this.#cells(write, items, failures);
    if (rows.length === 0) return;
    const waits = (item: Item): void =>
      void failures.set(item, waitingFor(`${write.table}: a row that it needs is not there yet`));
    if (block === undefined || !this.#shared.has(block)) {
      const late = await this.#session.write(write, rows);
      for (const [index, item] of of.entries())
        if (late.has(index)) waits(item);
        else this.#touched.add(item);
      return;
    }
    // What waits has no row: another record may be able to write it.
    const { waiting, names } = await this.#session.look(write, rows);
    for (const index of waiting) waits(of[index]!);
    const found = [...rows.keys()].filter((index) => !waiting.has(index) && names[index] !== undefined);
    const wanted = found.map((index): Wanted => ({ key: of[index]!.key, cells: rows[index]!, name: names[index]! }));
    const others = await this.#shared.claim(block, wanted, keysOf(failures));
    for (const [place, key] of others) {
      const item = of[found[place]!]!;
      const message = `${write.table}: record ${key} has this row; the key of the row does not tell them apart`;
      failures.set(item, waitingFor(message));
      this.#rivals.note(item.key, key);
    }
    const claimed = [...wanted.keys()].filter((place) => !others.has(place));
    if (claimed.length === 0) return;
    const all = claimed.length === rows.length;
    const late = await this.#session.write(write, all ? rows : claimed.map((place) => wanted[place]!.cells));
    for (const [index, place] of claimed.entries()) {
      const item = of[found[place]!]!;
      if (late.has(index)) waits(item);
      else this.#touched.add(item);
    }
    if (late.size === 0) return;
    await this.#shared.giveUp(
      block,
      [...late].map((index) => wanted[claimed[index]!]!),
    );
  }

  #cells(write: OutboundWrite, items: readonly Item[], failures: Map<Item, RowFailure>): { rows: Cells[]; of: Item[] } {
    const rows: Cells[] = [];
    const of: Item[] = [];
    for (const item of items) {
      if (failures.has(item)) continue;
      const cells = write.cells(item.values);
      if (cells === undefined) continue;
      if (cells instanceof OutboundFault) {
        // A record without a key for its row never had one: there is nothing to end.
        if (item.gone && cells.inKey) continue;
        failures.set(item, { reason: 'mapping', sqlState: null, message: cells.message });
        continue;
      }
      rows.push(cells);
      of.push(item);
    }
    return { rows, of };
  }
}

function keysOf(failures: ReadonlyMap<Item, RowFailure>): Set<string> {
  return new Set([...failures.keys()].map(({ key }) => key));
}

function waitingFor(message: string): RowFailure {
  return { reason: 'waits', sqlState: null, message };
}
