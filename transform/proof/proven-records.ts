/** The records of a recomputed flow as rows of their table, with what of them can be claimed. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Position } from '../../core/position.ts';
import { canonicalTableSchema, LINEAGE_COLUMNS } from '../canonical/envelope.ts';
import type { RecordValues } from '../canonical/entity.ts';
import type { Nats } from '../../core/nats.ts';
import type { Tier } from '../delivery-tiers.ts';
import type { Entry } from '../ownership/entry.ts';
import { compileProvable, OPEN_REASONS, type Open, type OpenReason } from './provable.ts';
import { recordsPlace, type SourcesAt } from './records-place.ts';
import type { RecomputedFlow } from './recomputed-flow.ts';

/** What a transform holds of a record, as a target lists it. */
export interface HeldInTarget {
  /** Parts of the key with a slash between them. */
  readonly key: string;
  readonly group: string;
}

export interface ProvenRecordsOptions {
  readonly flow: RecomputedFlow;
  readonly nats: Nats;
  readonly prefix: string;
  /** Sources that records of the entity are written to. */
  readonly writtenTo: ReadonlySet<string>;
  /** Groups of which no value can be proven, whatever the rows say. */
  readonly never: ReadonlyMap<string, OpenReason>;
  /** What the target lists as held of the flow. */
  readonly heldInTarget: () => Promise<readonly HeldInTarget[]>;
  readonly nudge: () => Promise<void>;
  readonly signal: AbortSignal;
  readonly stallMs?: number;
}

export interface ProvenRecord {
  readonly key: readonly string[];
  readonly values: readonly (string | null)[] | undefined;
  readonly open: readonly number[];
  readonly maybe: boolean;
}

const NOTHING: readonly number[] = [];
/** Records that are looked at before others have their turn. */
const TURN_RECORDS = 2000;
const SEPARATOR = '\u001f';

export class ProvenRecords {
  readonly columns: readonly { readonly name: string; readonly type: string }[];
  readonly key: readonly number[];
  readonly #options: ProvenRecordsOptions;
  readonly #tenant: string;
  /** Columns of each group; derived ones belong to all. */
  readonly #columnsOf: ReadonlyMap<string, readonly number[]>;
  readonly #derived: readonly number[];
  /** Where the sources stood when they had been read, and where they stand now. */
  #start: SourcesAt = { positions: new Map(), expiredUs: 0 };
  #now: SourcesAt = this.#start;
  /** Deliveries that had yet to come at the last place: of what was there from the start, and of what has changed since. */
  #waiting: { readonly start: readonly Tier[]; readonly now: readonly Tier[] } = { start: [], now: [] };
  /** Records that changed since the sources were read. */
  readonly #changed = new Set<string>();
  #openOf: (key: string, entry: Entry | undefined) => Open;
  /** What the target lists as held, by the printed key. */
  #heldThere: ReadonlyMap<string, ReadonlySet<string>> = new Map();

  constructor(options: ProvenRecordsOptions) {
    const { entity, settings } = options.flow.plan;
    this.#options = options;
    this.#tenant = settings.tenant;
    const { columns, key } = canonicalTableSchema(entity);
    this.columns = columns.slice(0, columns.length - LINEAGE_COLUMNS.length);
    this.key = key.map((name) => this.columns.findIndex((column) => column.name === name));
    // The tenant comes before the fields.
    this.#columnsOf = new Map(
      [...entity.groupIndexes].map(([group, indexes]) => [group, indexes.map((index) => index + 1)]),
    );
    this.#derived = entity.fields.flatMap((field, index) => (field.derived ? [index + 1] : []));
    this.#openOf = () => ({ groups: new Map(), existence: undefined });
  }

  get size(): number {
    let size = 0;
    for (const [, { given }] of this.#options.flow.entries()) if (given !== undefined) size += 1;
    return size;
  }

  owns(key: readonly string[]): boolean {
    return key[0] === this.#tenant;
  }

  async read(onShare: (share: number) => void): Promise<void> {
    const { flow } = this.#options;
    await flow.read((done, of) => onShare(done / of));
    this.#start = flow.places();
    this.#now = this.#start;
  }

  async place(tierWaitMs: number): Promise<Position> {
    const { flow, nats, prefix, nudge, signal, stallMs } = this.#options;
    const place = await recordsPlace({
      plan: flow.plan,
      nats,
      prefix,
      at: this.#now,
      tierWaitMs,
      nudge,
      signal,
      ...(stallMs === undefined ? {} : { stallMs }),
    });
    this.#waiting = { start: place.waitingSince(this.#start), now: place.waitingSince(this.#now) };
    return place.position;
  }

  async look(): Promise<void> {
    const { flow, writtenTo, heldInTarget } = this.#options;
    const { ownership } = flow.plan;
    const { records, rows } = flow.held();
    const heldThere = new Map<string, Set<string>>();
    for (const { key, group } of await heldInTarget()) heldThere.set(key, (heldThere.get(key) ?? new Set()).add(group));
    this.#heldThere = heldThere;
    this.#openOf = compileProvable({
      ownership,
      blocks: flow.blocks,
      broken: flow.blocks.filter(({ source, index }) => rows.has(`${source}#${index}`)),
      held: records,
      writtenTo,
    });
  }

  async nudge(): Promise<void> {
    await this.#options.nudge();
  }

  async follow(options: { readonly toLogEnd?: boolean } = {}): Promise<ReadonlySet<string>> {
    const { flow } = this.#options;
    const touched = await flow.follow(options);
    this.#now = flow.places();
    for (const key of touched) this.#changed.add(key);
    return new Set([...touched].map((key) => JSON.stringify(this.#tableKey(key))));
  }

  openInAll(): readonly number[] {
    return this.#columns([...this.#options.never.keys(), ...this.#waiting.start.flatMap(({ groups }) => groups)]);
  }

  *all(): Generator<ProvenRecord & { readonly values: readonly (string | null)[] }> {
    for (const [key, entry] of this.#options.flow.entries())
      if (entry.given !== undefined) yield { ...this.#record(key, entry), values: this.#row(entry.given) };
  }

  get(key: readonly string[]): ProvenRecord {
    const text = key.slice(1).join(SEPARATOR);
    return this.#record(text, this.#options.flow.entry(text));
  }

  /** What was open, by group and reason. */
  async leftOut(): Promise<{ what: string; why: string; records: number; share: number }[]> {
    const counts = new Map<string, { what: string; reason: OpenReason; records: number }>();
    const add = (what: string, reason: OpenReason): void => {
      const id = `${what}\0${reason}`;
      const count = counts.get(id) ?? { what, reason, records: 0 };
      count.records += 1;
      counts.set(id, count);
    };
    let seen = 0;
    for (const [key, entry] of this.#options.flow.entries()) {
      if (++seen % TURN_RECORDS === 0) await nextTurn();
      if (entry.given === undefined && entry.contributions.length === 0) continue;
      const { groups, existence } = this.#open(key, entry);
      if (existence !== undefined && entry.given === undefined) add('*', existence);
      else for (const [group, reason] of groups) add(group, reason);
    }
    const total = this.columns.length;
    return [...counts.values()].map(({ what, reason, records }) => ({
      what,
      why: OPEN_REASONS[reason],
      records,
      share: what === '*' ? 1 : (this.#columnsOf.get(what)?.length ?? 0) / total,
    }));
  }

  #tableKey(key: string): string[] {
    return [this.#tenant, ...key.split(SEPARATOR)];
  }

  #row(values: RecordValues): (string | null)[] {
    return [this.#tenant, ...values];
  }

  #record(key: string, entry: Entry | undefined): ProvenRecord {
    const { groups, existence } = this.#open(key, entry);
    const given = entry?.given;
    return {
      key: this.#tableKey(key),
      values: given === undefined ? undefined : this.#row(given),
      open: groups.size === 0 ? NOTHING : this.#columns([...groups.keys()]),
      maybe: existence !== undefined,
    };
  }

  #open(key: string, entry: Entry | undefined): Open {
    const own = this.#openOf(key, entry);
    const waiting = this.#changed.has(key) ? this.#waiting.now : this.#waiting.start;
    const heldThere = this.#heldThere.size === 0 ? undefined : this.#heldThere.get(key.replaceAll(SEPARATOR, '/'));
    const { never, flow } = this.#options;
    if (waiting.length === 0 && heldThere === undefined && never.size === 0) return own;
    const groups = new Map(own.groups);
    const note = (group: string, reason: OpenReason): void => {
      if (!groups.has(group)) groups.set(group, reason);
    };
    let { existence } = own;
    for (const [group, reason] of never) note(group, reason);
    for (const group of heldThere ?? [])
      for (const each of this.#columnsOf.has(group) ? [group] : this.#columnsOf.keys()) note(each, 'held');
    if (heldThere !== undefined) existence ??= 'held';
    for (const tier of waiting) {
      for (const group of tier.groups) note(group, 'tier');
      if (flow.plan.tiers.existence === tier) existence ??= 'tier';
    }
    return { groups, existence };
  }

  #columns(groups: readonly string[]): readonly number[] {
    if (groups.length === 0) return NOTHING;
    const columns = new Set([...groups.flatMap((group) => this.#columnsOf.get(group) ?? []), ...this.#derived]);
    return [...columns].sort((a, b) => a - b);
  }
}
