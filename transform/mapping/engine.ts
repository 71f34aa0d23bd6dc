/**
 * Runs a mapping over the changes of one source: keeps the rows it needs, finds what a change touches (through joins
 * too), and gives the contributions to records that changed. Pure: its state is what the stream said, and the same
 * frames give the same contributions. `apply` takes row changes, `flush` gives what they add up to.
 */
import { ReplicationError } from '../../core/errors.ts';
import type { RowChange, TableSchema, Value } from '../../core/frame.ts';
import { boundsOfMark } from '../../core/key-order.ts';
import { formatPosition, ORIGIN } from '../../core/position.ts';
import type { Lineage } from '../canonical/envelope.ts';
import { timestampOfMicros } from '../canonical/timestamp.ts';
import type { MappingPlan, TablePlan } from './block-plan.ts';
import { type ContributionChange } from './contribution-change.ts';
import { BlockState } from './block-state.ts';
import type { Cell } from './cell.ts';
import { rangeOf } from './key-range.ts';
import { createTableReader, type TableReader } from './table-reader.ts';
import type { StoredRow } from './table-store.ts';
import { filledSlots, formerKey } from './table-versions.ts';
import { mappingError } from './yaml-file.ts';

/** The change that made a contribution what it is. */
export interface Cause {
  readonly reader: TableReader;
  readonly key: string;
  /** The row that changed, as it is kept; undefined of those that wait to expire. */
  readonly stored: StoredRow | undefined;
  readonly position: string;
  readonly timeUs: number;
  /** The change itself, until the next flush; undefined when the transaction is too large to keep all of them. */
  readonly row: RowChange | undefined;
  /** Counts the changes that were taken, to tell which of a transaction's came last; 0 of those that wait to expire. */
  readonly serial: number;
}

/** Where a row change stands: position of its transaction as text, and commit time in microseconds since 1970. */
export interface ChangePlace {
  readonly position: string;
  readonly timeUs: number;
}

export interface EngineOptions {
  readonly source: string;
  readonly plan: MappingPlan;
  /** Bytes of rows that may be kept; more throws `transform_state_full`. */
  readonly stateBytes?: number;
  /** Rows of a ledger that may be kept though nothing is told of them. */
  readonly leftOutRows?: number;
}

/** A move that is planned today is done some day: so many are kept, and the oldest of them let go. */
const LEFT_OUT_ROWS = 100_000;

/** Most bytes of changes that are kept for the quarantine until their transaction ends. */
const KEPT_CHANGE_BYTES = 16 << 20;

interface Scan {
  readonly id: string;
  readonly seen: Set<string>;
  /** Of a range of keys, and not of the whole table. */
  readonly isRange: boolean;
}

export class MappingEngine {
  readonly #options: EngineOptions;
  readonly #blocks: readonly BlockState[];
  readonly #readers = new Map<string, { version: string; reader: TableReader | undefined }>();
  /** Tables that a snapshot is reading: keys it has brought, so that the others can be removed at its end. */
  readonly #scans = new Map<TablePlan, Scan>();
  readonly #scanned = new Set<TablePlan>();
  /** The version of each table that its newest change has. */
  readonly #versions = new Map<TablePlan, TableReader>();
  /** How rows were called that are there under a key which their table no longer has. */
  readonly #formerKeys = new Map<TablePlan, (image: readonly Value[]) => string | undefined>();
  /** Whether what a new version of a table says of rows that are there is true: not of rows that were read since. */
  followsVersions = true;
  /** Of tables of events: with how many rows it is looked next which can go. */
  readonly #roomFor = new Map<TablePlan, number>();
  #keptBytes = 0;
  #serial = 0;
  /** Of the change that was taken last. */
  #place: ChangePlace = { position: formatPosition(ORIGIN), timeUs: 0 };
  /** Every table has been read whole, and what was missing then has been told. */
  #tellsWaiting = false;
  #timeUs = Number.NaN;
  #time = '';

  constructor(options: EngineOptions) {
    this.#options = options;
    const { blocks, events } = options.plan;
    this.#blocks = blocks.map((block, index) => new BlockState(block, index, events.has(block.inputs[0]!.table)));
  }

  /** Estimated bytes of the rows kept, and of what they give. */
  get stateBytes(): number {
    let bytes = 0;
    for (const table of this.#options.plan.tables) bytes += table.store.bytes;
    for (const block of this.#blocks) bytes += block.bytes;
    return bytes;
  }

  /** The state of each block, and the plan: for whoever saves the state, or brings a saved one back. */
  get blocks(): readonly BlockState[] {
    return this.#blocks;
  }

  get plan(): MappingPlan {
    return this.#options.plan;
  }

  /** Versions of source tables that rows were read with last. */
  *readTables(): Generator<TableSchema> {
    for (const { reader } of this.#readers.values()) if (reader !== undefined) yield reader.table;
  }

  /** The reader of a table that is read, by `schema.name`. */
  readerOf(name: string): TableReader | undefined {
    return this.#readers.get(name)?.reader;
  }

  /** A snapshot is reading a table: what it has brought so far is no state to save. */
  get scanning(): boolean {
    return this.#scans.size > 0;
  }

  /** Tables that a snapshot has read whole, by their numbers in the plan. */
  scannedTables(): number[] {
    return [...this.#scanned].map((table) => this.plan.tables.indexOf(table));
  }

  restoreScanned(tables: readonly number[]): void {
    for (const table of tables) this.#scanned.add(this.plan.tables[table]!);
  }

  /** The state is one that was saved: what was missing then has been told. */
  restored(): void {
    this.#tellsWaiting = this.complete;
    if (this.#tellsWaiting) for (const block of this.#blocks) block.tellsWaiting = true;
  }

  /** Rows that wait for a row they join and that has not come. */
  get waiting(): number {
    return this.#blocks.reduce((sum, block) => sum + block.waiting, 0);
  }

  /** Takes up a version of a table that `readTables` gave. Throws as `reads` does. */
  restoreTable(table: TableSchema): void {
    const reader = this.#reader(table);
    if (reader !== undefined) this.#versions.set(reader.plan, reader);
  }

  /** Whether the mapping reads a table. Throws `mapping_invalid` when it does and the table does not fit. */
  reads(table: TableSchema): boolean {
    return this.#reader(table) !== undefined;
  }

  /** Whether every table that the mapping must have has been read whole by a snapshot. */
  get complete(): boolean {
    return this.#options.plan.tables.every((table) => table.optional || this.#scanned.has(table));
  }

  /** Rows that `where` left out, or that had expired, since the last call. */
  takeFiltered(): number {
    const { blocks, entity } = this.#options.plan;
    return this.#blocks.reduce((sum, state, index) => {
      const filtered = state.takeFiltered();
      return entity === undefined || blocks[index]!.block.entity.name === entity ? sum + filtered : sum;
    }, 0);
  }

  /** Takes one row change of a frame. Throws `mapping_invalid`, `transform_state_full` or `frame_unreadable`. */
  apply(change: RowChange, tables: readonly TableSchema[], place: ChangePlace): void {
    const [op, index, after, beforeKind, before] = change;
    if (op === 'm') return;
    const reader = this.#reader(tables[index]!);
    if (reader === undefined) return;
    this.#place = place;
    if (this.#versions.get(reader.plan) !== reader) this.#begin(reader, place);
    switch (op) {
      case 'i':
      case 'r':
      case 'u': {
        const key = reader.keyOf(after!, before);
        if (op === 'u' && before !== undefined) {
          const earlier = reader.keyOf(before);
          if (earlier !== key) {
            // A row that gets another key takes along what the source did not send again.
            const { rows } = reader.plan.store;
            const kept = rows.get(earlier)?.values;
            this.#remove(reader, earlier, place);
            const values = reader.read(after!, kept, beforeKind === 'f' ? before : undefined);
            this.#put(reader, key, rows.get(key), values, place, change);
            return;
          }
        }
        const row = reader.plan.store.rows.get(key);
        const kept = row?.values ?? this.#underFormerKey(reader, after!, place);
        const values = reader.read(after!, kept, beforeKind === 'f' ? before : undefined);
        this.#put(reader, key, row, values, place, change);
        return;
      }
      case 'd':
        this.#remove(reader, reader.keyOf(before!), place);
        return;
      case 't':
        for (const key of reader.plan.store.rows.keys()) this.#remove(reader, key, place);
        return;
      case 's':
        this.#mark(reader, after!, place);
    }
  }

  /** Lets rows expire whose time has come by `nowUs`. */
  advance(nowUs: number): void {
    for (const block of this.#blocks) block.advance(nowUs);
  }

  /** Contributions that changed since the last call. Call it where no transaction is open. */
  flush(nowUs: number): ContributionChange[] {
    const changes: ContributionChange[] = [];
    for (const block of this.#blocks) block.flush(nowUs, (cause) => this.#lineage(cause), changes);
    if (!this.#tellsWaiting && this.complete) this.#tellWaiting(changes);
    this.#removeTold();
    this.#keptBytes = 0;
    return changes;
  }

  /** What a row joins and is not there once all tables have been read whole is not just late. */
  #tellWaiting(into: ContributionChange[]): void {
    this.#tellsWaiting = true;
    for (const [index, block] of this.#blocks.entries()) {
      const reader = this.#versions.get(this.plan.blocks[index]!.inputs[0]!.table)!;
      const causeOf = (stored: StoredRow): Cause => this.#standing(reader, stored, this.#place);
      block.tellWaiting(causeOf, (cause) => this.#lineage(cause), into);
    }
  }

  /** What stands for the change of a row that nobody changed just now, or of a record that no row makes any more. */
  #standing(reader: TableReader, stored: StoredRow | undefined, { position, timeUs }: ChangePlace): Cause {
    return { reader, key: stored?.key ?? '', stored, position, timeUs, row: undefined, serial: 0 };
  }

  /**
   * Works out anew what all rows make that are there, where records are as another mapping made them: adds to `into` what
   * differs from that. Nobody said it just now, `place` is where the rows stand. Stops now and then, for others to have
   * their turn.
   */
  *restate(nowUs: number, place: ChangePlace, into: ContributionChange[]): Generator<void> {
    for (const [index, { inputs }] of this.plan.blocks.entries()) {
      const reader = this.#versions.get(inputs[0]!.table);
      // Of a table that nothing was read of there are neither rows nor records.
      if (reader === undefined) continue;
      const causeOf = (stored: StoredRow | undefined): Cause => this.#standing(reader, stored, place);
      yield* this.#blocks[index]!.restate(nowUs, causeOf, (cause) => this.#lineage(cause), into);
    }
    this.#place = place;
    if (!this.#tellsWaiting && this.complete) this.#tellWaiting(into);
    this.#removeTold();
  }

  /** Only when all blocks are done: several may tell of one row. */
  #removeTold(): void {
    for (const [index, { inputs }] of this.plan.blocks.entries())
      for (const key of this.#blocks[index]!.takeTold()) inputs[0]!.table.store.remove(key);
    for (const table of this.plan.events) this.#removeLeftOut(table);
  }

  /** Rows of which nothing is told would pile up as well: cancelled moves, say. Looks at them seldom, and then makes some room. */
  #removeLeftOut(table: TablePlan): void {
    const { leftOutRows: most = LEFT_OUT_ROWS } = this.#options;
    const { rows } = table.store;
    if (rows.size <= (this.#roomFor.get(table) ?? most)) return;
    const blocks = this.#blocks.filter((_, index) => this.plan.blocks[index]!.inputs[0]!.table === table);
    const room = most >> 4;
    let surplus = rows.size - most + room;
    for (const row of rows.values()) {
      if (surplus <= 0) break;
      if (!blocks.every((block) => block.leavesOut(row))) continue;
      table.store.remove(row.key);
      surplus -= 1;
    }
    this.#roomFor.set(table, Math.max(most, rows.size + room));
  }

  #reader(table: TableSchema): TableReader | undefined {
    const id = `${table.schema}.${table.name}`;
    const known = this.#readers.get(id);
    if (known?.version === table.version) return known.reader;
    const { plan } = this.#options;
    const matching = plan.tables.find((candidate) => candidate.matches(table));
    const reader = matching === undefined ? undefined : createTableReader(plan.mapping, matching, table);
    this.#readers.set(id, { version: table.version, reader });
    return reader;
  }

  /** A version of a table begins: rows that are there have what it says of them. */
  #begin(reader: TableReader, place: ChangePlace): void {
    const { plan, table } = reader;
    const before = this.#versions.get(plan);
    // Rows of two tables would be taken for each other's. One that was renamed is gone under its old name.
    if (before !== undefined && before.name !== reader.name)
      throw mappingError(this.plan.mapping, [
        { path: plan.path, message: `${plan.names.join(' or ')} fits both ${before.name} and ${reader.name}` },
      ]);
    this.#versions.set(plan, reader);
    if (!this.followsVersions || before === undefined || before.table.version === table.version) return;
    const former = formerKey(before, reader);
    if (former !== undefined) this.#formerKeys.set(plan, former);
    const filled = filledSlots(before, reader);
    if (filled.size === 0) return;
    for (const row of plan.store.rows.values()) {
      const values = row.values.map((cell, slot) => filled.get(slot) ?? (filled.has(slot) ? null : cell));
      if (sameCells(row.values, values)) continue;
      this.#update(plan, row, values, this.#cause(reader, row, place));
    }
  }

  /** What is kept of a row that is there under a key which its table no longer has; it is not there any more then. */
  #underFormerKey(reader: TableReader, image: readonly Value[], place: ChangePlace): readonly Cell[] | undefined {
    const key = this.#formerKeys.get(reader.plan)?.(image);
    const row = key === undefined ? undefined : reader.plan.store.rows.get(key);
    if (row !== undefined) this.#remove(reader, row.key, place);
    return row?.values;
  }

  #cause(reader: TableReader, stored: StoredRow, { position, timeUs }: ChangePlace, row?: RowChange): Cause {
    return { reader, key: stored.key, stored, position, timeUs, row, serial: ++this.#serial };
  }

  #update(plan: TablePlan, row: StoredRow, values: readonly Cell[], cause: Cause): void {
    for (const block of this.#blocks) block.touch(plan, row, cause);
    plan.store.update(row, values);
    for (const block of this.#blocks) block.touchAgain(plan, row, cause);
  }

  /** `old` is the row that is there under the key. */
  #put(
    reader: TableReader,
    key: string,
    old: StoredRow | undefined,
    values: readonly Cell[],
    place: ChangePlace,
    change: RowChange,
  ): void {
    const { plan } = reader;
    if (this.#scans.size > 0) this.#scans.get(plan)?.seen.add(key);
    // A row that is not there has been told of already, unless it is new.
    if (old === undefined && change[0] !== 'i' && this.plan.events.has(plan) && this.#scanned.has(plan)) return;
    const keep = this.#keptBytes < KEPT_CHANGE_BYTES;
    if (keep) this.#keptBytes += changeBytes(change);
    if (old !== undefined && sameCells(old.values, values)) return;
    const before = plan.store.bytes;
    const row = old ?? plan.store.add(key, values);
    const cause = this.#cause(reader, row, place, keep ? change : undefined);
    if (old !== undefined) this.#update(plan, old, values, cause);
    else for (const block of this.#blocks) block.touch(plan, row, cause);
    if (plan.store.bytes <= before) return;
    const limit = this.#options.stateBytes;
    if (limit !== undefined && this.stateBytes > limit)
      throw new ReplicationError(
        'transform_state_full',
        `mapping ${this.#options.plan.mapping.name} of source ${this.#options.source} keeps more than ${limit} bytes`,
      );
  }

  #remove(reader: TableReader, key: string, place: ChangePlace): void {
    const row = reader.plan.store.rows.get(key);
    if (row === undefined) return;
    const cause = this.#cause(reader, row, place);
    for (const block of this.#blocks) block.touch(reader.plan, row, cause);
    reader.plan.store.remove(key);
  }

  /** Between its marks a snapshot reads a table, or a range of its keys: what it did not bring, and nothing changed, is gone. */
  #mark(reader: TableReader, content: readonly Value[], place: ChangePlace): void {
    const { plan } = reader;
    const [id, mark] = content.map(String) as [string, string];
    const scan = this.#scans.get(plan);
    const isMeant = scan?.id === id && scan.isRange === mark.endsWith('_range');
    switch (mark) {
      case 'begin':
        this.#scans.set(plan, { id, seen: new Set(), isRange: false });
        return;
      case 'begin_range':
        // Where the whole table is being read, that says what is in the range.
        if (scan?.isRange !== false) this.#scans.set(plan, { id, seen: new Set(), isRange: true });
        return;
      // It is not read to its end, so that what was not seen may be there.
      case 'cancel':
        if (scan?.isRange === false) this.#scans.delete(plan);
        return;
      case 'cancel_range':
        if (isMeant) this.#scans.delete(plan);
        return;
      case 'gone':
        this.#scans.delete(plan);
        this.#versions.delete(plan);
        return;
      case 'end':
      case 'end_range':
        if (isMeant) this.#endScan(reader, scan, content, place);
    }
  }

  #endScan(reader: TableReader, { seen, isRange }: Scan, content: readonly Value[], place: ChangePlace): void {
    const { plan, table } = reader;
    this.#scans.delete(plan);
    let lies: ((key: string) => boolean) | undefined = () => true;
    if (isRange) {
      const bounds = boundsOfMark(content);
      lies = bounds === undefined ? undefined : rangeOf(table, bounds);
    } else {
      this.#scanned.add(plan);
      this.#formerKeys.delete(plan);
    }
    if (lies === undefined) return;
    for (const key of plan.store.rows.keys()) if (!seen.has(key) && lies(key)) this.#remove(reader, key, place);
  }

  /** The changes of a transaction, and of a chunk that is read, have one time. */
  #timeText(timeUs: number): string {
    if (timeUs !== this.#timeUs) {
      this.#timeUs = timeUs;
      this.#time = timestampOfMicros(timeUs);
    }
    return this.#time;
  }

  #lineage(cause: Cause): Lineage {
    const { reader, key, stored } = cause;
    if (stored !== undefined && stored.keyReader !== reader) {
      stored.keyReader = reader;
      stored.keyJson = reader.keyJson(key);
    }
    return {
      source: this.#options.source,
      table: reader.name,
      key: stored === undefined ? reader.keyJson(key) : stored.keyJson,
      position: cause.position,
      time: this.#timeText(cause.timeUs),
    };
  }
}

function changeBytes(change: RowChange): number {
  let bytes = 0;
  for (const value of change[2]!) bytes += typeof value === 'string' ? value.length + 16 : 8;
  return bytes;
}

function sameCells(a: readonly Cell[], b: readonly Cell[]): boolean {
  for (let i = 0; i < b.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
