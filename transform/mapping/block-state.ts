/** The state of one block: which rows make which records, and what changed since the last flush. */
import type { Lineage } from '../canonical/envelope.ts';
import { valueClass } from '../canonical/field-type.ts';
import { isCanonicalTimestamp, microsOfTimestamp } from '../canonical/timestamp.ts';
import type { Violation } from '../canonical/validate.ts';
import type { CompiledBlock, TablePlan } from './block-plan.ts';
import { Fault, isFault, type Cell } from './cell.ts';
import { NOTHING_HELD, WHOLE_RECORD, type ContributedValues, type ContributionChange } from './contribution-change.ts';
import { Contributor } from './contributor.ts';
import type { Cause } from './engine.ts';
import type { Row } from './evaluate.ts';
import { ExpiryQueue } from './expiry-queue.ts';
import { createRecord, type Member, type RecordState } from './record-state.ts';
import type { StoredRow } from './table-store.ts';

/** A row that a flush looks at again. */
interface Dirty {
  /** The newest under its key; it may be gone. */
  row: StoredRow;
  /** Its part in a record so far; where a row was deleted and inserted again, that of the one that was. */
  readonly member: Member | undefined;
  cause: Cause;
}

/** Measured in a heap of 50,000 records: what a row's part in a record takes, and what a record's contribution does. */
const MEMBER_BYTES = 200;
const GIVEN_BYTES = 300;
const SLOT_BYTES = 8;
/** So many rows are worked out anew, a few milliseconds, before others have their turn. */
const RESTATED_AT_ONCE = 1000;

export class BlockState {
  readonly #block: CompiledBlock;
  readonly #contributor: Contributor;
  #dirty = new Map<string, Dirty>();
  /** Rows that have a part in a record, and where it stands with the row. */
  #members = 0;
  readonly #part: number;
  readonly #records = new Map<string, RecordState>();
  /** Rows that cannot be mapped, by the record under which they are held. */
  readonly #broken = new Map<string, string>();
  /** Rows without a row that they join, by the number of the input. */
  readonly #waiting = new Map<string, number>();
  /** The same, as it has been told. */
  readonly #toldWaiting = new Map<string, number>();
  /** All tables have been read whole, and what was not there then has been told. */
  tellsWaiting = false;
  readonly #expiry = new ExpiryQueue();
  #expiredUs = 0;
  #filtered = 0;
  /** Inputs by the table that they read. */
  readonly #inputsOf = new Map<TablePlan, number[]>();
  /** Cells of a row before anything is known of it: copied, so that every array has one shape. */
  readonly #noCells: readonly (Cell | undefined)[];
  readonly #noKeys: readonly string[];
  /** Rows are let go once they have been told of; undefined where they are kept. */
  #told: string[] | undefined;

  /** `events`: rows tell of what happened, and need not be kept for longer than that. */
  constructor(block: CompiledBlock, index: number, events = false) {
    this.#block = block;
    const { entity } = block.block;
    this.#noCells = [...block.fields, ...block.same].map(() => undefined);
    this.#noKeys = entity.key.map(() => '');
    this.#contributor = new Contributor(block, index);
    this.#part = block.inputs[0]!.table.store.addBlock();
    this.#told = events ? [] : undefined;
    for (const [input, { table }] of block.inputs.entries())
      this.#inputsOf.set(table, [...(this.#inputsOf.get(table) ?? []), input]);
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** Estimated bytes held beside the rows themselves. */
  get bytes(): number {
    const records = this.#records.size * (GIVEN_BYTES + SLOT_BYTES * this.#block.fields.length);
    return this.#members * MEMBER_BYTES + records + this.#expiry.bytes;
  }

  /** Rows that have been told of and let go since the last call. */
  takeTold(): readonly string[] {
    const told = this.#told;
    if (told === undefined || told.length === 0) return [];
    this.#told = [];
    return told;
  }

  /** Whether nothing is to be told of a row as it is, now or once others come. */
  leavesOut({ key, parts }: StoredRow): boolean {
    return parts[this.#part] === undefined && !this.#waiting.has(key) && !this.#broken.has(key);
  }

  /** Rows that were left out since the last call. */
  takeFiltered(): number {
    const filtered = this.#filtered;
    this.#filtered = 0;
    return filtered;
  }

  /** Notes that a row changes (call it with the old and with the new values): what depends on it is worked out anew. */
  touch(table: TablePlan, row: StoredRow, cause: Cause): void {
    const inputs = this.#inputsOf.get(table);
    if (inputs !== undefined) for (const input of inputs) this.#touchInput(input, row, cause);
  }

  /** As `touch`, once a row has its new values, where it was called with the old ones. */
  touchAgain(table: TablePlan, row: StoredRow, cause: Cause): void {
    const inputs = this.#inputsOf.get(table);
    if (inputs !== undefined) for (const input of inputs) if (input !== 0) this.#touchInput(input, row, cause);
  }

  #touchInput(input: number, row: StoredRow, cause: Cause): void {
    if (input === 0) {
      const there = this.#dirty.get(row.key);
      if (there === undefined) this.#dirty.set(row.key, { row, member: row.parts[this.#part], cause });
      else {
        there.row = row;
        there.cause = cause;
      }
      return;
    }
    const { forward, reverse, parent } = this.#block.inputs[input]!;
    const key = forward.keyOf(row.values);
    if (key === undefined) return;
    for (const above of reverse.rowsOf(key)) this.#touchInput(parent, above, cause);
  }

  advance(nowUs: number): void {
    const { rows } = this.#block.inputs[0]!.table.store;
    for (const { key, cause } of this.#expiry.due(nowUs)) {
      const row = rows.get(key);
      if (row !== undefined && !this.#dirty.has(key)) this.#touchInput(0, row, cause);
    }
  }

  /** The time at which a row expired last, of those that have been seen; 0 where none has. */
  get expiredUs(): number {
    return this.#expiredUs;
  }

  /** What waits to expire: saved with a state, since a record tells of the change that it came from. */
  expiring(): Iterable<{ untilUs: number; key: string; cause: Cause }> {
    return this.#expiry.entries();
  }

  /** Records of which something is held. */
  *holding(): Generator<[key: string, held: ReadonlyMap<string, readonly Violation[]>]> {
    for (const { key, held } of this.#records.values()) if (held.size > 0) yield [key, held];
  }

  /** Rows that cannot be mapped, as far as their last good values go on being served. */
  *servedBroken(): Generator<[row: string, record: string, cells: Member['cells']]> {
    const { rows } = this.#block.inputs[0]!.table.store;
    for (const key of this.#broken.keys()) {
      const member = rows.get(key)?.parts[this.#part];
      if (member !== undefined) yield [key, member.record.key, member.cells];
    }
  }

  restoreServed(row: string, key: string, cells: Member['cells']): void {
    const record = this.#records.get(key) ?? this.#record(key.split('\u001f'));
    const stored = this.#block.inputs[0]!.table.store.rows.get(row)!;
    this.#join(stored, { record, cells });
  }

  /** Keys of the rows that cannot be mapped. */
  brokenRows(): string[] {
    return [...this.#broken.keys()];
  }

  /** Rows that wait, and the number of the input that they lack, as far as that has been told. */
  toldWaiting(): [row: string, input: number][] {
    return [...this.#toldWaiting];
  }

  restoreWaiting(rows: readonly (readonly [row: string, input: number])[]): void {
    for (const [row, input] of rows) this.#toldWaiting.set(row, input);
  }

  restoreBroken(rows: readonly string[]): void {
    for (const key of rows) this.#broken.set(key, `\0row\0${key}`);
  }

  /**
   * Takes rows of a saved state as they were evaluated at `nowUs`, all but those that cannot be mapped; what expires of them
   * is given by itself.
   */
  restoreRows(nowUs: number): void {
    const { store } = this.#block.inputs[0]!.table;
    for (const row of store.rows.values()) {
      if (this.#broken.has(row.key)) continue;
      const member = this.#member(row, undefined, undefined, nowUs);
      if (member === undefined) continue;
      if (isBroken(member)) {
        this.#broken.set(row.key, `\0row\0${row.key}`);
        continue;
      }
      this.#join(row, member);
    }
    this.#filtered = 0;
  }

  /** Takes what a record contributed last, and what of it is held. */
  restoreRecord(key: string, values: ContributedValues | undefined, held: RecordState['held'] = NOTHING_HELD): void {
    const record = this.#records.get(key) ?? this.#record(key.split('\u001f'));
    if (values !== undefined) record.given = this.#block.fields.map(({ field }) => values[field]);
    if (held.size > 0) record.held = held;
  }

  /** A state that was saved when all times of a row were kept has several, and those of rows that have gone. */
  restoreExpiry(untilUs: number, key: string, cause: Cause): void {
    if (this.#block.inputs[0]!.table.store.rows.has(key)) this.#expiry.setEarliest(untilUs, key, cause);
  }

  flush(nowUs: number, lineageOf: (cause: Cause) => Lineage, into: ContributionChange[]): void {
    if (this.#dirty.size === 0) return;
    const records: RecordState[] = [];
    for (const [key, dirty] of this.#dirty) this.#evaluate(key, dirty, nowUs, records, lineageOf, into);
    // A map that is cleared keeps what it had within reach of the collector, until all of the heap is collected.
    this.#dirty = new Map();
    for (const record of records) this.#settle(record, lineageOf, into);
  }

  /** All tables have been read whole: tells of the rows that wait, and from now on of each as it comes to. */
  tellWaiting(
    causeOf: (row: StoredRow) => Cause,
    lineageOf: (cause: Cause) => Lineage,
    into: ContributionChange[],
  ): void {
    this.tellsWaiting = true;
    const { rows } = this.#block.inputs[0]!.table.store;
    for (const key of this.#waiting.keys()) this.#tellOf(key, causeOf(rows.get(key)!), lineageOf, into);
  }

  /** Tells whether a row waits, where that is not as it was told. */
  #tellOf(key: string, cause: Cause, lineageOf: (cause: Cause) => Lineage, into: ContributionChange[]): void {
    const number = this.#waiting.get(key);
    if (number === this.#toldWaiting.get(key)) return;
    const tell = (held: RecordState['held']): void => {
      into.push(this.#contributor.change(`\0waits\0${key}`, undefined, undefined, held, cause, lineageOf));
    };
    if (number === undefined) {
      this.#toldWaiting.delete(key);
      tell(NOTHING_HELD);
      return;
    }
    this.#toldWaiting.set(key, number);
    const { name, table } = this.#block.inputs[number]!;
    const violation: Violation = {
      entity: this.#block.block.entity.name,
      key: cause.reader.keyJson(key),
      field: `join ${name}`,
      valueClass: 'not there',
      rule: `must find its row of ${table.names.join(' or ')}`,
    };
    tell(new Map([[WHOLE_RECORD, [violation]]]));
  }

  /**
   * Works out anew what all rows give, where records are as another mapping made them: adds to `into` what differs. `causeOf`
   * gives what stands for the change of a row, or of a record that no row makes any more.
   */
  *restate(
    nowUs: number,
    causeOf: (row: StoredRow | undefined) => Cause,
    lineageOf: (cause: Cause) => Lineage,
    into: ContributionChange[],
  ): Generator<void> {
    const records: RecordState[] = [];
    let done = 0;
    for (const row of this.#block.inputs[0]!.table.store.rows.values()) {
      const member = row.parts[this.#part];
      this.#evaluate(row.key, { row, member, cause: causeOf(row) }, nowUs, records, lineageOf, into);
      if (++done % RESTATED_AT_ONCE === 0) yield;
    }
    for (const record of this.#records.values()) note(records, record, record.cause ?? causeOf(undefined));
    this.#filtered = 0;
    for (const record of records) {
      this.#settle(record, lineageOf, into);
      if (++done % RESTATED_AT_ONCE === 0) yield;
    }
  }

  /** Works out what the rows of a record contribute, and lets go what is done with. */
  #settle(record: RecordState, lineageOf: (cause: Cause) => Lineage, into: ContributionChange[]): void {
    const cause = record.cause!;
    record.cause = undefined;
    const outcome = this.#contributor.contribute(record, cause, lineageOf, into);
    if (outcome === 'gone') this.#records.delete(record.key);
    else if (outcome === 'given' && this.#told !== undefined) this.#letGo(record, this.#told);
  }

  /** Works out what one row gives, and notes the records that it leaves and joins. */
  #evaluate(
    key: string,
    { row, member: old, cause }: Dirty,
    nowUs: number,
    records: RecordState[],
    lineageOf: (cause: Cause) => Lineage,
    into: ContributionChange[],
  ): void {
    if (row.gone && this.#waiting.size > 0) this.#waiting.delete(key);
    if (this.#block.expires !== undefined) this.#expiry.delete(key);
    const member = row.gone ? undefined : this.#member(row, old, cause, nowUs);
    if (this.tellsWaiting) this.#tellOf(key, cause, lineageOf, into);
    if (isBroken(member)) {
      // A row that was inserted again serves what the one before did.
      if (old !== undefined) row.parts[this.#part] = old;
      // The row's last good values, if it has any, go on being served.
      const held = `\0row\0${key}`;
      this.#broken.set(key, held);
      const whole = new Map([[WHOLE_RECORD, [member]]]);
      into.push(this.#contributor.change(held, undefined, undefined, whole, cause, lineageOf));
      return;
    }
    const held = this.#broken.size === 0 ? undefined : this.#broken.get(key);
    if (held !== undefined) {
      this.#broken.delete(key);
      into.push(this.#contributor.change(held, undefined, undefined, NOTHING_HELD, cause, lineageOf));
    }
    if (old !== undefined) {
      note(records, old.record, cause);
      if (old === member) {
        row.parts[this.#part] = old;
        return;
      }
      old.record.rows.delete(key);
      row.parts[this.#part] = undefined;
      this.#members -= 1;
    }
    if (member === undefined) return;
    note(records, member.record, cause);
    this.#join(row, member);
  }

  #join(row: StoredRow, member: Member): void {
    row.parts[this.#part] = member;
    this.#members += 1;
    member.record.rows.set(row.key, member);
  }

  /**
   * The row's part in a record: `old`, with the cells that it has now, where it still belongs to the same; undefined when
   * it has none; a violation when it cannot be told, which leaves `old` as it was. Without a cause the row is one of a saved
   * state: its key is known to be good, and what expires is given by itself.
   */
  #member(row: Row, old: Member | undefined, cause: Cause | undefined, nowUs: number): Member | Violation | undefined {
    const { inputs, where, expires, keys, fields, same, block } = this.#block;
    if (this.#waiting.size > 0) this.#waiting.delete(row.key);
    const rows: (Row | null)[] = [row];
    for (let i = 1; i < inputs.length; i++) {
      const { parent, reverse, forward, optional } = inputs[i]!;
      const above = rows[parent]!;
      const key = above === null ? undefined : reverse.keyOf(above.values);
      const found = key === undefined ? undefined : forward.rowOf(key);
      // A reference that is there and leads nowhere yet: the row waits until what it needs has come.
      if (found === undefined && key !== undefined && !optional) {
        if (!this.#isLeftOut(rows)) this.#waiting.set(row.key, i);
        return undefined;
      }
      rows.push(found ?? null);
    }
    const broken = (field: string, fault: Fault): Violation => ({
      entity: block.entity.name,
      key: cause?.reader.keyJson(row.key) ?? '',
      field,
      valueClass: fault.valueClass,
      rule: fault.rule,
    });
    const counts = where?.(rows) ?? true;
    if (counts === false) {
      this.#filtered += 1;
      return undefined;
    }
    if (counts !== true) return broken('where', counts);
    if (expires !== undefined) {
      const until = expires(rows);
      if (isFault(until)) return broken('expires', until);
      if (until !== null) {
        if (!isCanonicalTimestamp(until)) return broken('expires', new Fault('must be a time', valueClass(until)));
        const untilUs = microsOfTimestamp(until);
        if (untilUs <= nowUs) {
          if (untilUs > this.#expiredUs) this.#expiredUs = untilUs;
          this.#filtered += 1;
          return undefined;
        }
        if (cause !== undefined) this.#expiry.set(untilUs, row.key, waitingCause(cause));
      }
    }
    const keyValues = old?.record.keyValues;
    let kept = 0;
    // A key that has been found good is kept as it is, and with it the text of the record.
    if (keyValues !== undefined) while (kept < keys.length && (keys[kept]!(rows) ?? '') === keyValues[kept]) kept += 1;
    let member = old;
    if (keyValues === undefined || kept < keys.length) {
      const values = keyValues?.slice() ?? this.#noKeys.slice();
      for (let position = kept; position < keys.length; position++) {
        const cell = keys[position]!(rows);
        const name = block.entity.key[position]!;
        if (isFault(cell)) return broken(name, cell);
        const value = cell ?? '';
        const { type } = block.entity.fields[block.entity.keyIndexes[position]!]!;
        const fault = cause === undefined ? undefined : type.fault(value);
        if (fault !== undefined) return broken(name, new Fault(fault, valueClass(cell)));
        values[position] = value;
      }
      const record = this.#record(values);
      if (record !== old?.record) member = { record, cells: this.#noCells.slice() };
    }
    const { cells } = member!;
    for (let position = 0; position < fields.length; position++) {
      const { evaluate, counts: counted } = fields[position]!;
      const included = counted === undefined ? true : counted(rows);
      cells[position] = included === true ? evaluate(rows) : included === false ? undefined : included;
    }
    for (let number = 0; number < same.length; number++) cells[fields.length + number] = same[number]!.evaluate(rows);
    return member;
  }

  /** Whether `where` leaves a row out whatever the inputs are that are not among `rows`. */
  #isLeftOut(rows: readonly (Row | null)[]): boolean {
    return this.#block.whereParts.some(({ inputs, test }) => inputs <= rows.length && test(rows) === false);
  }

  #record(keyValues: readonly string[]): RecordState {
    const key = keyValues.join('\u001f');
    let record = this.#records.get(key);
    if (record === undefined) this.#records.set(key, (record = createRecord(keyValues)));
    return record;
  }

  #letGo(record: RecordState, told: string[]): void {
    const { rows } = this.#block.inputs[0]!.table.store;
    for (const row of record.rows.keys()) {
      const stored = rows.get(row);
      if (stored !== undefined) stored.parts[this.#part] = undefined;
      this.#expiry.delete(row);
      this.#members -= 1;
      told.push(row);
    }
    this.#records.delete(record.key);
  }
}

/**
 * Notes that a record is to be worked out anew. Of several changes the last one is the cause, however the rows that they
 * touch are found: a state that was brought back must find the same.
 */
function note(records: RecordState[], record: RecordState, cause: Cause): void {
  const there = record.cause;
  if (there === undefined) records.push(record);
  if (there === undefined || isLater(cause, there)) record.cause = cause;
}

/** What stands for a change until a row expires: without rows, which may go before. */
function waitingCause(cause: Cause): Cause {
  return { ...cause, stored: undefined, row: undefined, serial: 0 };
}

function isLater(a: Cause, b: Cause): boolean {
  if (a.timeUs !== b.timeUs) return a.timeUs > b.timeUs;
  if (a.serial !== b.serial) return a.serial > b.serial;
  return a.reader.name === b.reader.name ? a.key > b.key : a.reader.name > b.reader.name;
}

function isBroken(member: Member | Violation | undefined): member is Violation {
  return member !== undefined && 'rule' in member;
}
