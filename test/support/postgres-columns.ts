/** The column types of Postgres with random values as SQL expressions, for the mapping tests. */
import type { Random } from '../../sandbox/demo/random.ts';

export interface PostgresColumn {
  readonly name: string;
  readonly type: string;
  /** A random value as an SQL expression. */
  readonly value: (random: Random) => string;
}

const POOL = Array.from('abcXYZ 019_\'"\\\\\t\n,{}äßé漢字🚚%');

function text(random: Random, most: number): string {
  return Array.from({ length: random.between(0, most) }, () => random.pick(POOL)).join('');
}

function quoted(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
}

function whole(bits: number): (random: Random) => string {
  const low = -(1n << BigInt(bits - 1));
  const span = 1n << BigInt(bits);
  return (random) =>
    random.chance(0.2)
      ? random.pick([`'${low}'`, String(-low - 1n), '0', '-1'])
      : `'${low + (random.bytes(8).readBigUInt64LE() % span)}'`;
}

function decimal(digits: number, scale: number): (random: Random) => string {
  const some = (random: Random, count: number): string =>
    Array.from({ length: count }, () => random.between(0, 9)).join('');
  return (random) =>
    `'${random.pick(['', '-'])}${some(random, random.between(1, digits - scale))}.${some(random, random.between(1, scale))}'`;
}

const two = (value: number): string => String(value).padStart(2, '0');
const day = (random: Random): string =>
  `${String(random.pick([1, 44, 1970, 2024, 9999, random.between(1, 9999)])).padStart(4, '0')}-${two(random.between(1, 12))}-${two(random.between(1, 28))}`;
const clock = (random: Random): string =>
  `${two(random.between(0, 23))}:${two(random.between(0, 59))}:${two(random.between(0, 59))}.${random.between(0, 999_999)}`;
const bits = (random: Random, count: number): string =>
  Array.from({ length: count }, () => random.between(0, 1)).join('');

function json(random: Random, depth = 2): string {
  if (depth > 0 && random.chance(0.6)) {
    const items = Array.from({ length: random.between(0, 4) }, () => json(random, depth - 1));
    if (random.chance(0.5)) return `[${items.join(', ')}]`;
    return `{${items.map((item, index) => `${JSON.stringify(text(random, 5) + index)}: ${item}`).join(', ')}}`;
  }
  return random.pick([
    'null',
    'true',
    String(random.between(-1e9, 1e9)),
    '9223372036854775807',
    `${random.between(-99, 99)}.${random.between(0, 99)}`,
    JSON.stringify(text(random, 10)),
  ]);
}

const double = (random: Random): string => {
  const value = random.bytes(8).readDoubleLE();
  return `'${Number.isFinite(value) ? value : 0.1}'`;
};
const single = (random: Random): string => {
  const value = random.bytes(4).readFloatLE();
  return `'${Number.isFinite(value) ? value : 0.1}'`;
};

export const POSTGRES_TYPES =
  "CREATE TYPE mood AS ENUM ('sad', 'it''s', 'Größe'); CREATE DOMAIN price AS numeric(12,4); CREATE TYPE pair AS (a int, b text)";

const TYPES: readonly (readonly [type: string, value: (random: Random) => string])[] = [
  ['smallint', whole(16)],
  ['integer', whole(32)],
  ['bigint', whole(64)],
  ['oid', (random) => `'${random.between(0, 4_294_967_295)}'`],
  ['numeric', decimal(60, 28)],
  ['numeric(12,4)', decimal(12, 4)],
  ['numeric(60,20)', decimal(60, 20)],
  ['numeric(5,-2)', (random) => String(random.between(-9_999_999, 9_999_999))],
  ['real', single],
  ['double precision', double],
  ['boolean', (random) => random.pick(['true', 'false'])],
  ['bytea', (random) => `'\\x${random.bytes(random.between(0, 60)).toString('hex')}'`],
  ['character(6)', (random) => quoted(text(random, 6))],
  ['character varying(30)', (random) => quoted(text(random, 30))],
  ['text', (random) => quoted(text(random, 200))],
  ['date', (random) => `'${day(random)}'`],
  ['timestamp(3) without time zone', (random) => `'${day(random).replace('9999', '9998')} ${clock(random)}'`],
  ['timestamp without time zone', (random) => `'${day(random)} ${clock(random)}'`],
  ['timestamp with time zone', (random) => `'${day(random)} ${clock(random)}+00'`],
  ['time without time zone', (random) => random.pick(["'24:00:00'", `'${clock(random)}'`])],
  ['time with time zone', (random) => `'${clock(random)}+05:30'`],
  ['interval', (random) => `'${random.between(-99, 99)} mons ${random.between(-999, 999)} days ${clock(random)}'`],
  ['json', (random) => quoted(json(random))],
  ['jsonb', (random) => quoted(json(random))],
  ['uuid', () => 'gen_random_uuid()'],
  ['inet', (random) => random.pick(["'192.168.0.1/24'", "'::1'", `'${[...random.bytes(4)].join('.')}'`])],
  ['cidr', (random) => `'10.${random.between(0, 255)}.0.0/16'`],
  ['macaddr', () => "'08:00:2b:01:02:03'"],
  ['bit(7)', (random) => `B'${bits(random, 7)}'`],
  ['bit(64)', (random) => `B'${bits(random, 64)}'`],
  ['bit(70)', (random) => `B'${bits(random, 70)}'`],
  ['bit varying(20)', (random) => `B'${bits(random, random.between(0, 20))}'`],
  ['integer[]', (random) => `ARRAY[${random.between(0, 9)}, NULL, -1]::integer[]`],
  ['text[]', (random) => `ARRAY[${quoted(text(random, 5))}, NULL, 'NULL']`],
  ['int4range', (random) => `int4range(${random.between(0, 9)}, ${random.between(10, 99)})`],
  ['point', (random) => `point(${random.between(-9, 9)}, 1.5)`],
  ['xml', () => "'<a>1</a>'"],
  ['tsvector', () => "to_tsvector('simple', 'a fat cat')"],
  ['money', (random) => String(random.between(-1000, 1000))],
  ['mood', (random) => random.pick(["'sad'", "'it''s'", "'Größe'"])],
  ['price', decimal(12, 4)],
  ['pair', (random) => `ROW(${random.between(0, 9)}, ${quoted(text(random, 5))})::pair`],
];

export const POSTGRES_COLUMNS: readonly PostgresColumn[] = TYPES.map(([type, value], index) => ({
  name: `c${index}`,
  type,
  value,
}));
