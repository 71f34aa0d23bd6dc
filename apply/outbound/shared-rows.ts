/**
 * Rows that several records may want to write, since the key of the row lacks a part of the record's: the record that came
 * first has the row, until it goes or wants another one. Of blocks that fill different columns of a row each has its own columns
 * of it. The target keeps whose they are, under ids that outlive an edit of the mapping: of the row where all its blocks share
 * columns, else of each column. What is had under the one is heeded under the other.
 */
import { isFind, type OutboundBlock, type OutboundPlan, type OutboundWrite } from '../../core/outbound.ts';
import { meetingsOf } from './meeting-rows.ts';
import type { Cells, Claim, OutboundSession } from './outbound-session.ts';
import { inNameOrder, namesOfTable, type SystemTables } from './outbound-shape.ts';
import { RowExchange } from './row-exchange.ts';
import { idOf, recordId } from './row-ids.ts';

/** A row that a record wants to write, or to end. */
export interface Wanted {
  /** JSON array of the record's key. */
  readonly key: string;
  readonly cells: Cells;
  /** What the key of the row is, in the order of the names of its columns. */
  readonly name: readonly string[];
}

/** The columns that tell rows apart, and the cells of what they hold. */
interface RowName {
  readonly columns: readonly string[];
  readonly cells: readonly number[];
}

/** How rows of a block are claimed. */
interface Claiming {
  /** The table with its schema; behind it the name without, under which rows were claimed where mappings called it so. */
  readonly tables: readonly string[];
  readonly wholeRow: boolean;
  /** Columns of the key, in the order of their names. */
  readonly columns: readonly string[];
  /** How earlier versions named a row: by the texts that it is looked up by, in the order of the names or in that of the file. */
  readonly former: readonly RowName[];
  /** Columns of the row that the block sets, or all where it has the whole row, and those that only other blocks set. */
  readonly own: readonly string[];
  readonly others: readonly string[];
  /** The blocks of which one record can have a row: that set some of the same columns, or all. */
  readonly rivals: readonly OutboundBlock[];
}

/** Ids of a row: of all of it, and of its columns, those that earlier versions gave it among them. */
interface AllIds {
  readonly whole: readonly string[];
  readonly own: readonly string[];
  readonly others: readonly string[];
}

class RowIds {
  /** What a record claims to have what the block writes there. */
  readonly claims: readonly string[];
  readonly #claiming: Claiming;
  readonly #wanted: Wanted;
  #all: AllIds | undefined;

  constructor(claiming: Claiming, wanted: Wanted) {
    this.#claiming = claiming;
    this.#wanted = wanted;
    const { wholeRow, own } = claiming;
    const row = this.#row(claiming.tables[0]!);
    this.claims = wholeRow ? [idOf(row)] : columnIds(row, own);
  }

  #row(table: string): readonly unknown[] {
    return [VERSION, table, this.#claiming.columns, this.#wanted.name];
  }

  /** Made when they are asked for: mostly a record has what it claims already. */
  get all(): AllIds {
    return (this.#all ??= this.#make());
  }

  #make(): AllIds {
    const { tables, former, own, others } = this.#claiming;
    const { cells } = this.#wanted;
    const named = tables.map((table) => this.#row(table));
    const rows = tables.map((table) =>
      former.map((each) => [table, each.columns, each.cells.map((cell) => cells[cell]!)]),
    );
    const ofColumns = [...named, ...rows.map(([first]) => first!)];
    return {
      whole: [...named, ...rows.flat()].map(idOf),
      own: ofColumns.flatMap((row) => columnIds(row, own)),
      others: ofColumns.flatMap((row) => columnIds(row, others)),
    };
  }
}

function columnIds(row: readonly unknown[], columns: readonly string[]): string[] {
  return columns.map((column) => idOf([...row, column]));
}

/** Rows that records want, the places of those that they do not have already, and who has what of them. */
interface Asked {
  readonly rows: readonly RowIds[];
  readonly open: readonly number[];
  readonly owners: ReadonlyMap<string, string>;
}

export class SharedRows {
  readonly #session: OutboundSession;
  readonly #plan: OutboundPlan;
  readonly #tables: SystemTables;
  /** The blocks whose rows must be claimed. */
  readonly #claiming = new Map<OutboundBlock, Claiming>();
  /** Keys of the records that are being written; ids of them and of those that have gone, and of what they have now. */
  #there: ReadonlySet<string> = new Set();
  #records = new Set<string>();
  #kept = new Set<string>();
  /** What was not theirs who have it by the newest claims. */
  #fresh = new Set<string>();
  /** Keys of the records that are being written whose rows others have got, since they want other ones. */
  #handed = new Set<string>();
  /** By blocks: which records may have what they write, of those that this was asked of in the batch. */
  #mayHave = new Map<OutboundBlock, Map<string, boolean>>();

  /** Blocks none of whose columns was had by who had a row as a whole. */
  readonly #apart = new Set<OutboundBlock>();

  /** `tables` are those of the plan, as they are. */
  static async open(session: OutboundSession, plan: OutboundPlan, tables: SystemTables): Promise<SharedRows> {
    const shared = new SharedRows(session, plan, tables);
    await shared.#recallColumns();
    return shared;
  }

  private constructor(session: OutboundSession, plan: OutboundPlan, tables: SystemTables) {
    this.#session = session;
    this.#plan = plan;
    this.#tables = tables;
    for (const [block, { wholeRow, keyLacks, rowLacks, keyBlurs, rowBlurs }] of meetingsOf(plan, tables)) {
      const rows = this.#rowsOf(block);
      const same = plan.blocks.filter((other) => this.#rowsOf(other)[0] === rows[0]);
      // Who deletes a row must know whether others have columns of it.
      const deleted = same.some(({ gone }) => gone !== 'ignore' && gone.remove);
      if (keyLacks.length + keyBlurs.length > 0 || (deleted && rowLacks.length + rowBlurs.length > 0))
        this.#claiming.set(block, claimingOf(block, same, namesOfTable(tables, block.write.table), wholeRow));
    }
  }

  /** Reads which columns rows had that were claimed as a whole, by this mapping or by earlier ones, and writes down what is new. */
  async #recallColumns(): Promise<void> {
    if (this.#claiming.size === 0) return;
    const text = (await this.#session.claimed([COLUMNS])).get(COLUMNS);
    const before = text === undefined ? {} : (JSON.parse(text) as Record<string, readonly string[]>);
    const now = { ...before };
    for (const [block, { wholeRow, own, others }] of this.#claiming) {
      const [rows, ...called] = this.#rowsOf(block) as [string, ...string[]];
      const known = [rows, ...called].flatMap((name) => (before[name] === undefined ? [] : [before[name]]));
      for (const name of called) delete now[name];
      // What is not known may have been all of them.
      const more = wholeRow || known.length === 0 ? [...own, ...others] : [];
      now[rows] = [...new Set([...(now[rows] ?? []), ...known.flat(), ...more])].toSorted();
      if (!own.some((column) => now[rows]!.includes(column))) this.#apart.add(block);
    }
    const next = JSON.stringify(now);
    if (next === text) return;
    if (text !== undefined) await this.#session.unclaim([COLUMNS]);
    await this.#session.claim([{ row: COLUMNS, record: COLUMNS, key: next }]);
  }

  /** Whether several records may want to write, or to delete, a row of the block. */
  has(block: OutboundBlock): boolean {
    return this.#claiming.has(block);
  }

  /** Begins with the records of a batch, by their keys: of what each had before it keeps only what it claims. */
  begin(there: readonly string[], gone: readonly string[]): void {
    if (this.#claiming.size === 0) return;
    this.#there = new Set(there);
    this.#records = new Set([...there, ...gone].map((key) => recordId(key)));
    this.#kept = new Set();
    this.#fresh = new Set();
    this.#handed = new Set();
    this.#mayHave = new Map();
  }

  /**
   * Claims rows of a block. Gives, by their places in `wanted`, the keys of the records that have them. `failed` are records of
   * the batch that are not in: they keep what they had, while a row that its record leaves for another one is handed on.
   */
  async claim(
    block: OutboundBlock,
    wanted: readonly Wanted[],
    failed: ReadonlySet<string>,
  ): Promise<ReadonlyMap<number, string>> {
    if (wanted.length === 0) return new Map();
    const rows = this.#idsOf(block, wanted);
    const owners = new Map(await this.#session.claimed(rows.flatMap(({ claims }) => claims)));
    const open = [...wanted.keys()].filter((index) =>
      rows[index]!.claims.some((row) => owners.get(row) !== wanted[index]!.key),
    );
    const asked = open.flatMap((index) => [...rows[index]!.all.whole, ...rows[index]!.all.own]);
    if (open.length > 0) for (const [row, owner] of await this.#session.claimed(asked)) owners.set(row, owner);
    const others = this.#assign(block, wanted, { rows, open, owners }, failed);
    const fresh: Claim[] = [];
    const taken: string[] = [];
    for (const [index, { key }] of wanted.entries()) {
      if (others.has(index)) continue;
      for (const row of rows[index]!.claims) {
        this.#kept.add(row);
        const before = owners.get(row);
        if (before === key) continue;
        if (before !== undefined) taken.push(row);
        fresh.push({ row, record: recordId(key), key });
      }
    }
    this.#fresh = new Set(fresh.map(({ row }) => row));
    // The flow's position is locked: nobody else claims meanwhile.
    if (taken.length > 0) await this.#session.unclaim(taken);
    if (fresh.length > 0) await this.#session.claim(fresh);
    return others;
  }

  /** Who has each row that its record does not get. */
  #assign(
    block: OutboundBlock,
    wanted: readonly Wanted[],
    { rows, open, owners }: Asked,
    failed: ReadonlySet<string>,
  ): ReadonlyMap<number, string> {
    if (open.length === 0) return new Map();
    const places = new Map(wanted.map(({ key }, index) => [key, index]));
    const keeps = (owner: string, row: string): boolean => {
      if (!this.#there.has(owner) || this.#kept.has(row)) return true;
      const place = places.get(owner);
      const ids = place === undefined ? undefined : rows[place]!.all;
      return ids?.whole.includes(row) === true || ids?.own.includes(row) === true;
    };
    const exchange = new RowExchange(owners, failed, (place, now, leaves) =>
      this.#rivalOf(
        block,
        wanted[place]!.key,
        rows[place]!.all,
        now,
        (owner, row) => this.#mayRival(block, owner) && (keeps(owner, row) || !leaves(owner)),
      ),
    );
    exchange.decide(new Map(open.map((index) => [index, { key: wanted[index]!.key, rows: rows[index]!.claims }])));
    for (const owner of exchange.handedOn) this.#handed.add(owner);
    return exchange.others;
  }

  /** Whether a record, by its key, has lost a row to another one of the batch. */
  hasHandedOn(key: string): boolean {
    return this.#handed.has(key);
  }

  /** What was just claimed and could not be written after all: who did not have the row before does not have it now. */
  async giveUp(block: OutboundBlock, wanted: readonly Wanted[]): Promise<void> {
    const claims = this.#idsOf(block, wanted).flatMap((row) => row.claims);
    const rows = claims.filter((row) => this.#fresh.delete(row));
    for (const row of rows) this.#kept.delete(row);
    if (rows.length > 0) await this.#session.unclaim(rows);
  }

  /**
   * Places in `wanted` of rows that a record which has gone may end: another one has not what the block writes there, nor,
   * where the row is deleted, anything else of it. `failed` are records whose newest state is not in. Asked when all is written.
   */
  async own(block: OutboundBlock, wanted: readonly Wanted[], failed: ReadonlySet<string>): Promise<number[]> {
    const { gone } = block;
    const removed = gone !== 'ignore' && gone.remove;
    const rows = this.#idsOf(block, wanted).map(({ all }) => all);
    const asked = rows.map(({ whole, own, others }) => [...whole, ...own, ...(removed ? others : [])]);
    const owners = rows.length === 0 ? new Map<string, string>() : await this.#session.claimed(asked.flat());
    const stays = (row: string, owner: string): boolean =>
      this.#kept.has(row) || failed.has(owner) || !this.#records.has(recordId(owner));
    return [...wanted.keys()].filter((index) => {
      const { key } = wanted[index]!;
      if (this.#rivalOf(block, key, rows[index]!, owners, () => true) !== undefined) return false;
      if (!removed) return true;
      return asked[index]!.every((row) => {
        const owner = owners.get(row) ?? key;
        return owner === key || !stays(row, owner);
      });
    });
  }

  /** Everything is written: what records do not have any more is nobody's. One that is not in keeps what it had. */
  async end(failed: Iterable<string>): Promise<void> {
    for (const key of failed) this.#records.delete(recordId(key));
    if (this.#records.size > 0) await this.#session.release([...this.#records], [...this.#kept]);
  }

  /** The record other than `key` that has what a block writes in a row, of those that count. */
  #rivalOf(
    block: OutboundBlock,
    key: string,
    { whole, own }: AllIds,
    owners: ReadonlyMap<string, string>,
    counts: (owner: string, row: string) => boolean,
  ): string | undefined {
    const isWhole = this.#claiming.get(block)!.wholeRow;
    for (const row of isWhole ? whole : own) {
      const owner = owners.get(row);
      // Of several that have columns of a row from the time of other blocks the first gets all of it.
      if (isWhole && owner === key) return undefined;
      if (owner !== undefined && owner !== key && counts(owner, row)) return owner;
    }
    for (const row of isWhole ? own : whole) {
      const owner = owners.get(row);
      if (isWhole && owner === key) return undefined;
      if (owner === undefined || owner === key) continue;
      if ((isWhole || (!this.#apart.has(block) && this.#mayRival(block, owner))) && counts(owner, row)) return owner;
    }
    return undefined;
  }

  /** Whether a record may have what the block writes, as far as its key tells: it may have it by blocks that are no more. */
  #mayRival(block: OutboundBlock, owner: string): boolean {
    let known = this.#mayHave.get(block);
    if (known === undefined) this.#mayHave.set(block, (known = new Map()));
    let may = known.get(owner);
    if (may === undefined) {
      const { key, fields } = this.#plan;
      const parts = JSON.parse(owner) as string[];
      const record = fields.map((_, index) => parts[key.indexOf(index)] ?? null);
      may = this.#claiming.get(block)!.rivals.some((rival) => rival.mayTake(record));
      known.set(owner, may);
    }
    return may;
  }

  /** Which rows a block goes to, by each name of the table. */
  #rowsOf({ write }: OutboundBlock): string[] {
    const [{ columns }] = rowNames(write) as [RowName];
    return namesOfTable(this.#tables, write.table).map((table) => JSON.stringify([table, columns]));
  }

  #idsOf(block: OutboundBlock, wanted: readonly Wanted[]): RowIds[] {
    const claiming = this.#claiming.get(block)!;
    return wanted.map((each) => new RowIds(claiming, each));
  }
}

/** Stands in place of an id where it is kept which columns rows have that are claimed as a whole. */
const COLUMNS = 'columns';

/** Begins what ids are made of; there was none in the first version, which went by other texts. */
const VERSION = 2;

function claimingOf(
  block: OutboundBlock,
  same: readonly OutboundBlock[],
  tables: readonly string[],
  wholeRow: boolean,
): Claiming {
  // Who has the row has all columns of it.
  const own = wholeRow ? [...new Set(same.flatMap(setsOf))].toSorted() : setsOf(block);
  const former = rowNames(block.write);
  return {
    tables,
    wholeRow,
    columns: former[0]!.columns,
    former,
    own,
    others: [...new Set(same.flatMap(setsOf))].filter((column) => !own.includes(column)),
    rivals: wholeRow ? same : same.filter((other) => setsOf(other).some((column) => own.includes(column))),
  };
}

/** Columns that a block sets; '' where it but makes rows. */
function setsOf({ write }: OutboundBlock): string[] {
  const names = write.columns.filter(({ role }) => role === 'set').map(({ name }) => name);
  return names.length === 0 ? [''] : names;
}

/** The same for the write of a block and for that which ends its rows. */
function rowNames({ columns }: OutboundWrite): RowName[] {
  const keys = columns
    .filter(({ role }) => role === 'key')
    .map(({ name, value }) => ({ name, inputs: isFind(value) ? value.where : [{ ...value, column: '' }] }));
  const nameOf = (ordered: typeof keys): RowName => ({
    columns: ordered.map(({ name }) => name),
    cells: ordered.flatMap(({ inputs }) => inputs.map(({ cell }) => cell)),
  });
  const sorted = inNameOrder(keys).map(({ name, inputs }) => ({
    name,
    inputs: inputs.toSorted((a, b) => (a.column < b.column ? -1 : 1)),
  }));
  const [name, given] = [nameOf(sorted), nameOf(keys)];
  return name.cells.join() === given.cells.join() ? [name] : [name, given];
}
