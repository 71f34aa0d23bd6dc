/**
 * The state of a flow as lines of JSON, and back: rows that mappings keep, what they contributed, the records, what is held
 * and what waits. What follows from those is not written: it is worked out again. Everything is as at one moment, between
 * two transactions of every source.
 */
import { ReplicationError } from '../core/errors.ts';
import type { TableSchema } from '../core/frame.ts';
import type { Entity, RecordValues } from './canonical/entity.ts';
import type { Violation } from './canonical/validate.ts';
import type { FlowState } from './flow-state.ts';
import type { Cell } from './mapping/cell.ts';
import { restoredCell, savedCell, type SavedCell } from './mapping/saved-row.ts';
import type { TableStore } from './mapping/table-store.ts';
import type { HeldGroup } from './ownership/resolved.ts';
import type { Resolver } from './ownership/resolver.ts';
import {
  givenKeys,
  RecordsReader,
  RecordsWriter,
  restoredValues,
  savedValues,
  type RecordsLine,
  type RestoredRecord,
  type SavedValues,
} from './saved-records.ts';

/** Rises when a state that was saved before cannot be read any more: then it is made from frames again. */
export const STATE_VERSION = 2;
/** Rows and records that stand in one line. */
const PER_LINE = 256;

interface SavedExpiry {
  readonly until: number;
  readonly row: string;
  readonly table: string;
  readonly key: string;
  readonly position: string;
  readonly time: number;
}

type Held = readonly (readonly [group: string, violations: readonly Violation[]])[];

/** One line. Sources, tables and blocks are numbers in the order of the plan. */
export type Line =
  | ['entity', name: string, key: readonly string[]]
  | ['table', source: number, schema: TableSchema]
  | ['scanned', source: number, tables: readonly number[], reachedUs: number]
  /** Behind the number of cells of each row: key and cells, one row behind the other. */
  | ['rows', source: number, table: number, cells: number, rows: readonly SavedCell[]]
  | ['broken', source: number, block: number, rows: readonly string[]]
  | ['waiting', source: number, block: number, rows: readonly (readonly [row: string, input: number])[]]
  | ['made']
  | ['expiry', source: number, block: number, SavedExpiry]
  | ['holding', source: number, block: number, key: string, held: Held]
  | ['served', source: number, block: number, row: string, record: string, cells: readonly (SavedCell | 0)[]]
  | RecordsLine
  | ['hold', base: string, groups: readonly HeldGroup[]]
  | ['saying', entity: string, key: string, source: number, block: number, values: SavedValues]
  | ['unexplained', key: string, quantity: string]
  | ['clocks', Resolver['clocks']]
  | ['view', key: string, view: RecordValues | null, tiers: readonly string[], unsure?: boolean];

/**
 * The lines of a state as it is now, of `perLine` rows or records each. They are read as they are asked for, while the state goes on (transform/moment.ts): at
 * once are taken only what waits to expire, what is held and what waits for a tier. One state at a time: whoever asks for
 * the next one gives up the one before.
 */
export function saveState(state: FlowState, perLine = PER_LINE): Iterable<string> {
  const { sources, resolver, delivery } = state;
  const { entity } = state.plan;
  const heads: Line[] = [['entity', entity.name, entity.key]];
  const broken: Line[] = [];
  const made: Line[] = [['made']];
  for (const [source, { engine, reachedUs }] of sources.entries()) {
    for (const schema of engine.readTables()) heads.push(['table', source, schema]);
    heads.push(['scanned', source, engine.scannedTables(), reachedUs]);
    for (const { store } of engine.plan.tables) store.moment.begin();
    for (const [block, each] of engine.blocks.entries()) {
      const rows = each.brokenRows();
      if (rows.length > 0) broken.push(['broken', source, block, rows]);
      const waiting = each.toldWaiting();
      if (waiting.length > 0) broken.push(['waiting', source, block, waiting]);
      for (const { untilUs: until, key: row, cause } of each.expiring()) {
        const { reader, key, position, timeUs: time } = cause;
        made.push(['expiry', source, block, { until, row, table: reader.name, key, position, time }]);
      }
      for (const [row, record, cells] of each.servedBroken()) {
        const saved = cells.map((cell) => (cell === undefined ? 0 : savedCell(cell)));
        made.push(['served', source, block, row, record, saved]);
      }
      for (const [key, held] of each.holding()) made.push(['holding', source, block, key, [...held]]);
    }
  }
  resolver.moment.begin();
  const rest: Line[] = [];
  for (const [base, groups] of resolver.held.byBase()) rest.push(['hold', base, groups]);
  rest.push(['clocks', resolver.clocks]);
  for (const { entity: told, key, source, block, values } of state.evidence?.sayings() ?? [])
    rest.push(['saying', told, key, source, block, savedValues(values)]);
  for (const [key, quantity] of state.evidence?.unexplained() ?? []) rest.push(['unexplained', key, quantity]);
  for (const saved of delivery.saved()) rest.push(['view', ...saved]);
  return written(state, perLine, heads, [...broken, ...made], rest);
}

function* written(
  { plan, sources, resolver }: FlowState,
  perLine: number,
  heads: readonly Line[],
  made: readonly Line[],
  rest: readonly Line[],
): Generator<string> {
  const stores = sources.flatMap(({ engine }, source) =>
    engine.plan.tables.map(({ store, slots }, table) => ({ source, table, store, cells: slots.length })),
  );
  try {
    for (const line of heads) yield JSON.stringify(line);
    for (const { source, table, store, cells } of stores) {
      let rows: SavedCell[] = [];
      const line = (): string => JSON.stringify(['rows', source, table, cells, rows.splice(0)] satisfies Line);
      for (const [key, { values }] of store.moment.read(store.rows)) {
        rows.push(key);
        for (const value of values) rows.push(savedCell(value));
        if (rows.length >= perLine * (cells + 1)) yield line();
      }
      if (rows.length > 0) yield line();
      store.moment.end();
    }
    for (const line of made) yield JSON.stringify(line);
    const records = new RecordsWriter(plan.entity);
    for (const [, entry] of resolver.moment.read(resolver.entries)) {
      records.add(entry);
      if (records.size === perLine) yield JSON.stringify(records.take() satisfies Line);
    }
    if (records.size > 0) yield JSON.stringify(records.take() satisfies Line);
    for (const line of rest) yield JSON.stringify(line);
  } finally {
    for (const { store } of stores) store.moment.end();
    resolver.moment.end();
  }
}

/**
 * Reads the lines of a state for the keys of the records that had been passed on when it was saved, whatever plan made it:
 * gives the keys that a line names. Of another entity it gives none.
 */
export function passedOnBefore(entity: Entity): (text: string) => readonly string[] {
  const own = JSON.stringify(['entity', entity.name, entity.key] satisfies Line);
  let isOwn = false;
  return (text) => {
    if (text.startsWith('["entity"')) isOwn = text === own;
    if (!isOwn) return [];
    if (text.startsWith('["records"')) return givenKeys(entity, JSON.parse(text) as RecordsLine);
    if (!text.startsWith('["view"')) return [];
    const [, record, view] = JSON.parse(text) as Extract<Line, ['view', ...unknown[]]>;
    return view === null ? [] : [record];
  };
}

/** Brings the lines of a state back into one that is new, whose clock is what it was when the state was saved. */
export class StateRestorer {
  readonly #state: FlowState;
  readonly #records: RecordsReader;
  #lines = 0;

  constructor(state: FlowState) {
    this.#state = state;
    this.#records = new RecordsReader(state.plan.entity);
  }

  /** Takes a line. Throws `frame_unreadable` when it is damaged. */
  take(text: string): void {
    this.#lines += 1;
    try {
      this.#take(JSON.parse(text) as Line);
    } catch (cause) {
      throw new ReplicationError('frame_unreadable', `line ${this.#lines} of the saved state is damaged`, { cause });
    }
  }

  /** All lines have been taken. */
  done(): void {
    const { evidence, resolver, sources } = this.#state;
    for (const { engine } of sources) engine.restored();
    evidence?.restored(resolver.current());
    // The first transaction that follows is held against what was saved, too.
    this.#state.noteWhole();
  }

  #take(line: Line): void {
    const { sources, resolver, delivery, evidence } = this.#state;
    switch (line[0]) {
      case 'entity':
        return;
      case 'rows':
        this.#rows(sources[line[1]]!.engine.plan.tables[line[2]]!.store, line[3], line[4]);
        return;
      case 'records':
        this.#records.read(line, (record) => this.#record(record));
        return;
      case 'broken':
        sources[line[1]]!.engine.blocks[line[2]]!.restoreBroken(line[3]);
        return;
      case 'waiting':
        sources[line[1]]!.engine.blocks[line[2]]!.restoreWaiting(line[3]);
        return;
      case 'table':
        sources[line[1]]!.engine.restoreTable(line[2]);
        return;
      case 'scanned':
        sources[line[1]]!.engine.restoreScanned(line[2]);
        sources[line[1]]!.reachedUs = line[3];
        return;
      case 'made':
        this.#made();
        return;
      case 'expiry': {
        const { engine } = sources[line[1]]!;
        const { until, row, table, key, position, time } = line[3];
        const reader = engine.readerOf(table)!;
        const cause = { reader, key, stored: undefined, position, timeUs: time, row: undefined, serial: 0 };
        engine.blocks[line[2]]!.restoreExpiry(until, row, cause);
        return;
      }
      case 'served': {
        const cells = line[5].map((cell) => (cell === 0 ? undefined : restoredCell(cell)));
        sources[line[1]]!.engine.blocks[line[2]]!.restoreServed(line[3], line[4], cells);
        return;
      }
      case 'holding':
        sources[line[1]]!.engine.blocks[line[2]]!.restoreRecord(line[3], undefined, new Map(line[4]));
        return;
      case 'hold':
        resolver.held.restore(line[1], line[2]);
        return;
      case 'clocks':
        resolver.restoreClocks(line[1]);
        return;
      case 'saying': {
        const [, entity, key, source, block, saved] = line;
        const values = restoredValues(saved);
        sources[source]!.engine.blocks[block]!.restoreRecord(key, values);
        evidence!.restoreSaying({ entity, key, source, block, values });
        return;
      }
      case 'unexplained':
        evidence!.restoreUnexplained(line[1], line[2]);
        return;
      case 'view':
        delivery.restore(line[1], line[2], line[3], line[4]);
    }
  }

  #rows(store: TableStore, cells: number, rows: readonly SavedCell[]): void {
    const values: Cell[] = Array.from({ length: cells }, () => null);
    for (let at = 0; at < rows.length; at += cells + 1) {
      for (let cell = 0; cell < cells; cell++) values[cell] = restoredCell(rows[at + 1 + cell]!);
      store.add(rows[at] as string, values);
    }
  }

  /** All rows are there, of all tables: what they make is worked out. */
  #made(): void {
    for (const { engine } of this.#state.sources)
      for (const block of engine.blocks) block.restoreRows(this.#state.clockUs);
  }

  #record(record: RestoredRecord): void {
    const { sources, resolver } = this.#state;
    for (const { source, index, values } of record.contributions)
      sources.find(({ name }) => name === source)!.engine.blocks[index]!.restoreRecord(record.key, values);
    resolver.restoreEntry(record, this.#state.clockUs);
  }
}
