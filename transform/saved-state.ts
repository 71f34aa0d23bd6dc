/**
 * The state of a flow as lines of JSON, and back: rows that mappings keep, what they contributed, the records, what is held
 * and what waits. What follows from those is not written: it is worked out again. Everything is as at one moment, between
 * two transactions of every source.
 */
import { ReplicationError } from '../core/errors.ts';
import type { TableSchema } from '../core/frame.ts';
import type { Entity, RecordValues } from './canonical/entity.ts';
import type { Lineage } from './canonical/envelope.ts';
import type { Violation } from './canonical/validate.ts';
import type { FlowState } from './flow-state.ts';
import type { ContributedValues } from './mapping/block-state.ts';
import type { Cause } from './mapping/engine.ts';
import { restoredCell, savedCell, type SavedCell } from './mapping/saved-row.ts';
import { SharedCounter, type SavedCounter } from './ownership/counter.ts';
import type { HeldGroup } from './ownership/resolved.ts';
import type { Entry } from './ownership/entry.ts';
import type { Resolver } from './ownership/resolver.ts';

/** Rises when a state that was saved before cannot be read any more: then it is made from frames again. */
export const STATE_VERSION = 1;

type SavedLineage = readonly [source: string, table: string, key: string, position: string, time: string];
/** 0 stands for a value that is not supplied. */
type SavedValues = readonly (string | null | 0)[];
/** Lineages are numbers of those of the record; -1 for none. */
type SavedContribution = readonly [
  source: string,
  block: number,
  values: SavedValues,
  lineages: readonly number[],
  claims: readonly (readonly [group: number, values: SavedValues | null, lineage: number])[],
];

interface SavedRecord {
  readonly key: string;
  readonly lineages: readonly SavedLineage[];
  readonly from: readonly SavedContribution[];
  readonly given?: RecordValues;
  readonly lineage: number;
  readonly counters?: readonly (readonly [group: number, SavedCounter])[];
}

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
type Line =
  | ['entity', name: string, key: readonly string[]]
  | ['table', source: number, schema: TableSchema]
  | ['scanned', source: number, tables: readonly number[], reachedUs: number]
  | ['row', source: number, table: number, key: string, cells: readonly SavedCell[]]
  | ['rows']
  | ['expiry', source: number, block: number, SavedExpiry]
  | ['holding', source: number, block: number, key: string, held: Held]
  | ['served', source: number, block: number, row: string, record: string, cells: readonly (SavedCell | 0)[]]
  | ['record', SavedRecord]
  | ['hold', base: string, groups: readonly HeldGroup[]]
  | ['saying', entity: string, key: string, source: number, block: number, values: SavedValues]
  | ['unexplained', key: string, quantity: string]
  | ['clocks', Resolver['clocks']]
  | ['view', key: string, view: RecordValues | null, tiers: readonly string[], unsure?: boolean];

/**
 * The lines of a state as it is now. They are read as they are asked for, while the state goes on (transform/moment.ts): at
 * once are taken only what waits to expire, what is held and what waits for a tier. One state at a time: whoever asks for
 * the next one gives up the one before.
 */
export function saveState(state: FlowState): Iterable<string> {
  const { sources, resolver, delivery } = state;
  const { entity } = state.plan;
  const heads: Line[] = [['entity', entity.name, entity.key]];
  const made: Line[] = [['rows']];
  for (const [source, { engine, reachedUs }] of sources.entries()) {
    for (const schema of engine.readTables()) heads.push(['table', source, schema]);
    heads.push(['scanned', source, engine.scannedTables(), reachedUs]);
    for (const { store } of engine.plan.tables) store.moment.begin();
    for (const [block, each] of engine.blocks.entries()) {
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
  for (const [base, groups] of resolver.holds()) rest.push(['hold', base, groups]);
  rest.push(['clocks', resolver.clocks]);
  for (const { entity: told, key, source, block, values } of state.evidence?.sayings() ?? [])
    rest.push(['saying', told, key, source, block, savedValues(values)]);
  for (const [key, quantity] of state.evidence?.unexplained() ?? []) rest.push(['unexplained', key, quantity]);
  for (const saved of delivery.saved()) rest.push(['view', ...saved]);
  return written(state, heads, made, rest);
}

function* written(
  { sources, resolver }: FlowState,
  heads: readonly Line[],
  made: readonly Line[],
  rest: readonly Line[],
): Generator<string> {
  const stores = sources.flatMap(({ engine }, source) =>
    engine.plan.tables.map(({ store }, table) => ({ source, table, store })),
  );
  try {
    for (const line of heads) yield JSON.stringify(line);
    for (const { source, table, store } of stores) {
      for (const [key, { values }] of store.moment.read(store.rows))
        yield JSON.stringify(['row', source, table, key, values.map(savedCell)] satisfies Line);
      store.moment.end();
    }
    for (const line of made) yield JSON.stringify(line);
    for (const [key, entry] of resolver.moment.read(resolver.entries))
      yield JSON.stringify(['record', savedRecord(key, entry)] satisfies Line);
    for (const line of rest) yield JSON.stringify(line);
  } finally {
    for (const { store } of stores) store.moment.end();
    resolver.moment.end();
  }
}

function savedRecord(key: string, { contributions, counters, given, lineage }: Entry): SavedRecord {
  const seen: Lineage[] = [];
  const numberOf = (of: Lineage | undefined): number => {
    if (of === undefined) return -1;
    const there = seen.indexOf(of);
    return there >= 0 ? there : seen.push(of) - 1;
  };
  const from = contributions.map((item): SavedContribution => {
    const claims = [...(item.claims ?? [])].map(
      ([group, claim]) =>
        [group, claim === undefined ? null : savedValues(claim.values), numberOf(claim?.lineage)] as const,
    );
    return [item.source, item.index, savedValues(item.values), item.lineage.map(numberOf), claims];
  });
  const own = numberOf(lineage);
  return {
    key,
    from,
    lineage: own,
    lineages: seen.map(({ source, table, key: row, position, time }) => [source, table, row, position, time]),
    ...(given === undefined ? {} : { given }),
    ...(counters === undefined
      ? {}
      : { counters: [...counters].map(([group, each]) => [group, each.save()] as const) }),
  };
}

function savedValues(values: ContributedValues): SavedValues {
  return values.map((value) => (value === undefined ? 0 : value));
}

function restoredValues(saved: SavedValues): ContributedValues {
  return saved.map((value) => (value === 0 ? undefined : value));
}

/**
 * Reads the lines of a state for the keys of the records that had been passed on when it was saved, whatever plan made it:
 * gives the key that a line names. Of another entity it gives none.
 */
export function passedOnBefore({ name, key }: Entity): (text: string) => string | undefined {
  const own = JSON.stringify(['entity', name, key] satisfies Line);
  let isOwn = false;
  return (text) => {
    if (text.startsWith('["entity"')) isOwn = text === own;
    if (!isOwn) return undefined;
    if (text.startsWith('["record"')) {
      const [, record] = JSON.parse(text) as Extract<Line, ['record', ...unknown[]]>;
      return record.given === undefined ? undefined : record.key;
    }
    if (!text.startsWith('["view"')) return undefined;
    const [, record, view] = JSON.parse(text) as Extract<Line, ['view', ...unknown[]]>;
    return view === null ? undefined : record;
  };
}

/** Brings the lines of a state back into one that is new, whose clock is what it was when the state was saved. */
export class StateRestorer {
  readonly #state: FlowState;
  #lines = 0;

  constructor(state: FlowState) {
    this.#state = state;
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
    const { evidence, resolver } = this.#state;
    evidence?.restored(resolver.current());
    // The first transaction that follows is held against what was saved, too.
    this.#state.noteWhole();
  }

  #take(line: Line): void {
    const { sources, resolver, delivery, evidence } = this.#state;
    switch (line[0]) {
      case 'entity':
        return;
      case 'row':
        sources[line[1]]!.engine.plan.tables[line[2]]!.store.add(line[3], line[4].map(restoredCell));
        return;
      case 'record':
        this.#record(line[1]);
        return;
      case 'table':
        sources[line[1]]!.engine.reads(line[2]);
        return;
      case 'scanned':
        sources[line[1]]!.engine.restoreScanned(line[2]);
        sources[line[1]]!.reachedUs = line[3];
        return;
      case 'rows':
        this.#rows();
        return;
      case 'expiry': {
        const { engine } = sources[line[1]]!;
        const { until, row, table, key, position, time } = line[3];
        const cause = { reader: engine.readerOf(table)!, key, position, timeUs: time, row: undefined, serial: 0 };
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
        resolver.restoreHold(line[1], line[2]);
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

  /** All rows are there, of all tables: what they make is worked out. */
  #rows(): void {
    for (const { engine } of this.#state.sources)
      for (const [index, block] of engine.blocks.entries()) {
        const { table } = engine.plan.blocks[index]!.inputs[0]!;
        const schema = [...engine.readTables()].find((each) => table.matches(each));
        if (schema === undefined) continue;
        const reader = engine.readerOf(`${schema.schema}.${schema.name}`)!;
        const causeOf = (key: string): Cause => ({ reader, key, position: '', timeUs: 0, row: undefined, serial: 0 });
        block.restoreRows(this.#state.clockUs, causeOf);
      }
  }

  #record({ key, lineages: told, from, given, lineage, counters }: SavedRecord): void {
    const { sources, resolver } = this.#state;
    const lineages = told.map(([source, table, row, position, time]): Lineage => {
      return { source, table, key: row, position, time };
    });
    const contributions = from.map(([source, index, saved, numbers, claimed]) => {
      const values = restoredValues(saved);
      const claims = claimed.map(
        ([group, said, number]) =>
          [group, said === null ? undefined : { values: restoredValues(said), lineage: lineages[number]! }] as const,
      );
      sources.find(({ name }) => name === source)!.engine.blocks[index]!.restoreRecord(key, values);
      const restored = numbers.map((number) => lineages[number]);
      return { source, index, values, lineage: restored, claims: claims.length === 0 ? undefined : new Map(claims) };
    });
    const shared =
      counters === undefined
        ? undefined
        : new Map(counters.map(([group, counter]) => [group, SharedCounter.restore(counter)]));
    const entry = { key, contributions, counters: shared, given, lineage: lineages[lineage] };
    resolver.restoreEntry(entry, this.#state.clockUs);
  }
}
