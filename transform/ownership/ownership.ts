/**
 * Who owns what: for each group of fields of an entity, perhaps by scope, the source whose values count. Compiled when
 * the configuration is loaded, so that it costs nothing while records pass.
 */
import { z } from 'zod';
import { nearest } from '../../core/nearest.ts';
import type { Entity } from '../canonical/entity.ts';

const source = z.string().min(1);
const literals = z.union([z.string(), z.array(z.string()).min(1)]);
const scope = z.record(z.string(), literals);
const durationMs = z.number().nonnegative();

const owner = z.strictObject({
  source,
  /** Values of key fields for which it owns the group; a value that ends in `*` stands for all that begin so. */
  where: scope.optional(),
  /** Who stands in when nothing has come from the owner for so long, in order. */
  fallback: z.array(z.strictObject({ source, stale_after: durationMs })).default([]),
});
const merge = z.discriminatedUnion('merge', [
  z.strictObject({ merge: z.literal('lww'), skew: durationMs.default(300_000) }),
  z.strictObject({ merge: z.enum(['max', 'min', 'union']) }),
  z.strictObject({ merge: z.literal('rank'), order: z.array(z.string()).min(2) }),
  /** Changes of counters are added up; figures of the `reset` source (a count) are absolute. */
  z.strictObject({ merge: z.literal('delta'), reset: source.optional() }),
]);
const spec = z.union([source, z.array(owner).min(1), owner, merge]);
/**
 * The `owner` of a canonical flow: by group, or by a field of it; `default` for every other group that several sources
 * supply. Times in milliseconds.
 */
export const ownershipSchema = z.record(z.string(), spec);
/** Names no field of any entity. */
const DEFAULT = 'default';

type Spec = z.infer<typeof spec>;
export type OwnershipConfig = z.input<typeof ownershipSchema>;
export type Merge = z.infer<typeof merge>;

export interface Fallback {
  readonly source: string;
  readonly staleAfterUs: number;
}

/** An owner of a group within a scope. */
export interface Owner {
  readonly source: string;
  readonly matches: (keyValues: readonly string[]) => boolean;
  readonly fallback: readonly Fallback[];
}

export type GroupRule =
  { readonly kind: 'owner'; readonly owners: readonly Owner[] } | { readonly kind: 'merge'; readonly merge: Merge };

export interface Ownership {
  readonly entity: Entity;
  readonly rules: ReadonlyMap<string, GroupRule>;
  /** Positions of the fields that a source may write in the record of this key, fallbacks aside. */
  readonly writable: (source: string, keyValues: readonly string[]) => readonly number[];
}

/** Of an owner without a scope. */
export const EVERYWHERE: Owner['matches'] = () => true;

type Scope = ReadonlyMap<number, readonly string[]>;

/**
 * Compiles ownership. `supplied` says which groups each source's mapping fills. A group that one source alone fills
 * belongs to it; any other must be spoken for, by its name or by `default`. Problems are what is wrong: overlapping owners, unknown names, owners
 * that supply nothing.
 */
export function compileOwnership(
  entity: Entity,
  config: OwnershipConfig,
  supplied: ReadonlyMap<string, ReadonlySet<string>>,
): { ownership: Ownership; problems: string[] } {
  const problems: string[] = [];
  const rules = new Map<string, GroupRule>();
  const sources = [...supplied.keys()];
  const parsed = ownershipSchema.safeParse(config);
  if (!parsed.success)
    problems.push(...parsed.error.issues.map((issue) => `owner.${issue.path.join('.')}: ${issue.message}`));
  const { [DEFAULT]: others, ...own } = parsed.data ?? {};
  const named = new Map<string, string>();
  for (const [name, given] of Object.entries(own)) {
    const group = groupOf(entity, name);
    const at = `owner.${name}`;
    if (group === undefined) {
      const known = entity.fields.filter((field) => field.group !== '').map((field) => field.name);
      problems.push(
        `${at}: ${entity.name} has no field or group "${name}" that can be owned${hint(name, [...entity.groupIndexes.keys(), ...known])}`,
      );
      continue;
    }
    const other = named.get(group);
    if (other !== undefined) problems.push(`${at}: moves together with "${other}", which has an owner already`);
    named.set(group, name);
    for (const name of sourcesOf(given)) checkSource(name, at, group, supplied, problems);
    rules.set(group, compileRule(entity, group, given, at, problems));
  }
  if (others !== undefined) for (const name of sourcesOf(others)) checkKnown(name, 'owner.default', supplied, problems);
  for (const group of entity.groupIndexes.keys()) {
    if (rules.has(group)) continue;
    const suppliers = sources.filter((name) => supplied.get(name)!.has(group));
    const [only, second] = suppliers;
    if (only === undefined) continue;
    const given = second === undefined ? only : others === undefined ? undefined : among(others, suppliers);
    if (given === undefined)
      problems.push(`owner.${group}: ${listed(suppliers)} supply it; name its owner or how they merge`);
    else if (second === undefined) rules.set(group, compileRule(entity, group, given, `owner.${group}`, problems));
    else {
      for (const item of withoutOwner(others!, suppliers))
        problems.push(
          `owner.${group}: ${listed(suppliers)} supply it, and ${item.source}, which owner.default names${scopeText(item.where)}, does not; name its owners`,
        );
      rules.set(group, compileRule(entity, group, given, 'owner.default', problems));
    }
  }
  const writable = (name: string, keyValues: readonly string[]): readonly number[] =>
    [...rules].flatMap(([group, rule]) => {
      const may =
        rule.kind === 'merge'
          ? supplied.get(name)?.has(group) === true
          : rule.owners.some((candidate) => candidate.source === name && candidate.matches(keyValues));
      return may ? entity.groupIndexes.get(group)! : [];
    });
  // What `default` says wrongly it says of every group.
  return { ownership: { entity, rules, writable }, problems: [...new Set(problems)] };
}

/** Compiles what is said of one group. */
function compileRule(entity: Entity, group: string, given: Spec, at: string, problems: string[]): GroupRule {
  if (typeof given === 'object' && 'merge' in given) {
    const fault = mergeFault(entity, group, given);
    if (fault !== undefined) problems.push(`${at}: ${fault}`);
    return { kind: 'merge', merge: given };
  }
  const list = ownersOf(given);
  const scopes = list.map((item) => readScope(entity, item.where, at, problems));
  for (let a = 0; a < list.length; a++)
    for (let b = a + 1; b < list.length; b++)
      if (overlap(scopes[a]!, scopes[b]!))
        problems.push(
          `${at}: ${list[a]!.source} and ${list[b]!.source} own it in overlapping scopes; give each a "where" of its own`,
        );
  const owners = list.map((item, index) => ({
    source: item.source,
    matches: matcherOf(scopes[index]!, entity),
    fallback: item.fallback.map((stand) => ({ source: stand.source, staleAfterUs: stand.stale_after * 1000 })),
  }));
  return { kind: 'owner', owners };
}

function ownersOf(given: Exclude<Spec, Merge>): readonly z.infer<typeof owner>[] {
  if (typeof given === 'string') return [owner.parse({ source: given })];
  return Array.isArray(given) ? given : [given];
}

/** The sources that are named. */
function sourcesOf(given: Spec): string[] {
  if (typeof given === 'object' && 'merge' in given)
    return given.merge === 'delta' && given.reset !== undefined ? [given.reset] : [];
  return ownersOf(given).flatMap((item) => [item.source, ...item.fallback.map((stand) => stand.source)]);
}

/** What `default` says of a group that these sources supply; undefined where it names none of them. */
function among(others: Spec, suppliers: readonly string[]): Spec | undefined {
  if (typeof others === 'object' && 'merge' in others) return others;
  const list = ownersOf(others).flatMap((item) => {
    const [first, ...rest] = [{ source: item.source, stale_after: 0 }, ...item.fallback].filter((stand) =>
      suppliers.includes(stand.source),
    );
    return first === undefined ? [] : [{ ...item, source: first.source, fallback: rest }];
  });
  return list.length === 0 ? undefined : list;
}

/** The scopes of `default` for which it names none of these sources: nobody would own what lies there. */
function withoutOwner(others: Spec, suppliers: readonly string[]): readonly z.infer<typeof owner>[] {
  if (typeof others === 'object' && 'merge' in others) return [];
  return ownersOf(others).filter((item) => !sourcesOf(item).some((name) => suppliers.includes(name)));
}

function scopeText(where: z.infer<typeof scope> = {}): string {
  const parts = Object.entries(where).map(([field, values]) => `${field} ${[values].flat().join(' or ')}`);
  return parts.length === 0 ? '' : ` for ${parts.join(' and ')}`;
}

function listed(names: readonly string[]): string {
  return names.length === 2
    ? `${names.join(' and ')} both`
    : `${names.slice(0, -1).join(', ')} and ${names.at(-1)} all`;
}

/** The group that a name means: its own name, or that of one of its fields. */
function groupOf(entity: Entity, name: string): string | undefined {
  if (entity.groupIndexes.has(name)) return name;
  const index = entity.index.get(name);
  const group = index === undefined ? '' : entity.fields[index]!.group;
  return group === '' ? undefined : group;
}

function checkSource(
  name: string,
  at: string,
  group: string,
  supplied: ReadonlyMap<string, ReadonlySet<string>>,
  problems: string[],
): void {
  checkKnown(name, at, supplied, problems);
  if (supplied.get(name)?.has(group) === false) problems.push(`${at}: the mapping of ${name} does not supply it`);
}

function checkKnown(name: string, at: string, supplied: ReadonlyMap<string, unknown>, problems: string[]): void {
  if (!supplied.has(name))
    problems.push(`${at}: "${name}" is no source of this flow${hint(name, [...supplied.keys()])}`);
}

function mergeFault(entity: Entity, group: string, spec: Merge): string | undefined {
  if (spec.merge === 'lww') return undefined;
  const fields = entity.groupIndexes.get(group)!.map((index) => entity.fields[index]!);
  if (fields.length > 1 && spec.merge !== 'delta') return `${spec.merge} needs a field that stands alone`;
  const kind = fields[0]!.type.kind;
  if (spec.merge === 'union') return kind === 'json' ? undefined : 'union needs a list';
  if (spec.merge === 'delta')
    return fields.some((field) => field.type.kind === 'decimal') ? undefined : 'delta needs a quantity';
  return spec.merge === 'rank' || kind === 'decimal' || kind === 'timestamp' || kind === 'date'
    ? undefined
    : `${spec.merge} needs a number or a time`;
}

function readScope(entity: Entity, where: z.infer<typeof scope> | undefined, at: string, problems: string[]): Scope {
  const result = new Map<number, readonly string[]>();
  for (const [field, values] of Object.entries(where ?? {})) {
    const position = entity.key.indexOf(field);
    if (position < 0) problems.push(`${at}.where: ${field} is no field of the key${hint(field, entity.key)}`);
    else result.set(position, typeof values === 'string' ? [values] : values);
  }
  return result;
}

/** Scopes are apart when some field of the key cannot have a value of both. */
function overlap(a: Scope, b: Scope): boolean {
  for (const [position, values] of a) {
    const others = b.get(position);
    if (others !== undefined && !values.some((value) => others.some((other) => meet(value, other)))) return false;
  }
  return true;
}

function meet(a: string, b: string): boolean {
  if (a.endsWith('*') && b.endsWith('*')) {
    const [x, y] = [a.slice(0, -1), b.slice(0, -1)];
    return x.startsWith(y) || y.startsWith(x);
  }
  if (a.endsWith('*')) return b.startsWith(a.slice(0, -1));
  return b.endsWith('*') ? a.startsWith(b.slice(0, -1)) : a === b;
}

function matcherOf(given: Scope, entity: Entity): Owner['matches'] {
  if (given.size === 0) return EVERYWHERE;
  const tests = entity.key.flatMap((_, position) => {
    const values = given.get(position);
    if (values === undefined) return [];
    const exact = new Set(values.filter((value) => !value.endsWith('*')));
    const prefixes = values.filter((value) => value.endsWith('*')).map((value) => value.slice(0, -1));
    return [
      (keys: readonly string[]): boolean =>
        exact.has(keys[position]!) || prefixes.some((prefix) => keys[position]!.startsWith(prefix)),
    ];
  });
  return (keys) => tests.every((test) => test(keys));
}

function hint(word: string, known: readonly string[]): string {
  const near = nearest(word, known);
  return near === undefined ? '' : ` (did you mean "${near}"?)`;
}
