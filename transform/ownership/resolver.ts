/**
 * Which write wins. Takes what the sources contribute to records and gives the records: owners' values, merged values,
 * derived values, each with its lineage; other writers' values are kept to be compared and never applied.
 *
 * Deterministic: a record follows from the newest contribution of each source and from the commit times that the
 * streams have reached, not from the order in which sources arrive. Times are those of the sources; the wall clock is
 * asked only for values that claim to come from the future.
 */
import { deriveStockIn } from '../canonical/inventory.ts';
import { describeKey, type RecordValues } from '../canonical/entity.ts';
import { valueClass } from '../canonical/field-type.ts';
import type { Lineage } from '../canonical/envelope.ts';
import { microsOfTimestamp } from '../canonical/timestamp.ts';
import { ABSENT, compileValidator, type Validator, type Violation } from '../canonical/validate.ts';
import { WHOLE_RECORD, type ContributedValues, type ContributionChange } from '../mapping/contribution-change.ts';
import { Moment } from '../moment.ts';
import {
  beforeEarly,
  claimOf,
  insertInOrder,
  isNewer,
  keptClaimOf,
  sameAt,
  suppliesAny,
  type Contribution,
} from './contribution.ts';
import { SharedCounter } from './counter.ts';
import { EarlyRecords } from './early-records.ts';
import { copyEntry, type Entry } from './entry.ts';
import { originOf } from './explanation.ts';
import { HeldGroups } from './held-groups.ts';
import { EVERYWHERE, type GroupRule, type Ownership } from './ownership.ts';
import { contributionOf, Precedence, type GroupFields } from './precedence.ts';
import { convertQuantities, recordUnitOf, type RecordUnit } from './record-unit.ts';
import type { CurrentRecord, GroupOrigin, HeldGroup, ResolvedChange } from './resolved.ts';
import { Silence, type SavedSilence } from './silence.ts';

/** Measured in a heap of 50,000 records of stock. */
const RECORD_BYTES = 500;
const CONTRIBUTION_BYTES = 400;
const SLOT_BYTES = 8;
const HELD_BYTES = 1500;
/** The time of a change of a counter, or of a count, lies no further ahead of the clock than this. */
const COUNT_SKEW_US = 300_000_000;
const NONE: readonly Violation[] = [];
/** So many records are worked out, a few milliseconds, before others have their turn. */
const RESOLVED_AT_ONCE = 1000;

/** Whether a source said something, Waybill wrote it into the source, or another mapping makes it of what was said before. */
type Manner = 'said' | 'echo' | 'restated';

export class Resolver {
  readonly #ownership: Ownership;
  readonly #validate: Validator;
  readonly moment = new Moment(copyEntry);
  readonly #records = new Map<string, Entry>();
  /** What keeps its last good state, and why. */
  readonly held = new HeldGroups();
  readonly #advisory: boolean;
  readonly #isStock: boolean;
  readonly #unit: RecordUnit | undefined;
  #contributions = 0;
  #counterBytes = 0;
  readonly #silence = new Silence();
  readonly #usesFallback: boolean;
  readonly #groups: readonly GroupFields[];
  readonly #precedence: Precedence;
  /** With `alone`, the source whose values count whatever the key and the time. */
  readonly #rules: readonly {
    readonly group: number;
    readonly rule: GroupRule;
    readonly alone: string | undefined;
    readonly indexes: readonly number[];
  }[];
  /** A group is merged by its changes. */
  readonly #counts: boolean;
  /** Numbers of the groups that are merged, but not by their changes. */
  readonly #claimed: ReadonlySet<number>;
  /** Of groups of which the last writer wins: their numbers, and how far ahead of the clock a time may lie. */
  readonly #skews: readonly (readonly [group: number, skewUs: number])[];
  readonly #early = new EarlyRecords();
  /** The wall clock of the call that is being worked out. */
  #nowUs = Infinity;
  readonly #blank: RecordValues;
  readonly #noLineage: readonly undefined[];
  #stale = '';

  /** With `advisory` a change of values that do not count is given too, for whoever shows them beside the record. */
  constructor(ownership: Ownership, options: { readonly advisory?: boolean } = {}) {
    this.#ownership = ownership;
    this.#advisory = options.advisory === true;
    this.#isStock = ownership.entity.name === 'inventory_position';
    this.#unit = recordUnitOf(ownership.entity);
    this.#validate = compileValidator(ownership.entity);
    const { groupIndexes } = ownership.entity;
    this.#blank = ownership.entity.fields.map(() => null);
    this.#groups = [...groupIndexes].map(([group, indexes]) => ({ group, indexes }));
    this.#precedence = new Precedence(ownership, this.#groups, this.#silence);
    this.#noLineage = this.#groups.map(() => undefined);
    // The unit of a record comes before the quantities that are in it.
    const unitFirst = [...ownership.rules].toSorted(
      ([a], [b]) => Number(b === this.#unit?.group) - Number(a === this.#unit?.group),
    );
    this.#rules = unitFirst.map(([name, rule]) => {
      const [only, ...others] = rule.kind === 'owner' ? rule.owners : [];
      const plain = only?.matches === EVERYWHERE && only.fallback.length === 0 && others.length === 0;
      const indexes = groupIndexes.get(name)!;
      const group = this.#groups.findIndex((each) => each.group === name);
      return { group, rule, alone: plain ? only.source : undefined, indexes };
    });
    this.#counts = [...ownership.rules.values()].some((rule) => rule.kind === 'merge' && rule.merge.merge === 'delta');
    this.#claimed = new Set(
      this.#rules.flatMap(({ group, rule }) => (rule.kind === 'merge' && rule.merge.merge !== 'delta' ? [group] : [])),
    );
    this.#skews = this.#rules.flatMap(({ group, rule }) =>
      rule.kind === 'merge' && rule.merge.merge === 'lww' ? [[group, rule.merge.skew * 1000] as const] : [],
    );
    this.#usesFallback = [...ownership.rules.values()].some(
      (rule) => rule.kind === 'owner' && rule.owners.some((owner) => owner.fallback.length > 0),
    );
  }

  /** All that is known of records, for whoever saves it: by way of `moment`, while it goes on changing. */
  get entries(): ReadonlyMap<string, Entry> {
    return this.#records;
  }

  /** What is known of one record. */
  entry(key: string): Entry | undefined {
    return this.#records.get(key);
  }

  /** `nowUs` is the clock by which the entry was resolved. */
  restoreEntry(restored: Omit<Entry, 'moment' | 'touched' | 'keeper'>, nowUs: number): void {
    const { key, contributions, counters, given, lineage } = restored;
    const { now: moment } = this.moment;
    const entry: Entry = { key, contributions, counters, given, lineage, keeper: this, touched: undefined, moment };
    this.#records.set(key, entry);
    this.#contributions += contributions.length;
    if (counters !== undefined) for (const counter of counters.values()) this.#counterBytes += counter.bytes;
    this.#noteEarly(key, entry, nowUs);
  }

  /** How far the sources have come, and which of them were stale. */
  get clocks(): SavedSilence & { readonly stale: string } {
    return { ...this.#silence.save(), stale: this.#stale };
  }

  restoreClocks(saved: Resolver['clocks']): void {
    this.#silence.restore(saved);
    this.#stale = saved.stale;
  }

  /** Who was in charge of what when records were worked out last, as a text; empty where that never changes. */
  get standing(): string {
    return this.#stale;
  }

  /** All there is of a source's stream has been taken: from now on it counts as silent against what the others have reached. */
  atEnd(source: string): void {
    if (this.#usesFallback) this.#silence.atEnd(source);
  }

  /** All records that are there. */
  *current(): Generator<CurrentRecord> {
    for (const [key, { given, lineage }] of this.#records)
      if (given !== undefined) yield { key, values: given, lineage: lineage! };
  }

  /** A record as it is until it changes: to be copied by whoever keeps it. Undefined where it is not there. */
  record(key: string): RecordValues | undefined {
    return this.#records.get(key)?.given;
  }

  /** Of the newest change among the values of a record. */
  lineage(key: string): Lineage | undefined {
    return this.#records.get(key)?.lineage;
  }

  /** Estimated bytes held. */
  get bytes(): number {
    const { size } = this.#records;
    const rest = this.held.size * HELD_BYTES + this.#counterBytes;
    const contribution = CONTRIBUTION_BYTES + SLOT_BYTES * this.#blank.length;
    return size * RECORD_BYTES + this.#contributions * contribution + rest;
  }

  get records(): number {
    return this.#records.size;
  }

  /**
   * Takes what a source contributes in one flush, and the commit time that its stream has reached; gives the records
   * that changed. `nowUs` is the wall clock, for times that lie ahead of it. An `echo` is what Waybill itself wrote into the
   * source: its tables are so now, but it has not said so. It is not merged, nor does it count as a change, and
   * nobody need be told that it differs from the record.
   */
  apply(
    source: string,
    changes: readonly ContributionChange[],
    reachedUs: number,
    nowUs: number,
    echo = false,
  ): ResolvedChange[] {
    this.#nowUs = nowUs;
    this.#silence.reach(source, reachedUs);
    const touched: Entry[] = [];
    for (const change of changes) {
      const entry = this.#take(source, change, echo ? 'echo' : 'said');
      if (entry === undefined) continue;
      if (entry.touched === undefined) touched.push(entry);
      entry.touched = change.lineage;
    }
    const resolved: ResolvedChange[] = [];
    for (const entry of touched) this.#resolve(entry, entry.touched!, nowUs, this.#advisory && !echo, resolved);
    for (const key of this.#restale()) {
      const entry = this.#records.get(key)!;
      const lineage = entry.contributions[0]?.lineage.find((each) => each !== undefined);
      if (entry.touched === undefined && lineage !== undefined) this.#resolve(entry, lineage, nowUs, false, resolved);
    }
    for (const key of this.#early.takeDue(nowUs)) {
      const entry = this.#records.get(key);
      const claim = entry?.contributions[0]?.lineage.find((each) => each !== undefined);
      if (claim !== undefined) this.#resolve(entry!, claim, nowUs, false, resolved);
    }
    for (const entry of touched) entry.touched = undefined;
    return resolved;
  }

  /**
   * Takes what another mapping makes of rows that were there before. Nobody said it just now: what differs is as old as the
   * newest change known of the contribution, and is no change that counts. `resolveAll` then works the records out.
   */
  restate(source: string, changes: readonly ContributionChange[]): void {
    for (const change of changes) this.#take(source, change, 'restated');
  }

  /** Works out all records, after contributions came from a state with other owners. Stops now and then, for others to have their turn. */
  *resolveAll(nowUs: number): Generator<void> {
    let done = 0;
    for (const entry of this.#records.values()) {
      this.#refit(entry);
      const touching = entry.lineage ?? entry.contributions[0]?.lineage.find((each) => each !== undefined);
      if (touching === undefined) this.#forget(entry);
      else this.#resolve(entry, touching, nowUs, false, []);
      if (++done % RESOLVED_AT_ONCE === 0) yield;
    }
  }

  /** What was noted for merges of other owners goes; of a counter that is new, or has other sources, the figures are taken. */
  #refit(entry: Entry): void {
    for (const contribution of entry.contributions)
      for (const at of contribution.claims?.keys() ?? [])
        if (at < 0 ? this.#skewUs(beforeEarly(at)) === undefined : !this.#claimed.has(at))
          contribution.claims!.delete(at);
    for (const { group, rule } of this.#rules) {
      const counter = entry.counters?.get(group);
      const counts = rule.kind === 'merge' && rule.merge.merge === 'delta';
      if (counter !== undefined && !counts) {
        entry.counters!.delete(group);
        this.#counterBytes -= counter.bytes;
      }
      if (!counts) continue;
      const known = counter?.sources ?? new Set();
      const here = new Set<string>();
      for (const item of entry.contributions) {
        if (item.lineage[group] === undefined || here.has(item.source)) continue;
        here.add(item.source);
        if (!known.has(item.source)) this.#count(entry, item, group, item.values, 'restated');
      }
      for (const source of known) if (!here.has(source)) this.#counterBytes -= counter?.forget(source) ?? 0;
    }
    if (entry.counters?.size === 0) entry.counters = undefined;
  }

  /** Notes when the first of a record's times counts that lie too far ahead now. */
  #noteEarly(key: string, entry: Entry, nowUs: number): void {
    if (this.#skews.length === 0) return;
    let firstUs = Infinity;
    for (const [group, skewUs] of this.#skews)
      for (const { timeUs, contribution } of this.#precedence.claims(entry.contributions, group))
        if (timeUs - skewUs > nowUs) firstUs = Math.min(firstUs, timeUs - skewUs);
        else contribution.claims?.delete(beforeEarly(group));
    if (firstUs === Infinity) this.#early.delete(key);
    else this.#early.set(key, firstUs);
  }

  /** Whether one change made all values of a record, so that its lineage says of each where it is from. */
  isOfOneChange(key: string): boolean {
    const entry = this.#records.get(key);
    return entry === undefined || isOfOneChange(entry);
  }

  /** Where each group of a record comes from, and what does not count; undefined for a record that is not known. */
  explain(key: string, nowUs: number): GroupOrigin[] | undefined {
    const entry = this.#records.get(key);
    if (entry === undefined) return undefined;
    const { entity } = this.#ownership;
    return this.#rules.map(({ group, rule }) =>
      originOf(entity, entry, group, this.#groups[group]!, rule, this.#precedence.pick(entry, group, rule, nowUs)),
    );
  }

  /** What is known of the record of a change: from where it was noted, or by its key. */
  #entryOf({ key, place }: ContributionChange): Entry | undefined {
    const known = place?.known as Entry | undefined;
    if (known?.keeper === this) return known;
    const entry = this.#records.get(key);
    if (place !== undefined) place.known = entry;
    return entry;
  }

  /** Gives what is known of the record now; undefined where nothing ever was. */
  #take(source: string, change: ContributionChange, manner: Manner): Entry | undefined {
    const { key, index, values } = change;
    let entry = this.#entryOf(change);
    if (values === undefined) {
      this.#hold(change, source);
      if (entry === undefined) return undefined;
      this.moment.changes(key, entry);
      const at = entry.contributions.findIndex((item) => item.source === source && item.index === index);
      if (at >= 0) {
        entry.contributions.splice(at, 1);
        this.#contributions -= 1;
      }
      if (entry.counters !== undefined)
        for (const [group, counter] of entry.counters)
          if (contributionOf(entry, source, group) === undefined) this.#counterBytes -= counter.forget(source);
      return entry;
    }
    if (entry === undefined) {
      const { now: moment } = this.moment;
      entry = {
        key,
        contributions: [],
        counters: undefined,
        given: undefined,
        lineage: undefined,
        keeper: this,
        touched: undefined,
        moment,
      };
      this.#records.set(key, entry);
      if (change.place !== undefined) change.place.known = entry;
    } else this.moment.changes(key, entry);
    const { contributions } = entry;
    let contribution: Contribution | undefined;
    for (let i = 0; i < contributions.length && contribution === undefined; i++) {
      const item = contributions[i]!;
      if (item.index === index && item.source === source) contribution = item;
    }
    if (contribution === undefined) {
      contribution = { source, index, values: values.slice(), lineage: this.#noLineage.slice(), claims: undefined };
      // Alone in an array of its own size, as most are.
      if (contributions.length === 0) entry.contributions = [contribution];
      else insertInOrder(contributions, contribution);
      this.#contributions += 1;
    }
    const { lineage, values: before } = contribution;
    const origin = (manner === 'restated' ? newestOf(lineage) : undefined) ?? change.lineage;
    for (let group = 0; group < lineage.length; group++) {
      const { indexes } = this.#groups[group]!;
      if (!suppliesAny(values, indexes)) {
        if (lineage[group] !== undefined) lineage[group] = undefined;
        contribution.claims?.delete(group);
        contribution.claims?.delete(beforeEarly(group));
        continue;
      }
      if (lineage[group] !== undefined && sameAt(before, values, indexes)) continue;
      if (this.#claimed.has(group) && manner !== 'restated') {
        if (manner === 'echo') (contribution.claims ??= new Map()).set(group, keptClaimOf(contribution, group));
        else {
          if (this.#skews.length > 0) this.#keepBeforeEarly(contribution, group, origin);
          contribution.claims?.delete(group);
        }
      }
      lineage[group] = origin;
      if (this.#counts) this.#count(entry, contribution, group, values, manner);
    }
    for (let i = 0; i < values.length; i++) if (before[i] !== values[i]) before[i] = values[i];
    this.#hold(change, source);
    return entry;
  }

  /** Where the last writer wins: what a source said before the values of a change is kept while those come too early to count. */
  #keepBeforeEarly(contribution: Contribution, group: number, { time }: Lineage): void {
    const skewUs = this.#skewUs(group);
    if (skewUs === undefined) return;
    const limitUs = this.#nowUs + skewUs;
    const at = beforeEarly(group);
    if (microsOfTimestamp(time) <= limitUs) {
      contribution.claims?.delete(at);
      return;
    }
    const before = claimOf(contribution, group);
    // One that comes too early itself leaves what was before it.
    if (before === undefined || microsOfTimestamp(before.lineage.time) > limitUs) return;
    (contribution.claims ??= new Map()).set(at, keptClaimOf(contribution, group));
  }

  #skewUs(group: number): number | undefined {
    for (const [each, skewUs] of this.#skews) if (each === group) return skewUs;
    return undefined;
  }

  /** Takes a new figure into the counter of a group that is merged by its changes. */
  #count(
    entry: Entry,
    { source, lineage }: Contribution,
    group: number,
    values: ContributedValues,
    manner: Manner,
  ): void {
    const rule = this.#ownership.rules.get(this.#groups[group]!.group);
    if (rule?.kind !== 'merge' || rule.merge.merge !== 'delta') return;
    const value = values[this.#counterIndex(group)];
    if (typeof value !== 'string') return;
    entry.counters ??= new Map();
    let counter = entry.counters.get(group);
    if (counter === undefined) {
      entry.counters.set(group, (counter = new SharedCounter()));
      this.#counterBytes += counter.bytes;
    }
    const before = counter.bytes;
    const isCount = rule.merge.reset === source;
    // A count of a clock that is ahead must not swallow what is changed after it.
    const timeUs = Math.min(microsOfTimestamp(lineage[group]!.time), this.#nowUs + COUNT_SKEW_US);
    if (manner === 'echo' || (manner === 'restated' && !isCount)) counter.rebase(source, value);
    else if (!isCount) counter.changed(source, value, timeUs);
    else if (manner === 'said' || !counter.recount(source, value)) counter.reset(source, value, timeUs);
    counter.fold(rule.merge.reset === undefined ? Infinity : (this.#silence.reached(rule.merge.reset) ?? 0));
    this.#counterBytes += counter.bytes - before;
  }

  #counterIndex(group: number): number {
    const { entity } = this.#ownership;
    return this.#groups[group]!.indexes.find((index) => entity.fields[index]!.type.kind === 'decimal')!;
  }

  #hold(change: ContributionChange, source: string): void {
    const { held, lineage, content } = change;
    if (held.size === 0 && this.held.size === 0) return;
    const key = change.key.startsWith('\0') ? (held.get(WHOLE_RECORD)?.[0]?.key ?? '') : change.key;
    this.held.set(
      `${source}#${change.index}#${change.key}`,
      [...held].map(([group, violations]) => ({
        key: key.replaceAll('\u001f', '/'),
        group,
        source,
        violations,
        lineage,
        content,
      })),
    );
  }

  /** Records to look at again because a source became stale, or is no longer. */
  #restale(): Iterable<string> {
    if (!this.#usesFallback) return [];
    const stale = this.#precedence.standing(this.#nowUs);
    if (stale === this.#stale) return [];
    this.#stale = stale;
    return this.#records.keys();
  }

  /** Works out a record anew, and adds to `into` what of it changed. */
  #resolve(entry: Entry, touching: Lineage, nowUs: number, advisory: boolean, into: ResolvedChange[]): void {
    const { key, given: before, contributions } = entry;
    this.moment.changes(key, entry);
    this.#noteEarly(key, entry, nowUs);
    const { entity } = this.#ownership;
    let held: HeldGroup[] | undefined;
    let otherUnits: HeldGroup[] | undefined;
    let newest: Lineage | undefined;
    let after: RecordValues | undefined;
    if (contributions.length > 0) {
      const values = this.#blank.slice();
      const [first] = contributions;
      for (const index of entity.keyIndexes) values[index] = first!.values[index] ?? '';
      let owned = false;
      const unitAt = this.#unit?.at ?? -1;
      for (const { group, rule, alone, indexes } of this.#rules) {
        let said: ContributedValues;
        let origin: Lineage;
        if (alone === undefined) {
          const { winner, value, claim } = this.#precedence.pick(entry, group, rule, nowUs);
          if (winner === undefined) continue;
          origin = claim?.lineage ?? winner.lineage[group]!;
          said = claim?.values ?? winner.values;
          for (const index of indexes) values[index] = said[index] ?? null;
          if (value !== undefined)
            values[rule.kind === 'merge' && rule.merge.merge === 'delta' ? this.#counterIndex(group) : indexes[0]!] =
              value;
        } else {
          const winner = contributionOf(entry, alone, group);
          if (winner === undefined) continue;
          origin = winner.lineage[group]!;
          said = winner.values;
          for (let i = 0; i < indexes.length; i++) values[indexes[i]!] = said[indexes[i]!] ?? null;
        }
        if (unitAt >= 0) {
          const unit = said[unitAt];
          const own = values[unitAt];
          if (typeof unit === 'string' && typeof own === 'string' && unit !== own) {
            const other = this.#inUnit(entry, group, values, unit, own, origin);
            if (other !== undefined) {
              (otherUnits ??= []).push(other);
              continue;
            }
          }
        }
        owned = true;
        if (newest === undefined || (origin !== newest && isNewer(origin, newest))) newest = origin;
      }
      const derived = this.#isStock ? deriveStockIn(values) : values;
      const violations = owned ? this.#validate(derived, before) : NONE;
      // A record that lacks what it must have is not there yet; one that contradicts itself stays as it was.
      const incomplete = violations.some(({ rule }) => rule === ABSENT);
      if (violations.length > 0)
        held = [{ ...this.#heldRecord(key, derived, violations, newest ?? touching), incomplete }];
      after = !owned || incomplete ? undefined : held !== undefined ? before : derived;
    }
    if (held !== undefined || otherUnits !== undefined || this.held.size > 0)
      this.held.set(`record#${key}`, [...(held ?? []), ...(otherUnits ?? [])]);
    const same = before === undefined ? after === undefined : after !== undefined && equalValues(before, after);
    // What is told of does not change with the entry: it is short-lived, and the entry's own array grows old.
    const was = same && after !== before ? after : before?.slice();
    if (!same) give(entry, after);
    if (held === undefined) entry.lineage = newest;
    else entry.lineage ??= newest;
    if (contributions.length === 0) this.#forget(entry);
    if (same && (!advisory || after === undefined)) return;
    const isNow = after === before ? was : after;
    const lineage = after === undefined ? touching : (entry.lineage ?? touching);
    into.push({ entity, key, before: was, after: isNow, lineage, isOfOneChange: isOfOneChange(entry) });
  }

  /**
   * Brings the quantities of a group into the unit of the record. Where that cannot be, they are what they were before, in the
   * record's unit, and what is wrong is given.
   */
  #inUnit(
    { given }: Entry,
    group: number,
    values: (string | null)[],
    unit: string,
    own: string,
    lineage: Lineage,
  ): HeldGroup | undefined {
    const { at, quantities } = this.#unit!;
    const { group: name } = this.#groups[group]!;
    const indexes = quantities.get(name);
    if (indexes === undefined || convertQuantities(values, indexes, unit, own)) return undefined;
    const field = this.#ownership.entity.fields[indexes[0]!]!.name;
    const said = this.#heldRecord(
      this.#ownership.entity.keyIndexes.map((index) => values[index] ?? '').join('/'),
      values,
      [
        {
          entity: this.#ownership.entity.name,
          key: describeKey(this.#ownership.entity, values),
          field,
          valueClass: valueClass(values[indexes[0]!]),
          rule: `must be in the unit of the record: ${own}, not ${unit}`,
        },
      ],
      lineage,
    );
    for (const index of indexes) values[index] = given?.[index] ?? null;
    const before = given?.[at];
    if (typeof before === 'string' && before !== own && !convertQuantities(values, indexes, before, own))
      for (const index of indexes) values[index] = null;
    return { ...said, group: name };
  }

  /** Lets a record go that nobody has; what was counted of it stays, since somebody may be late in telling of it. */
  #forget(entry: Entry): void {
    const { key, counters } = entry;
    for (const counter of counters?.values() ?? []) if (!counter.isBlank) return;
    for (const counter of counters?.values() ?? []) this.#counterBytes -= counter.bytes;
    this.#records.delete(key);
    entry.keeper = undefined;
  }

  #heldRecord(key: string, values: RecordValues, violations: readonly Violation[], lineage: Lineage): HeldGroup {
    const { fields } = this.#ownership.entity;
    return {
      key: key.replaceAll('\u001f', '/'),
      group: WHOLE_RECORD,
      source: lineage.source,
      violations,
      lineage,
      content: JSON.stringify(Object.fromEntries(fields.map(({ name }, index) => [name, values[index] ?? null]))),
    };
  }
}

function newestOf(lineages: readonly (Lineage | undefined)[]): Lineage | undefined {
  let newest: Lineage | undefined;
  for (const each of lineages) if (each !== undefined && (newest === undefined || isNewer(each, newest))) newest = each;
  return newest;
}

/** Whether one change made all values of a record. */
function isOfOneChange({ contributions, lineage }: Entry): boolean {
  const only = contributions[0];
  if (only === undefined || contributions.length > 1 || (only.claims?.size ?? 0) > 0) return only === undefined;
  for (const each of only.lineage) if (each !== undefined && each !== lineage) return false;
  return true;
}

/** Gives a record other values, in the array that it has. */
function give(entry: Entry, values: RecordValues | undefined): void {
  const { given } = entry;
  if (given === undefined || values === undefined) entry.given = values?.slice();
  else for (let i = 0; i < values.length; i++) if (given[i] !== values[i]) given[i] = values[i]!;
}

function equalValues(a: RecordValues, b: RecordValues): boolean {
  for (let i = 0; i < b.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
