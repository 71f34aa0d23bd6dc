/** Expressions compiled to functions over the joined rows: closures, built once for a mapping. */
import {
  addDecimals,
  canonicalDecimal,
  compareDecimals,
  divideDecimals,
  isCanonicalDecimal,
  multiplyDecimals,
  negateDecimal,
  subtractDecimals,
} from '../canonical/decimal.ts';
import { valueClass } from '../canonical/field-type.ts';
import { gtin14 } from '../canonical/gs1.ts';
import { milestoneOf } from '../canonical/milestones.ts';
import { canonicalTimestamp, isTimeZone } from '../canonical/timestamp.ts';
import { convertUnit } from '../canonical/unit-conversion.ts';
import { x12Timestamp } from '../canonical/x12-time.ts';
import { Fault, isFault, type Cell } from './cell.ts';
import type { ColumnRef, Condition, Expression } from './expression.ts';

/** The values of a row of a source table that a mapping uses, positional by the table's slots. */
export interface Row {
  readonly key: string;
  readonly values: readonly Cell[];
}

/** The row itself first, then the rows it joins in the order of the block; null where an optional join found none. */
export type JoinedRows = readonly (Row | null)[];

export type Evaluator = (rows: JoinedRows) => Cell;
export type Test = (rows: JoinedRows) => boolean | Fault;

/** A function of a mapping's module: pure, from texts to text. A thrown Error becomes a fault with its message. */
export type MappingFunction = (...values: (string | null)[]) => string | null;

export interface CompileScope {
  /** Where a column stands: the number of its input, and its slot there. */
  readonly locate: (ref: ColumnRef, raw: boolean) => { input: number; slot: number };
  readonly functions: ReadonlyMap<string, MappingFunction>;
}

const NO_ZONE_NEEDED = /(?:Z|[+-]\d\d(?::?\d\d)?)$/;

export function compileExpression(expression: Expression, scope: CompileScope, raw = false): Evaluator {
  const compile = (inner: Expression): Evaluator => compileExpression(inner, scope);
  switch (expression.op) {
    case 'column': {
      const { input, slot } = scope.locate(expression.ref, raw);
      return (rows) => rows[input]?.values[slot] ?? null;
    }
    case 'const': {
      const { value } = expression;
      return () => value;
    }
    case 'coalesce': {
      const items = expression.items.map(compile);
      return (rows) => {
        for (const item of items) {
          const cell = item(rows);
          if (cell !== null) return cell;
        }
        return null;
      };
    }
    case 'concat':
      return overAll(expression.items.map(compile), (texts) => texts.join(''));
    case 'add':
      return overAll(expression.items.map(compile), decimalsOnly(addDecimals));
    case 'multiply':
      return overAll(expression.items.map(compile), decimalsOnly(multiplyDecimals));
    case 'subtract':
      return overAll(
        expression.items.map(compile),
        decimalsOnly(([a, b]) => subtractDecimals(a!, b!)),
      );
    case 'divide':
      return overAll(
        expression.items.map(compile),
        decimalsOnly(([a, b]) => divideDecimals(a!, b!) ?? new Fault('must not be divided by zero', valueClass(b))),
      );
    case 'negate':
      return overText(
        compile(expression.of),
        decimalsOnly(([a]) => negateDecimal(a!)),
      );
    case 'trim':
      return overText(compile(expression.of), ([text]) => text!.trim() || null);
    case 'upper':
      return overText(compile(expression.of), ([text]) => text!.toUpperCase());
    case 'lower':
      return overText(compile(expression.of), ([text]) => text!.toLowerCase());
    case 'decimal':
      return overText(compile(expression.of), ([text]) => {
        return canonicalDecimal(text!.trim()) ?? new Fault('must be a decimal number', valueClass(text));
      });
    case 'gtin':
      return overText(compile(expression.of), ([text]) => {
        return (
          gtin14(text!.trim()) ??
          new Fault('must be a GTIN of 8, 12, 13 or 14 digits with check digit', valueClass(text))
        );
      });
    case 'lookup': {
      const { values } = expression;
      const otherwise = expression.otherwise === undefined ? undefined : compile(expression.otherwise);
      const of = compile(expression.of);
      return (rows) => {
        const cell = of(rows);
        if (isFault(cell)) return cell;
        const found = cell === null ? undefined : values.get(cell);
        if (found !== undefined) return found;
        if (otherwise !== undefined) return otherwise(rows);
        return cell === null ? null : new Fault('must be in the look-up table of the mapping', valueClass(cell));
      };
    }
    case 'timestamp': {
      const { zone } = expression;
      return overText(compileExpression(expression.of, scope, true), ([text]) => {
        const result = canonicalTimestamp(text!, NO_ZONE_NEEDED.test(text!) && /[T:]/.test(text!) ? undefined : zone);
        return 'text' in result
          ? result.text
          : new Fault(`must be a timestamp that can be read: ${result.fault}`, valueClass(text));
      });
    }
    case 'milestone': {
      const { standard } = expression;
      return overAll(
        expression.items.map(compile),
        ([word, classifier]) => milestoneOf(standard, word!, classifier ?? '') ?? null,
      );
    }
    case 'x12_time':
      return x12Time(expression.items.map(compile));
    case 'convert':
      return overAll([expression.of, expression.from, expression.to].map(compile), ([quantity, from, to]) => {
        if (!isCanonicalDecimal(quantity!)) return new Fault('must be a decimal number', valueClass(quantity));
        return convertUnit(quantity!, from!, to!) ?? new Fault('must be in a unit that converts', valueClass(from));
      });
    case 'split': {
      const { by, at } = expression;
      return overText(compile(expression.of), ([text]) => text!.split(by)[at]?.trim() || null);
    }
    case 'list': {
      const { by } = expression;
      return overText(compile(expression.of), ([text]) => {
        const items = text!
          .split(by)
          .map((item) => item.trim())
          .filter((item) => item !== '');
        return items.length === 0 ? null : JSON.stringify(items);
      });
    }
    case 'json': {
      const { keys } = expression;
      return overText(compile(expression.of), ([text]) => jsonAt(text!, keys));
    }
    case 'object': {
      const members = expression.members.map(([name, item]) => [name, compile(item)] as const);
      return (rows) => {
        const object: Record<string, string> = {};
        for (const [name, item] of members) {
          const cell = item(rows);
          if (isFault(cell)) return cell;
          if (cell !== null) object[name] = cell;
        }
        return Object.keys(object).length === 0 ? null : JSON.stringify(object);
      };
    }
    case 'if': {
      const test = compileCondition(expression.condition, scope);
      const then = compile(expression.consequent);
      const otherwise = compile(expression.otherwise);
      return (rows) => {
        const result = test(rows);
        return typeof result === 'boolean' ? (result ? then(rows) : otherwise(rows)) : result;
      };
    }
    case 'call':
      return compileCall(scope.functions.get(expression.name), expression.with.map(compile));
    default:
      return compile(expression.of);
  }
}

export function compileCondition(condition: Condition, scope: CompileScope): Test {
  switch (condition.op) {
    case 'all':
    case 'any': {
      const items = condition.items.map((item) => compileCondition(item, scope));
      const decides = condition.op === 'any';
      return (rows) => {
        for (const item of items) {
          const result = item(rows);
          if (typeof result !== 'boolean' || result === decides) return result;
        }
        return !decides;
      };
    }
    case 'not': {
      const test = compileCondition(condition.of, scope);
      return (rows) => {
        const result = test(rows);
        return typeof result === 'boolean' ? !result : result;
      };
    }
    case 'absent':
      return onCell(compileExpression(condition.of, scope), (cell) => cell === null);
    case 'truthy':
      return onCell(
        compileExpression(condition.of, scope),
        (cell) => cell !== null && cell !== 'false' && cell !== '0' && cell !== '' && cell !== 'f',
      );
    case 'in': {
      const values = new Set(condition.values);
      return onCell(compileExpression(condition.of, scope), (cell) => values.has(cell));
    }
    default: {
      const a = compileExpression(condition.a, scope);
      const b = compileExpression(condition.b, scope);
      const decide = COMPARE[condition.op];
      return (rows) => {
        const left = a(rows);
        if (isFault(left)) return left;
        const right = b(rows);
        return isFault(right) ? right : decide(left, right);
      };
    }
  }
}

type Compare = (a: string | null, b: string | null) => boolean;
const ordered =
  (accept: (sign: number) => boolean): Compare =>
  (a, b) =>
    a !== null && b !== null && accept(compareTexts(a, b));
const COMPARE: Readonly<Record<'eq' | 'ne' | 'gt' | 'ge' | 'lt' | 'le', Compare>> = {
  eq: (a, b) => a === b,
  ne: (a, b) => a !== b,
  gt: ordered((sign) => sign > 0),
  ge: ordered((sign) => sign >= 0),
  lt: ordered((sign) => sign < 0),
  le: ordered((sign) => sign <= 0),
};

/** Numbers by value; other texts, canonical timestamps among them, by their characters. */
export function compareTexts(a: string, b: string): -1 | 0 | 1 {
  if (isCanonicalDecimal(a) && isCanonicalDecimal(b)) return compareDecimals(a, b);
  return a < b ? -1 : a > b ? 1 : 0;
}

function onCell(evaluate: Evaluator, test: (cell: string | null) => boolean): Test {
  return (rows) => {
    const cell = evaluate(rows);
    return isFault(cell) ? cell : test(cell);
  };
}

/** Applies `work` to texts; a fault or an absent value passes instead. */
function overAll(items: readonly Evaluator[], work: (texts: readonly string[]) => Cell): Evaluator {
  return (rows) => {
    const texts: string[] = [];
    for (const item of items) {
      const cell = item(rows);
      if (typeof cell !== 'string') return cell;
      texts.push(cell);
    }
    return work(texts);
  };
}

function overText(item: Evaluator, work: (texts: readonly string[]) => Cell): Evaluator {
  return overAll([item], work);
}

function decimalsOnly(work: (decimals: readonly string[]) => Cell): (texts: readonly string[]) => Cell {
  return (texts) => {
    for (const text of texts)
      if (!isCanonicalDecimal(text)) return new Fault('must be a decimal number', valueClass(text));
    return work(texts);
  };
}

/** A date, a time, a time code and a zone; the last two may be absent. */
function x12Time(parts: readonly Evaluator[]): Evaluator {
  return (rows) => {
    const texts: (string | null)[] = [];
    for (const part of parts) {
      const cell = part(rows);
      if (isFault(cell)) return cell;
      texts.push(cell);
    }
    const [date, time, code, zone] = texts as [string | null, string | null, string | null, string | null];
    if (date === null || time === null) return null;
    const isKnown = zone !== null && isTimeZone(zone);
    const result = x12Timestamp(date, time, code ?? undefined, isKnown ? zone : undefined);
    if ('text' in result) return result.text;
    if (zone !== null && !isKnown && result.fault === 'no time zone')
      return new Fault('must be a time zone that is known', valueClass(zone));
    return new Fault(`must be a date and a time as X12 writes them: ${result.fault}`, valueClass(`${date} ${time}`));
  };
}

function jsonAt(text: string, keys: readonly string[]): Cell {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return new Fault('must be JSON', valueClass(text));
  }
  for (const key of keys)
    value = value !== null && typeof value === 'object' ? (value as Record<string, unknown>)[key] : undefined;
  if (value === undefined || value === null) return null;
  if (typeof value === 'string') return value;
  // A number of JSON may have lost digits on the way through a double: only what is exact passes.
  if (typeof value === 'number')
    return Number.isSafeInteger(value) ? String(value) : new Fault('must be JSON text, or a whole number', 'a number');
  return typeof value === 'boolean' ? String(value) : JSON.stringify(value);
}

function compileCall(called: MappingFunction | undefined, items: readonly Evaluator[]): Evaluator {
  if (called === undefined) return () => new Fault('needs a function that the module does not have', 'absent');
  return (rows) => {
    const values: (string | null)[] = [];
    for (const item of items) {
      const cell = item(rows);
      if (isFault(cell)) return cell;
      values.push(cell);
    }
    try {
      return called(...values);
    } catch (thrown) {
      if (!(thrown instanceof Error)) throw thrown;
      return new Fault(thrown.message, values.map(valueClass).join(', '));
    }
  };
}
