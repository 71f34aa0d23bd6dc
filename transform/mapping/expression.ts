/**
 * Expressions of a mapping: small, without loops, side effects or access to anything but the row and the rows it joins.
 *
 * In the file a text names a column (`quantity`, `product.default_code`), a number or boolean stands for itself, and a
 * map with one operator (`{ concat: [a, b] }`) for everything else.
 */
import { z } from 'zod';
import { nearest } from '../../core/nearest.ts';
import { canonicalDecimal } from '../canonical/decimal.ts';
import { MILESTONE_STANDARDS, type MilestoneStandard } from '../canonical/milestones.ts';
import { isTimeZone } from '../canonical/timestamp.ts';

/** Where something stands in the mapping file: keys and list indexes from the root. */
export type FilePath = readonly (string | number)[];

/** Something wrong with a mapping, at a place of its file. */
export interface MappingProblem {
  readonly path: FilePath;
  readonly message: string;
}

export interface ColumnRef {
  /** Name of the join, or '' for the row itself. */
  readonly input: string;
  /** The first of these that the table has. */
  readonly columns: readonly string[];
  /** Absent where the table has none of them: not every installation has every module. */
  readonly optional?: boolean;
}

export type Aggregate = 'sum' | 'min' | 'max' | 'count' | 'collect';
export type Comparison = 'eq' | 'ne' | 'gt' | 'ge' | 'lt' | 'le';

export type Expression = { readonly path: FilePath } & (
  | { readonly op: 'column'; readonly ref: ColumnRef }
  | { readonly op: 'const'; readonly value: string | null }
  | { readonly op: 'coalesce' | 'concat' | 'add' | 'multiply'; readonly items: readonly Expression[] }
  | { readonly op: 'subtract' | 'divide'; readonly items: readonly Expression[] }
  | { readonly op: 'negate' | 'trim' | 'upper' | 'lower' | 'decimal' | 'gtin'; readonly of: Expression }
  | {
      readonly op: 'lookup';
      readonly of: Expression;
      readonly values: ReadonlyMap<string, string | null>;
      readonly otherwise?: Expression;
    }
  | { readonly op: 'timestamp'; readonly of: Expression; readonly zone: string }
  | { readonly op: 'milestone'; readonly standard: MilestoneStandard; readonly items: readonly Expression[] }
  /** Of date, time, time code and zone. */
  | { readonly op: 'x12_time'; readonly items: readonly Expression[] }
  | { readonly op: 'convert'; readonly of: Expression; readonly from: Expression; readonly to: Expression }
  | { readonly op: 'split'; readonly of: Expression; readonly by: string; readonly at: number }
  | { readonly op: 'list'; readonly of: Expression; readonly by: string }
  | { readonly op: 'json'; readonly of: Expression; readonly keys: readonly string[] }
  | { readonly op: 'object'; readonly members: readonly (readonly [string, Expression])[] }
  | {
      readonly op: 'if';
      readonly condition: Condition;
      readonly consequent: Expression;
      readonly otherwise: Expression;
    }
  | { readonly op: 'call'; readonly name: string; readonly with: readonly Expression[] }
  | {
      readonly op: 'aggregate';
      readonly aggregate: Aggregate;
      readonly of: Expression;
      readonly where?: Condition;
      /** Of `collect`: equal values once. */
      readonly distinct?: boolean;
    }
);

export type Condition = { readonly path: FilePath } & (
  | { readonly op: 'all' | 'any'; readonly items: readonly Condition[] }
  | { readonly op: 'not'; readonly of: Condition }
  | { readonly op: 'absent' | 'truthy'; readonly of: Expression }
  | { readonly op: 'in'; readonly of: Expression; readonly values: readonly (string | null)[] }
  | { readonly op: Comparison; readonly a: Expression; readonly b: Expression }
);

const AGGREGATES = new Set<string>(['sum', 'min', 'max', 'count', 'collect']);
const COMPARISONS = new Set<string>(['eq', 'ne', 'gt', 'ge', 'lt', 'le']);
const LISTS = new Set<string>(['coalesce', 'concat', 'add', 'multiply', 'subtract', 'divide']);
const UNARY = new Set<string>(['negate', 'trim', 'upper', 'lower', 'decimal', 'gtin']);

const any = z.unknown();
const constant = z.union([z.string(), z.number(), z.boolean(), z.null()], 'must be a text, number, boolean or null');
const delimiter = z.string().min(1, 'must not be empty');
/** Shape of what stands behind an operator, where that is a map. */
const SHAPES = {
  lookup: z.strictObject({ of: any, values: z.record(z.string(), constant), else: any.optional() }),
  timestamp: z.strictObject({
    of: any,
    zone: z.string().refine(isTimeZone, 'is not a time zone that is known').optional(),
  }),
  milestone: z.strictObject({ of: any, standard: z.enum(MILESTONE_STANDARDS), classifier: any.optional() }),
  x12_time: z.strictObject({ date: any, time: any, code: any.optional(), zone: any.optional() }),
  convert: z.strictObject({ of: any, from: any, to: any }),
  split: z.strictObject({ of: any, by: delimiter, at: z.number().int().min(0) }),
  list: z.strictObject({ of: any, by: delimiter }),
  json: z.strictObject({ of: any, path: z.array(z.string()).min(1) }),
  call: z.strictObject({ function: z.string(), with: z.array(any) }),
} as const;

/** Keys that may stand beside an operator. */
const COMPANIONS: Readonly<Record<string, readonly string[]>> = {
  column: ['optional'],
  if: ['then', 'else'],
  sum: ['where'],
  min: ['where'],
  max: ['where'],
  count: ['where'],
  collect: ['where', 'distinct'],
};

/** All operators of expressions. */
export const EXPRESSION_OPERATORS: readonly string[] = [
  ...LISTS,
  ...UNARY,
  ...AGGREGATES,
  ...Object.keys(SHAPES),
  'const',
  'setting',
  'column',
  'object',
  'if',
];
/** All operators of conditions. */
export const CONDITION_OPERATORS: readonly string[] = [...COMPARISONS, 'all', 'any', 'not', 'absent', 'truthy', 'in'];

/** Reads expressions and conditions from parsed YAML, and gathers what is wrong with them. */
export class ExpressionReader {
  readonly problems: MappingProblem[] = [];
  readonly #zone: string | undefined;
  readonly #settings: ReadonlyMap<string, string>;

  /** `zone` is that of the mapping, for casts that name none; `settings` are its constants that have a name. */
  constructor(zone?: string, settings: ReadonlyMap<string, string> = new Map()) {
    this.#zone = zone;
    this.#settings = settings;
  }

  expression(value: unknown, path: FilePath): Expression {
    if (typeof value === 'string') return { op: 'column', ref: this.#column([value], path), path };
    if (value === null || typeof value === 'number' || typeof value === 'boolean')
      return { op: 'const', value: constantText(value), path };
    const node = this.#operator(value, path, EXPRESSION_OPERATORS);
    if (node === undefined) return { op: 'const', value: null, path };
    const { operator, body, map } = node;
    const at = [...path, operator];
    if (LISTS.has(operator)) {
      const items = this.#list(body, at).map((item, index) => this.expression(item, [...at, index]));
      const two = operator === 'subtract' || operator === 'divide';
      if (two && items.length !== 2) this.#report(at, `${operator} takes two values`);
      else if (items.length === 0) this.#report(at, `${operator} takes at least one value`);
      return { op: operator as 'concat', items, path };
    }
    if (UNARY.has(operator)) return { op: operator as 'trim', of: this.expression(body, at), path };
    if (AGGREGATES.has(operator)) {
      const distinct = this.#shaped(z.boolean(), map['distinct'] ?? false, [...path, 'distinct']) ?? false;
      return {
        op: 'aggregate',
        aggregate: operator as Aggregate,
        of: this.expression(body, at),
        ...(map['where'] === undefined ? {} : { where: this.condition(map['where'], [...path, 'where']) }),
        ...(distinct ? { distinct } : {}),
        path,
      };
    }
    switch (operator) {
      case 'const':
        return { op: 'const', value: constantText(this.#shaped(constant, body, at) ?? null), path };
      case 'setting':
        return { op: 'const', value: this.#setting(this.#shaped(z.string(), body, at), at), path };
      case 'column': {
        const names = this.#list(body, at).filter((name): name is string => typeof name === 'string');
        const optional = this.#shaped(z.boolean(), map['optional'] ?? false, [...path, 'optional']) ?? false;
        return { op: 'column', ref: { ...this.#column(names, at), ...(optional ? { optional } : {}) }, path };
      }
      case 'object': {
        const members = Object.entries(this.#shaped(z.record(z.string(), any), body, at) ?? {});
        return {
          op: 'object',
          members: members.map(([name, item]) => [name, this.expression(item, [...at, name])] as const),
          path,
        };
      }
      case 'if':
        return {
          op: 'if',
          condition: this.condition(body, at),
          consequent: this.expression(map['then'] ?? null, [...path, 'then']),
          otherwise: this.expression(map['else'] ?? null, [...path, 'else']),
          path,
        };
      default:
        return this.#shapedOperator(operator as keyof typeof SHAPES, body, path);
    }
  }

  condition(value: unknown, path: FilePath): Condition {
    const node = this.#operator(value, path, CONDITION_OPERATORS);
    if (node === undefined) return { op: 'any', items: [], path };
    const { operator, body } = node;
    const at = [...path, operator];
    if (COMPARISONS.has(operator)) {
      const items = this.#list(body, at);
      if (items.length !== 2) this.#report(at, `${operator} takes two values`);
      const [a, b] = [0, 1].map((index) => this.expression(items[index] ?? null, [...at, index]));
      return { op: operator as Comparison, a: a!, b: b!, path };
    }
    switch (operator) {
      case 'all':
      case 'any': {
        const items = this.#list(body, at).map((item, index) => this.condition(item, [...at, index]));
        return { op: operator, items, path };
      }
      case 'not':
        return { op: 'not', of: this.condition(body, at), path };
      case 'in': {
        const [of, values] = this.#list(body, at);
        const allowed = this.#shaped(z.array(constant).min(1), values, [...at, 1]) ?? [];
        return { op: 'in', of: this.expression(of ?? null, [...at, 0]), values: allowed.map(constantText), path };
      }
      default:
        return { op: operator as 'absent', of: this.expression(body, at), path };
    }
  }

  #shapedOperator(operator: keyof typeof SHAPES, body: unknown, path: FilePath): Expression {
    const at = [...path, operator];
    const shape = this.#shaped<Record<string, unknown>>(SHAPES[operator], body, at);
    if (shape === undefined) return { op: 'const', value: null, path };
    const of = (): Expression => this.expression(shape['of'] ?? null, [...at, 'of']);
    switch (operator) {
      case 'lookup':
        return {
          op: 'lookup',
          of: of(),
          values: new Map(
            Object.entries(shape['values'] as Record<string, z.infer<typeof constant>>).map(([key, item]) => [
              key,
              constantText(item),
            ]),
          ),
          ...('else' in shape ? { otherwise: this.expression(shape['else'], [...at, 'else']) } : {}),
          path,
        };
      case 'timestamp':
        return { op: 'timestamp', of: of(), zone: this.#zoneOf(shape['zone'] as string | undefined, at), path };
      case 'milestone': {
        const standard = shape['standard'] as MilestoneStandard;
        const hasClassifier = 'classifier' in shape;
        if (standard === 'dcsa' && !hasClassifier) this.#report(at, 'dcsa needs a classifier (PLN, EST, ACT or REQ)');
        if (standard !== 'dcsa' && hasClassifier) this.#report(at, `${standard} has no classifier`);
        const classifier = hasClassifier ? [this.expression(shape['classifier'], [...at, 'classifier'])] : [];
        return { op: 'milestone', standard, items: [of(), ...classifier], path };
      }
      case 'x12_time': {
        const parts = ['date', 'time', 'code', 'zone'];
        return {
          op: 'x12_time',
          items: parts.map((part) => this.expression(shape[part] ?? null, [...at, part])),
          path,
        };
      }
      case 'convert':
        return {
          op: 'convert',
          of: of(),
          from: this.expression(shape['from'] ?? null, [...at, 'from']),
          to: this.expression(shape['to'] ?? null, [...at, 'to']),
          path,
        };
      case 'split':
        return { op: 'split', of: of(), by: shape['by'] as string, at: shape['at'] as number, path };
      case 'list':
        return { op: 'list', of: of(), by: shape['by'] as string, path };
      case 'json':
        return { op: 'json', of: of(), keys: shape['path'] as string[], path };
      default:
        return {
          op: 'call',
          name: shape['function'] as string,
          with: (shape['with'] as unknown[]).map((item, index) => this.expression(item, [...at, 'with', index])),
          path,
        };
    }
  }

  /** The one operator of a map, what stands behind it, and the whole map; undefined after reporting why not. */
  #operator(
    value: unknown,
    path: FilePath,
    known: readonly string[],
  ): { operator: string; body: unknown; map: Record<string, unknown> } | undefined {
    if (value === null || typeof value !== 'object' || Array.isArray(value)) {
      this.#report(path, 'must be a map with one operator');
      return undefined;
    }
    const map = value as Record<string, unknown>;
    const operator = Object.keys(map).find((key) => known.includes(key));
    if (operator === undefined) {
      const [key = ''] = Object.keys(map);
      const near = nearest(key, known);
      this.#report(
        key === '' ? path : [...path, key],
        key === ''
          ? 'must have an operator'
          : `"${key}" is no operator${near === undefined ? '' : ` (did you mean "${near}"?)`}`,
      );
      return undefined;
    }
    const companions = COMPANIONS[operator] ?? [];
    for (const key of Object.keys(map))
      if (key !== operator && !companions.includes(key))
        this.#report([...path, key], `"${key}" cannot stand beside ${operator}`);
    return { operator, body: map[operator], map };
  }

  #column(names: readonly string[], path: FilePath): ColumnRef {
    const parts = names.map((name) => {
      const dot = name.indexOf('.');
      return dot < 0 ? { input: '', column: name } : { input: name.slice(0, dot), column: name.slice(dot + 1) };
    });
    const inputs = new Set(parts.map((part) => part.input));
    if (parts.some((part) => part.column === '') || parts.length === 0) this.#report(path, 'must name a column');
    if (inputs.size > 1) this.#report(path, 'alternatives of a column must belong to one table');
    return { input: parts[0]?.input ?? '', columns: parts.map((part) => part.column) };
  }

  #setting(name: string | undefined, path: FilePath): string | null {
    if (name === undefined) return null;
    const value = this.#settings.get(name);
    if (value !== undefined) return value;
    const near = nearest(name, [...this.#settings.keys()]);
    this.#report(path, `there is no setting "${name}"${near === undefined ? '' : ` (did you mean "${near}"?)`}`);
    return null;
  }

  #zoneOf(named: string | undefined, path: FilePath): string {
    const zone = named ?? this.#zone;
    if (zone === undefined) this.#report(path, 'needs a zone: here, for the mapping, or for the source of the flow');
    return zone ?? 'UTC';
  }

  #list(value: unknown, path: FilePath): readonly unknown[] {
    if (Array.isArray(value)) return value as unknown[];
    this.#report(path, 'must be a list');
    return [];
  }

  #shaped<T>(schema: z.ZodType<T>, value: unknown, path: FilePath): T | undefined {
    const result = schema.safeParse(value);
    if (result.success) return result.data;
    for (const issue of result.error.issues)
      this.#report([...path, ...(issue.path as (string | number)[])], issueText(issue));
    return undefined;
  }

  #report(path: FilePath, message: string): void {
    this.problems.push({ path, message });
  }
}

/** Whether the text that an expression gives is JSON of a structure, whatever the row: a list or an object. */
export function givesStructure(value: Expression): boolean {
  switch (value.op) {
    case 'list':
    case 'object':
      return true;
    case 'coalesce':
      return value.items.every(givesStructure);
    case 'if':
      return [value.consequent, value.otherwise].every(
        (item) => givesStructure(item) || (item.op === 'const' && item.value === null),
      );
    default:
      return false;
  }
}

/** An issue of zod in words; the unknown keys are named. */
export function issueText(issue: z.core.$ZodIssue): string {
  return issue.code === 'unrecognized_keys' ? `has the unknown key "${issue.keys.join('", "')}"` : issue.message;
}

/** A constant of YAML as a canonical value. */
export function constantText(value: string | number | boolean | null): string | null {
  if (value === null || typeof value === 'string') return value;
  return typeof value === 'boolean' ? String(value) : (canonicalDecimal(String(value)) ?? String(value));
}
