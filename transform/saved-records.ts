/**
 * Records in a saved state: many to a line, and what they share said once. Bringing 100,000 of them back is most of what a
 * transform does at its start, so that a record is a few values behind each other, and no object of its own.
 */
import type { Entity, RecordValues } from './canonical/entity.ts';
import type { Lineage } from './canonical/envelope.ts';
import type { ContributedValues } from './mapping/contribution-change.ts';
import { suppliesAny, type Contribution } from './ownership/contribution.ts';
import { SharedCounter, type SavedCounter } from './ownership/counter.ts';
import type { Entry } from './ownership/entry.ts';

type SavedLineage = readonly [source: string, table: string, key: string, position: string, time: string];
/** 0 stands for a value that is not supplied. */
export type SavedValues = readonly (string | null | 0)[];
/** Lineages are numbers of those of the record; -1 for none. */
type SavedContribution = readonly [
  source: string,
  block: number,
  values: SavedValues,
  lineages: readonly number[],
  claims: readonly (readonly [group: number, values: SavedValues | null, lineage: number])[],
];

/** A record with more to it than values and lineages. */
interface OddRecord {
  readonly key: string;
  readonly lineages: readonly SavedLineage[];
  readonly from: readonly SavedContribution[];
  readonly given?: RecordValues;
  readonly lineage: number;
  readonly counters?: readonly (readonly [group: number, SavedCounter])[];
}

/** The fields that a block of a source supplies. */
type Shape = readonly [source: string, block: number, fields: readonly number[]];
/** A table, and what stands in the JSON of all keys before and behind the key itself. */
type Origin = readonly [source: string, table: string, head: string, tail: string];
/** A transaction: the number of the origin, position, commit time. */
type Place = readonly [origin: number, position: string, time: string];

/**
 * The records behind each other. Each is the number of its contributions; for each of them the number of its shape and its
 * values; the number of its lineages; for each of them the number of its place and the key; if there are several, or one
 * that is not of all, for each group of each contribution that is supplied the number of its lineage, and that of the
 * record (-1: none), behind `SEVERAL`; and how the record was given: not at all, as the one contribution says (then the
 * derived fields follow), or with all fields. `ODD` is followed by a record with more to it.
 */
type Flat = readonly (string | number | null | OddRecord)[];

export type RecordsLine = readonly [
  'records',
  shapes: readonly Shape[],
  origins: readonly Origin[],
  places: readonly Place[],
  records: Flat,
];

const ODD = -1;
const ONE = 0;
const SEVERAL = 1;
const NOT_GIVEN = 0;
const AS_SAID = 1;
const GIVEN = 2;

/** What of an entity both sides need. */
class Fields {
  readonly groups: readonly (readonly number[])[];
  readonly derived: readonly number[];
  readonly isDerived: readonly boolean[];
  readonly keys: readonly number[];

  constructor({ fields, groupIndexes, keyIndexes }: Entity) {
    this.groups = [...groupIndexes.values()];
    this.isDerived = fields.map((field) => field.derived);
    this.derived = [...fields.keys()].filter((index) => fields[index]!.derived);
    this.keys = keyIndexes;
  }
}

/** Gathers records into lines. */
export class RecordsWriter {
  readonly #fields: Fields;
  #shapes: Shape[] = [];
  #origins: Origin[] = [];
  #places: Place[] = [];
  #flat: (string | number | null | OddRecord)[] = [];
  #shapeNumbers = new Map<string, number>();
  #originNumbers = new Map<string, number>();
  #placeNumbers = new Map<string, number>();
  /** Records of the line that is being gathered. */
  size = 0;

  constructor(entity: Entity) {
    this.#fields = new Fields(entity);
  }

  add(entry: Entry): void {
    this.size += 1;
    const { contributions, counters } = entry;
    if (
      contributions.length === 0 ||
      counters !== undefined ||
      contributions.some(({ claims }) => claims !== undefined && claims.size > 0)
    )
      this.#flat.push(ODD, oddRecord(entry));
    else this.#add(entry);
  }

  /** The line of what was added since the last one. */
  take(): RecordsLine {
    const line = ['records', this.#shapes, this.#origins, this.#places, this.#flat] as const;
    this.#shapes = [];
    this.#origins = [];
    this.#places = [];
    this.#flat = [];
    this.size = 0;
    this.#shapeNumbers = new Map();
    this.#originNumbers = new Map();
    this.#placeNumbers = new Map();
    return line;
  }

  #add({ contributions, given, lineage }: Entry): void {
    const flat = this.#flat;
    flat.push(contributions.length);
    for (const { source, index, values } of contributions) {
      const fields = [...values.keys()].filter((field) => values[field] !== undefined);
      flat.push(
        numberOf<Shape>(this.#shapeNumbers, this.#shapes, `${index} ${fields.join()} ${source}`, () => [
          source,
          index,
          fields,
        ]),
      );
      for (const field of fields) flat.push(values[field]!);
    }
    const seen: Lineage[] = [];
    for (const { lineage: all } of contributions)
      for (const each of all) if (each !== undefined && !seen.includes(each)) seen.push(each);
    flat.push(seen.length);
    for (const each of seen) this.#addLineage(each);
    if (seen.length === 1 && lineage === seen[0]) flat.push(ONE);
    else {
      flat.push(SEVERAL);
      for (const { lineage: all } of contributions)
        for (const each of all) if (each !== undefined) flat.push(seen.indexOf(each));
      // That of a record may be of none of them: it is as it was before something was held.
      const own = lineage === undefined ? -1 : seen.indexOf(lineage);
      flat.push(lineage !== undefined && own < 0 ? seen.length : own);
      if (lineage !== undefined && own < 0) this.#addLineage(lineage);
    }
    if (given === undefined) flat.push(NOT_GIVEN);
    else if (contributions.length === 1 && this.#isAsSaid(given, contributions[0]!.values)) {
      flat.push(AS_SAID);
      for (const field of this.#fields.derived) flat.push(given[field]!);
    } else flat.push(GIVEN, ...given);
  }

  #isAsSaid(given: RecordValues, values: ContributedValues): boolean {
    const { isDerived } = this.#fields;
    return given.every((value, field) => isDerived[field] === true || value === (values[field] ?? null));
  }

  #addLineage({ source, table, key, position, time }: Lineage): void {
    const { head, middle, tail } = partsOf(key);
    const from = [source, table, head, tail].join('\0');
    const origin = numberOf<Origin>(this.#originNumbers, this.#origins, from, () => [source, table, head, tail]);
    const name = `${origin} ${time} ${position}`;
    this.#flat.push(
      numberOf<Place>(this.#placeNumbers, this.#places, name, () => [origin, position, time]),
      middle,
    );
  }
}

function numberOf<T>(numbers: Map<string, number>, list: T[], name: string, make: () => T): number {
  let number = numbers.get(name);
  if (number === undefined) {
    numbers.set(name, (number = list.length));
    list.push(make());
  }
  return number;
}

/** The JSON of a key, cut behind `{"name":"` and before `"}`, where it has one column. */
function partsOf(key: string): { head: string; middle: string; tail: string } {
  const from = key.indexOf('":"') + 3;
  if (from < 3 || !key.endsWith('"}') || key.length < from + 2) return { head: '', middle: key, tail: '' };
  return { head: key.slice(0, from), middle: key.slice(from, -2), tail: '"}' };
}

function oddRecord({ key, contributions, counters, given, lineage }: Entry): OddRecord {
  const seen: Lineage[] = [];
  const numberIn = (of: Lineage | undefined): number => {
    if (of === undefined) return -1;
    const there = seen.indexOf(of);
    return there >= 0 ? there : seen.push(of) - 1;
  };
  const from = contributions.map((item): SavedContribution => {
    const claims = [...(item.claims ?? [])].map(
      ([group, claim]) =>
        [group, claim === undefined ? null : savedValues(claim.values), numberIn(claim?.lineage)] as const,
    );
    return [item.source, item.index, savedValues(item.values), item.lineage.map(numberIn), claims];
  });
  const own = numberIn(lineage);
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

export function savedValues(values: ContributedValues): SavedValues {
  return values.map((value) => (value === undefined ? 0 : value));
}

export function restoredValues(saved: SavedValues): (string | null | undefined)[] {
  return saved.map((value) => (value === 0 ? undefined : value));
}

/** A record as it is brought back. */
export type RestoredRecord = Omit<Entry, 'moment' | 'touched' | 'keeper'>;

/** Reads lines of records. */
export class RecordsReader {
  readonly #fields: Fields;
  /** Copied, so that every array has one shape and no room that it does not need. */
  readonly #blank: ContributedValues;
  readonly #absent: RecordValues;
  readonly #noLineage: readonly undefined[];

  constructor(entity: Entity) {
    this.#fields = new Fields(entity);
    this.#blank = entity.fields.map(() => undefined);
    this.#absent = entity.fields.map(() => null);
    this.#noLineage = this.#fields.groups.map(() => undefined);
  }

  /** Gives each record of a line to `take`. */
  read([, shapes, origins, places, flat]: RecordsLine, take: (record: RestoredRecord) => void): void {
    const { groups, derived, keys } = this.#fields;
    let at = 0;
    const lineageAt = (): Lineage => {
      const [origin, position, time] = places[flat[at++] as number]!;
      const [source, table, head, tail] = origins[origin]!;
      return { source, table, key: `${head}${flat[at++] as string}${tail}`, position, time };
    };
    const contributionAt = (): Contribution => {
      const [source, index, fields] = shapes[flat[at++] as number]!;
      const values = this.#blank.slice();
      for (let field = 0; field < fields.length; field++) values[fields[field]!] = flat[at++] as string | null;
      return { source, index, values, lineage: this.#noLineage.slice(), claims: undefined };
    };
    while (at < flat.length) {
      const count = flat[at++] as number;
      if (count === ODD) {
        take(restoredOdd(flat[at++] as OddRecord));
        continue;
      }
      // Alone in an array of its own size, as most are.
      const contributions = [contributionAt()];
      for (let i = 1; i < count; i++) contributions.push(contributionAt());
      const lineages: Lineage[] = [];
      for (let left = flat[at++] as number; left > 0; left--) lineages.push(lineageAt());
      let lineage: Lineage | undefined = lineages[0];
      const isOne = (flat[at++] as number) === ONE;
      for (const { values, lineage: all } of contributions)
        for (let group = 0; group < groups.length; group++)
          if (suppliesAny(values, groups[group]!)) all[group] = isOne ? lineage : lineages[flat[at++] as number];
      if (!isOne) {
        const own = flat[at++] as number;
        lineage = own === lineages.length ? lineageAt() : lineages[own];
      }
      const said = contributions[0]!.values;
      let given: (string | null)[] | undefined;
      const how = flat[at++] as number;
      if (how === AS_SAID) {
        given = this.#absent.slice();
        for (let field = 0; field < said.length; field++) given[field] = said[field] ?? null;
        for (let field = 0; field < derived.length; field++) given[derived[field]!] = flat[at++] as string | null;
      } else if (how === GIVEN) given = flat.slice(at, (at += said.length)) as (string | null)[];
      let key = said[keys[0]!]!;
      for (let part = 1; part < keys.length; part++) key += `\u001f${said[keys[part]!]!}`;
      take({ key, contributions, counters: undefined, given, lineage });
    }
  }
}

function restoredOdd({ key, lineages: told, from, given, lineage, counters }: OddRecord): RestoredRecord {
  const lineages = told.map(([source, table, row, position, time]): Lineage => {
    return { source, table, key: row, position, time };
  });
  const contributions = from.map(([source, index, saved, numbers, claimed]): Contribution => {
    const claims = claimed.map(
      ([group, said, number]) =>
        [group, said === null ? undefined : { values: restoredValues(said), lineage: lineages[number]! }] as const,
    );
    return {
      source,
      index,
      values: restoredValues(saved),
      lineage: numbers.map((number) => lineages[number]),
      claims: claims.length === 0 ? undefined : new Map(claims),
    };
  });
  return {
    key,
    contributions,
    counters:
      counters === undefined
        ? undefined
        : new Map(counters.map(([group, counter]) => [group, SharedCounter.restore(counter)])),
    given: given?.slice(),
    lineage: lineages[lineage],
  };
}

/** The keys of the records of a line that were given. */
export function givenKeys(entity: Entity, line: RecordsLine): string[] {
  const keys: string[] = [];
  new RecordsReader(entity).read(line, ({ key, given }) => {
    if (given !== undefined) keys.push(key);
  });
  return keys;
}
