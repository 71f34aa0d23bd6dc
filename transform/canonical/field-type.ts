/**
 * The types of canonical fields. A zod schema is the single description of a field: it gives the TypeScript type and
 * the JSON Schema by itself, and carries the rest (type of the target's column, the check of the text on the wire) in
 * a registry.
 *
 * On the wire every value is text or null, as in frames; `decode` gives the value of the record as an object, where
 * booleans are booleans, integers are numbers and structures are structures.
 */
import { z } from 'zod';
import { isCountry, isCurrency, isLocode, isUnit } from './codes.ts';
import { isCanonicalDecimal, isNegative } from './decimal.ts';
import { glnFault, graiFault, gtin14Fault, ssccFault } from './gs1.ts';
import { isCanonicalDate, isCanonicalTimestamp } from './timestamp.ts';

/** What kind of value a mapping must deliver for a field. */
export type ValueKind = 'text' | 'decimal' | 'integer' | 'boolean' | 'timestamp' | 'date' | 'json';

export interface FieldType {
  readonly name: string;
  readonly kind: ValueKind;
  /** Type of the column in a Postgres target. */
  readonly sql: string;
  /** The rule that a text breaks, or undefined. Never quotes the text. */
  readonly fault: (text: string) => string | undefined;
  readonly decode: (text: string) => unknown;
  /** Of a closed set of words: all of them. */
  readonly words?: readonly string[];
}

const TYPES = z.registry<FieldType>();

/** The type registered for a schema made here, also below `.nullable()`. */
export function fieldTypeOf(schema: z.core.$ZodType): { type: FieldType; nullable: boolean } {
  const nullable = schema instanceof z.ZodNullable;
  const type = TYPES.get(nullable ? schema.unwrap() : schema);
  if (type === undefined) throw new TypeError('a field of an entity must be made by the functions of field-type.ts');
  return { type, nullable };
}

const keep = (text: string): string => text;

/** A field whose value is text with a rule. `pattern` is the part of the rule that JSON Schema can say. */
function textType(
  name: string,
  fault: (text: string) => string | undefined,
  options: { pattern?: RegExp; kind?: ValueKind; sql?: string } = {},
): () => z.ZodString {
  return () => {
    const base = options.pattern === undefined ? z.string() : z.string().regex(options.pattern);
    const schema = base.superRefine((value, context) => {
      const rule = fault(value);
      if (rule !== undefined) context.addIssue({ code: 'custom', message: rule });
    });
    TYPES.add(schema, { name, kind: options.kind ?? 'text', sql: options.sql ?? 'text', fault, decode: keep });
    return schema;
  };
}

const MAX_CODE_LENGTH = 200;

function codeFault(text: string): string | undefined {
  if (text === '') return 'must not be empty';
  return keyPartFault(text);
}

function keyPartFault(text: string): string | undefined {
  if (text.length > MAX_CODE_LENGTH) return `must have at most ${MAX_CODE_LENGTH} characters`;
  if (text.trim() !== text) return 'must not begin or end with white space';
  // Control characters never belong into a key: they cannot be seen, and Postgres refuses a zero byte.
  return hasControl(text) ? 'must not hold control characters' : undefined;
}

function hasControl(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x20 || code === 0x7f) return true;
  }
  return false;
}

/** Free text. */
export const text = textType('text', (value) => (value.includes('\0') ? 'must not hold a zero byte' : undefined));
/** An identifier: not empty, at most 200 characters, no white space around it, no control characters. */
export const code = textType('code', codeFault);
/** A part of a key that may be absent: the empty text then, since a key holds no NULL. */
export const keyPart = textType('key part', keyPartFault);

const DECIMAL_PATTERN = /^-?(0|[1-9]\d*)(\.\d*[1-9])?$/;
const decimalFault = (value: string): string | undefined =>
  isCanonicalDecimal(value) ? undefined : 'must be a decimal number';
const notNegativeFault = (value: string): string | undefined =>
  decimalFault(value) ?? (isNegative(value) ? 'must not be negative' : undefined);

/** A quantity, which may be negative, in the unit of the record. */
export const quantity = textType('quantity', decimalFault, {
  pattern: DECIMAL_PATTERN,
  kind: 'decimal',
  sql: 'numeric',
});
/** A quantity, weight, length or price that cannot be negative. */
export const positive = textType('non-negative quantity', notNegativeFault, {
  pattern: DECIMAL_PATTERN,
  kind: 'decimal',
  sql: 'numeric',
});
/** Money, in the currency of the record. */
export const amount = textType('amount', decimalFault, { pattern: DECIMAL_PATTERN, kind: 'decimal', sql: 'numeric' });
export const latitude = textType('latitude', (value) => rangeFault(value, 90), { kind: 'decimal', sql: 'numeric' });
export const longitude = textType('longitude', (value) => rangeFault(value, 180), { kind: 'decimal', sql: 'numeric' });

function rangeFault(value: string, limit: number): string | undefined {
  return (
    decimalFault(value) ?? (Math.abs(Number(value)) > limit ? `must lie between -${limit} and ${limit}` : undefined)
  );
}

export const timestamp = textType(
  'timestamp',
  (value) => (isCanonicalTimestamp(value) ? undefined : 'must be an RFC 3339 time in UTC with six digits of a second'),
  { pattern: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/, kind: 'timestamp', sql: 'timestamp with time zone' },
);
export const date = textType('date', (value) => (isCanonicalDate(value) ? undefined : 'must be a day, YYYY-MM-DD'), {
  pattern: /^\d{4}-\d\d-\d\d$/,
  kind: 'date',
  sql: 'date',
});

export const gtin14 = textType('GTIN', gtin14Fault, { pattern: /^\d{14}$/ });
export const gln = textType('GLN', glnFault, { pattern: /^\d{13}$/ });
export const sscc = textType('SSCC', ssccFault, { pattern: /^\d{18}$/ });
export const grai = textType('GRAI', graiFault, { pattern: /^0\d{13}/ });

export const unit = textType('unit', (value) =>
  isUnit(value) ? undefined : 'must be a unit of UN/ECE Recommendation 20',
);
export const currency = textType('currency', (value) =>
  isCurrency(value) ? undefined : 'must be a currency of ISO 4217',
);
export const country = textType('country', (value) =>
  isCountry(value) ? undefined : 'must be a country of ISO 3166-1 alpha-2',
);
export const locode = textType('UN/LOCODE', (value) => (isLocode(value) ? undefined : 'must be a UN/LOCODE'));

/** One of a closed set of words. */
export function oneOf<const Words extends readonly [string, ...string[]]>(
  words: Words,
): z.ZodEnum<{
  [Word in Words[number]]: Word;
}> {
  const schema = z.enum(words);
  const known = new Set<string>(words);
  const rule = `must be one of ${words.join(', ')}`;
  TYPES.add(schema, {
    name: 'word',
    kind: 'text',
    sql: 'text',
    fault: (value) => (known.has(value) ? undefined : rule),
    decode: keep,
    words,
  });
  return schema as z.ZodEnum<{ [Word in Words[number]]: Word }>;
}

/** Yes or no: `true` or `false` on the wire. */
export function flag(): z.ZodBoolean {
  const schema = z.boolean();
  TYPES.add(schema, {
    name: 'flag',
    kind: 'boolean',
    sql: 'boolean',
    fault: (value) => (value === 'true' || value === 'false' ? undefined : 'must be true or false'),
    decode: (value) => value === 'true',
  });
  return schema;
}

/** A structure, checked by a schema of its own; its JSON text on the wire. */
export function structure<Shape extends z.ZodType>(shape: Shape): Shape {
  const schema = shape.clone();
  TYPES.add(schema, {
    name: 'structure',
    kind: 'json',
    sql: 'jsonb',
    fault: (value) => structureFault(shape, value),
    decode: (value) => JSON.parse(value) as unknown,
  });
  return schema;
}

function structureFault(shape: z.ZodType, value: string): string | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(value);
  } catch {
    return 'must be JSON';
  }
  const result = shape.safeParse(parsed);
  if (result.success) return undefined;
  const issue = result.error.issues[0]!;
  const at = issue.path.map(String).join('.');
  // Messages of zod's own checks may quote the value's type and never the value; those of ours neither.
  return at === '' ? issue.message : `${issue.message} at ${at}`;
}

/** Class of a value, for errors that must not show it. */
export function valueClass(value: string | null | undefined): string {
  if (value === undefined) return 'absent';
  if (value === null) return 'null';
  if (value === '') return 'empty text';
  const length = value.length === 1 ? '1 character' : `${value.length} characters`;
  if (/^\d+$/.test(value)) return `digits of ${length}`;
  if (isCanonicalDecimal(value)) return `a number of ${length}`;
  if (/^[A-Za-z]+$/.test(value)) return `letters of ${length}`;
  return `text of ${length}`;
}
