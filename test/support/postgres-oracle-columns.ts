/** Every column type of Postgres 14 to 18 with values at the edges and random ones, as SQL expressions. */
import type { Random } from '../../sandbox/demo/random.ts';
import { POSTGRES_COLUMNS } from './postgres-columns.ts';

export interface OracleColumn {
  readonly name: string;
  readonly type: string;
  readonly value: (random: Random) => string;
}

/** What the types below are made of; run once in a database. */
export const ORACLE_TYPES = `
CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION cube; CREATE EXTENSION isn;
CREATE TYPE mood AS ENUM ('sad', 'it''s', 'Größe');
CREATE DOMAIN price AS numeric(12,4);
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN codes AS text[] CHECK (array_length(VALUE, 1) IS NULL OR array_length(VALUE, 1) < 9);
CREATE DOMAIN deep AS price CHECK (VALUE > -100000000);
CREATE TYPE nested AS (p pair, q pair[], m mood, "Mixed Case" price);
CREATE TYPE floats AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE SCHEMA "Odd schema"; CREATE TYPE "Odd schema"."Odd type" AS ENUM ('A', 'b "c"', 'd,e');`;

/** Values at the edges, taken by chance. */
const EDGES: readonly (readonly [type: string, edges: readonly string[], since?: number])[] = [
  [
    'numeric',
    [
      `'NaN'`,
      `'Infinity'`,
      `'-Infinity'`,
      `'0'`,
      `'-0.000'`,
      `'1e-1000'`,
      `'1e1000'`,
      `'12345678901234567890.123456789'`,
    ],
  ],
  ['real', [`'NaN'`, `'Infinity'`, `'-Infinity'`, `'-0'`, `'1.17549435e-38'`, `'3.4028235e38'`, `'1e-45'`]],
  ['double precision', [`'NaN'`, `'Infinity'`, `'-Infinity'`, `'-0'`, `'5e-324'`, `'1.7976931348623157e308'`, `'0.1'`]],
  ['date', [`'infinity'`, `'-infinity'`, `'0044-03-15 BC'`, `'4713-01-01 BC'`, `'5874897-12-31'`, `'2024-02-29'`]],
  [
    'timestamp without time zone',
    [
      `'infinity'`,
      `'-infinity'`,
      `'0044-03-15 12:00:00.000001 BC'`,
      `'294276-12-31 23:59:59.999999'`,
      `'1969-12-31 23:59:59.999999'`,
    ],
  ],
  [
    'timestamp with time zone',
    [
      `'infinity'`,
      `'-infinity'`,
      `'0001-01-01 00:00:00+00 BC'`,
      `'294276-12-31 23:59:59.999999+00'`,
      `'2024-03-31 02:30:00 Europe/Berlin'`,
    ],
  ],
  ['time without time zone', [`'00:00'`, `'24:00'`, `'23:59:59.999999'`]],
  ['time with time zone', [`'24:00+00'`, `'00:00-15:59:59'`, `'12:00+15:59'`]],
  [
    'interval',
    [
      `'0'`,
      `'-178000000 years'`,
      `'1 mon -1 day 00:00:00.000001'`,
      `'-1 mon 3 days -00:00:00.000001'`,
      `'1 year 2 mons 3 days 04:05:06.7'`,
    ],
  ],
  ['interval', [`'infinity'`, `'-infinity'`], 17],
  ['interval hour to second(2)', [`'1 day 01:02:03.456'`, `'-00:00:00.01'`]],
  [
    'text',
    [
      `''`,
      `' '`,
      `E'\\\\N'`,
      `E'\\\\.'`,
      `E'a\\tb\\nc\\rd\\\\e'`,
      `E'\\u0001\\u007f'`,
      `'NULL'`,
      `'🚚 e\u0301 é'`,
      `repeat('x', 3000)`,
    ],
  ],
  ['character varying(7)', [`''`, `'1234567'`, `'a  '`]],
  ['character(5)', [`''`, `'ab'`, `'abcde'`]],
  ['"char"', [`'a'`, `''`, `E'\\\\'`]],
  ['name', [`'A name'`, `repeat('n', 63)`]],
  ['bytea', [`''`, `'\\x00'`, `'\\x5c5c4e0a'`, `decode(repeat('ff', 3000), 'hex')`]],
  ['bit(3)', [`B'000'`, `B'101'`]],
  ['bit varying', [`B''`, `B'1'`, `repeat('10', 100)::varbit`]],
  ['boolean', ['true', 'false']],
  ['smallint', ['-32768', '32767']],
  ['bigint', [`'-9223372036854775808'`, '9223372036854775807', '9007199254740993']],
  ['oid', ['0', '4294967295']],
  ['xid', [`'0'`, `'4294967295'`]],
  ['xid8', [`'18446744073709551615'`]],
  ['cid', [`'7'`]],
  ['tid', [`'(0,1)'`, `'(4294967295,65535)'`]],
  ['pg_lsn', [`'0/0'`, `'FFFFFFFF/FFFFFFFF'`]],
  ['pg_snapshot', [`'10:20:10,14,15'`]],
  ['money', [`'-92233720368547758.08'`, `'0.01'`]],
  ['uuid', [`'00000000-0000-0000-0000-000000000000'`, `'FFFFFFFF-ffff-ffff-ffff-ffffffffffff'`]],
  ['inet', [`'0.0.0.0/0'`, `'::/0'`, `'::ffff:1.2.3.4'`, `'10.1.2.3/8'`]],
  ['cidr', [`'0.0.0.0/0'`, `'2001:db8::/32'`]],
  ['macaddr8', [`'08:00:2b:01:02:03:04:05'`]],
  ['json', [`'{"a": 1.0 , "a":2}'`, `'null'`, `'"\\u00e9"'`, `'[1e400, 12345678901234567890]'`]],
  ['jsonb', [`'{"b":1,"a":[1.50, null]}'`, `'1e5'`, `'"\\u00e9"'`, `'{}'`]],
  ['jsonpath', [`'$.a[*] ? (@.b > 1)'`]],
  ['xml', [`'<a b="1">&lt;</a>'`, `''`]],
  ['tsvector', [`'a:1A b:2 ''it''''s'''`, `''`]],
  ['tsquery', [`'a & !b | c:*'`, `''`]],
  ['point', [`'(1e-10,-0)'`, `'(Infinity,NaN)'`]],
  ['line', [`'{1,2,3}'`]],
  ['lseg', [`'[(0,0),(1,1)]'`]],
  ['box', [`'(3,4),(1,2)'`]],
  ['path', [`'((0,0),(1,1))'`, `'[(0,0),(1,1)]'`]],
  ['polygon', [`'((0,0),(1,1),(2,0))'`]],
  ['circle', [`'<(1,2),3.5>'`]],
  ['int4range', [`'empty'`, `'(,)'`, `'[1,5]'`]],
  ['numrange', [`'[1.50,2.5)'`, `'(,NaN]'`]],
  ['tstzrange', [`'[2024-01-01 00:00+02,infinity]'`, `'["0044-01-01 00:00:00+00 BC",)'`]],
  ['daterange', [`'[2024-01-01,2024-12-31]'`, `'[-infinity,]'`]],
  ['int8multirange', [`'{}'`, `'{[1,3),[5,9]}'`]],
  ['nummultirange', [`'{(,1),[2,3.5]}'`]],
  ['floats', [`'[1.5,2.5]'`]],
  ['integer[]', [`'{}'`, `'{1,NULL,3}'`, `'{{1,2},{3,4}}'`, `'[-1:1]={1,2,3}'`, `'[0:0][2:3]={{1,NULL}}'`]],
  ['text[]', [`'{"NULL",NULL,""," a","b\\"c","d\\\\\\\\e","{x}","y,z"}'`, `'{}'`]],
  ['numeric(6,2)[]', [`'{1.5,NaN,NULL}'`]],
  ['bytea[]', [`ARRAY['\\x00ff'::bytea, NULL, '']`]],
  ['timestamp with time zone[]', [`'{infinity,"2024-01-01 00:00:00+00"}'`]],
  ['interval[]', [`'{"1 day 2 hours",NULL}'`]],
  ['boolean[]', [`'{t,f,NULL}'`]],
  ['jsonb[]', [`ARRAY['{"a":"b,c"}', 'null', NULL]::jsonb[]`]],
  ['int4range[]', [`ARRAY['[1,3)', 'empty']::int4range[]`]],
  ['inet[]', [`'{10.0.0.1,::1}'`]],
  ['mood', [`'sad'`, `'it''s'`, `'Größe'`]],
  ['mood[]', [`'{sad,"it''s",NULL}'`]],
  ['price', [`'99999999.9999'`]],
  ['price[]', [`'{1.5,NULL}'`]],
  ['deep', [`'1.5'`]],
  ['codes', [`'{a,NULL,"NULL"}'`, `'{}'`]],
  ['pair', [`ROW(1, 'a,b "c" \\\\ (d)')::pair`, `ROW(NULL, NULL)::pair`, `ROW(NULL, '')::pair`]],
  ['pair[]', [`ARRAY[ROW(1, 'x y'), ROW(NULL, NULL)]::pair[]`]],
  ['nested', [`ROW(ROW(1, 'b'), ARRAY[ROW(2, 'c,d')::pair], 'sad', 1.5)::nested`]],
  ['"Odd schema"."Odd type"', [`'b "c"'`, `'d,e'`]],
  ['"Odd schema"."Odd type"[]', [`ARRAY['A', 'b "c"', 'd,e']::"Odd schema"."Odd type"[]`]],
  ['hstore', [`'a=>1, b=>NULL, "c d"=>"e\\"f"'`, `''`]],
  ['citext', [`'Mixed Case'`]],
  ['ltree', [`'Top.Science.Astronomy'`]],
  ['lquery', [`'*.Science.*{1,2}'`]],
  ['cube', [`'(1,2,3),(4,5,6)'`]],
  ['ean13', [`'4006381333931'`]],
  ['regclass', [`'pg_class'`]],
  ['regtype', [`'integer'`]],
];

/** The columns that version `major` knows. */
export function oracleColumns(major: number): OracleColumn[] {
  const edges = EDGES.filter(([, , since = 0]) => since <= major).map(([type, values], index) => ({
    name: `e${index}`,
    type,
    value: (random: Random) => random.pick(values),
  }));
  // 14 has no scales below nought.
  return [...edges, ...POSTGRES_COLUMNS.filter(({ type }) => major > 14 || !type.includes(',-'))];
}
