/** Every column type of MySQL and MariaDB with random values as SQL literals, for the oracle tests. */
import type { Random } from '../../sandbox/demo/random.ts';

export interface ColumnCase {
  readonly name: string;
  /** The definition behind the name. */
  readonly definition: string;
  /** A random value as an SQL expression; undefined for columns that are computed. */
  readonly value: ((random: Random) => string) | undefined;
}

export interface TableCase {
  readonly name: string;
  readonly columns: readonly ColumnCase[];
}

export type OracleFlavour = 'mysql' | 'mariadb';

/** Tables that hold all types between them. `version` is like '10.11.2'. */
export function tableCases(flavour: OracleFlavour, version: string): TableCase[] {
  return [
    { name: 'numbers', columns: numbers(flavour) },
    { name: 'times', columns: times() },
    { name: 'texts', columns: texts(flavour) },
    { name: 'bytes', columns: bytes(flavour, version) },
    { name: 'documents', columns: documents(flavour, version) },
  ];
}

function numbered(prefix: string, cases: readonly (readonly [string, ColumnCase['value']])[]): ColumnCase[] {
  return cases.map(([definition, value], index) => ({ name: `${prefix}${index}`, definition, value }));
}

function integer(bits: number, unsigned: boolean): (random: Random) => string {
  const low = unsigned ? 0n : -(1n << BigInt(bits - 1));
  const high = unsigned ? (1n << BigInt(bits)) - 1n : (1n << BigInt(bits - 1)) - 1n;
  return (random) => {
    if (random.chance(0.2)) return String(random.pick([low, high, 0n, 1n, low + 1n, high - 1n]));
    if (random.chance(0.3)) return String(random.between(unsigned ? 0 : -100, 100));
    const value = random.bytes(8).readBigUInt64LE() % (high - low + 1n);
    return String(low + value);
  };
}

function digits(random: Random, count: number): string {
  return Array.from({ length: count }, () => String(random.between(0, 9))).join('');
}

function decimal(precision: number, scale: number, unsigned = false): (random: Random) => string {
  return (random) => {
    const whole = random.chance(0.2) ? precision - scale : random.between(0, precision - scale);
    const fraction = random.chance(0.2) ? scale : random.between(0, scale);
    const all = random.chance(0.1) ? '9'.repeat(whole + fraction) : digits(random, whole + fraction);
    return `${!unsigned && random.chance(0.4) ? '-' : ''}${all.slice(0, whole) || '0'}.${all.slice(whole) || '0'}`;
  };
}

/** A finite float or double of any size, or a plain one. */
function floating(single: boolean, unsigned = false): (random: Random) => string {
  return (random) => {
    if (random.chance(0.03)) return unsigned ? '0' : "'-0'";
    let value: number;
    const kind = random.between(0, 2);
    if (kind === 0) value = random.between(-1_000_000, 1_000_000) / random.pick([1, 2, 4, 10, 100, 1000, 3]);
    else if (kind === 1)
      value = (random.chance(0.5) ? 1 : -1) * 10 ** random.between(single ? -30 : -300, single ? 30 : 300);
    else value = single ? random.bytes(4).readFloatLE() : random.bytes(8).readDoubleLE();
    if (!Number.isFinite(value)) value = random.pick([0, 1e15, 1e-15, 999_999_999_999_999, 123_456_789_012_345_680]);
    // Denormal numbers: the server rounds them on the way in as it likes.
    if (single && Math.abs(value) < 1e-37) value = 0.5;
    if (single && Math.abs(value) > 3e38) value = 3e38;
    if (Math.abs(value) < 1e-300) value = 0.25;
    if (unsigned) value = Math.abs(value);
    return `${value}${/[.e]/.test(String(value)) ? '' : 'e0'}`;
  };
}

function numbers(flavour: OracleFlavour): ColumnCase[] {
  const integers = (
    [
      ['tinyint', 8],
      ['smallint', 16],
      ['mediumint', 24],
      ['int', 32],
      ['bigint', 64],
    ] as const
  ).flatMap(([type, bits]) => [
    [type, integer(bits, false)] as const,
    [`${type} unsigned`, integer(bits, true)] as const,
    [`${type} unsigned zerofill`, integer(bits, true)] as const,
  ]);
  const decimals = [
    [65, 30],
    [65, 0],
    [30, 30],
    [1, 0],
    [1, 1],
    [10, 2],
    [9, 9],
    [18, 9],
    [19, 10],
    [20, 4],
    [38, 17],
  ].map(([precision, scale]) => [`decimal(${precision},${scale})`, decimal(precision!, scale!)] as const);
  const bits = (count: number) => (random: Random) =>
    `b'${Array.from({ length: count }, () => random.between(0, 1)).join('')}'`;
  return numbered('n', [
    ...integers,
    ['tinyint(1)', (random) => random.pick(['0', '1', '-1', '127'])],
    ['boolean', (random) => random.pick(['true', 'false'])],
    ...decimals,
    ['decimal(12,4) unsigned', decimal(12, 4, true)],
    ['decimal(14,3) unsigned zerofill', decimal(14, 3, true)],
    ['float', floating(true)],
    ['float unsigned', floating(true, true)],
    ['float(7,3)', (random) => String(random.between(-9_999_999, 9_999_999) / 1000)],
    ['double', floating(false)],
    ['double unsigned', floating(false, true)],
    ['double(12,4)', (random) => String(random.between(-999_999_999, 999_999_999) / 10_000)],
    ['bit(1)', bits(1)],
    ['bit(7)', bits(7)],
    ['bit(8)', bits(8)],
    ['bit(9)', bits(9)],
    ['bit(33)', bits(33)],
    ['bit(64)', bits(64)],
    ['year', (random) => random.pick(['0', '1901', '2155', '1970', String(random.between(1901, 2155))])],
    ['int invisible', integer(32, false)],
    ['bigint generated always as (n0 * 3 - n3) stored', undefined],
    [
      flavour === 'mysql' ? 'bigint generated always as (n0 * 5 + 1) virtual' : 'int',
      flavour === 'mysql' ? undefined : integer(32, false),
    ],
  ]);
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}

function fraction(random: Random): string {
  return `.${random.chance(0.2) ? random.pick(['000000', '999999', '000001', '500000', '100000']) : digits(random, 6)}`;
}

function clock(random: Random): string {
  return `${two(random.between(0, 23))}:${two(random.between(0, 59))}:${two(random.between(0, 58))}`;
}

function day(random: Random): string {
  if (random.chance(0.1)) return random.pick(['0000-00-00', '1000-01-01', '9999-12-31', '2024-02-29', '0001-01-01']);
  // Partial dates.
  if (random.chance(0.1)) return `${random.between(1000, 9999)}-${two(random.between(0, 12))}-00`;
  return `${random.between(1000, 9999)}-${two(random.between(1, 12))}-${two(random.between(1, 28))}`;
}

function times(): ColumnCase[] {
  const precisions = ['', '(1)', '(2)', '(3)', '(4)', '(5)', '(6)'];
  const time = (random: Random): string => {
    if (random.chance(0.1))
      return `'${random.pick(['838:59:58', '-838:59:58', '00:00:00', '-00:00:00.5', '-00:00:01'])}'`;
    const hours = random.chance(0.4) ? random.between(0, 837) : random.between(0, 23);
    return `'${random.chance(0.4) ? '-' : ''}${two(hours)}:${two(random.between(0, 59))}:${two(random.between(0, 58))}${fraction(random)}'`;
  };
  const datetime = (random: Random): string => {
    const date = day(random);
    if (date === '9999-12-31') return "'9999-12-31 23:59:58.000000'";
    return `'${date} ${date === '0000-00-00' ? '00:00:00' : `${clock(random)}${fraction(random)}`}'`;
  };
  const timestamp = (random: Random): string => {
    if (random.chance(0.1))
      return `'${random.pick(['0000-00-00 00:00:00', '1970-01-01 00:00:01', '2038-01-19 03:14:06', '2000-02-29 23:59:58'])}'`;
    const year = random.between(1971, 2037);
    return `'${year}-${two(random.between(1, 12))}-${two(random.between(1, 28))} ${clock(random)}${fraction(random)}'`;
  };
  return numbered('t', [
    ['date', (random) => `'${day(random)}'`],
    ...precisions.map((precision) => [`time${precision}`, time] as const),
    ...precisions.map((precision) => [`datetime${precision}`, datetime] as const),
    ...precisions.map((precision) => [`timestamp${precision} null`, timestamp] as const),
  ]);
}

const POOLS = {
  ascii: ' !"#$%&\'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~\t\n\r\u0001\u001f\u007f',
  latin: 'äöüßéèêñçåøæÄÖÜ€£©®°±²³µ¶½¿÷×Šžœ',
  greek: 'αβγδεζηθικλμνξοπρστυφχψωΑΒΓΔ',
  cyrillic: 'абвгдежзийклмнопрстуфхцчшщъыьэюяЁёЄєЇї',
  hebrew: 'אבגדהוזחט',
  thai: 'กขคงจฉชซญดตถท',
  arabic: 'ابتثجحخدذرز',
  kana: 'あいうえおかきくけこアイウエオ、。「」',
  kanji: '日本語東京都漢字一二三四五六七八九十供給鏈倉庫',
  hangul: '가나다라마바사아자차카타파하한국어',
  emoji: '😀🚚📦🏭\u{1f468}\u200d\u{1f469}',
  box: '─│┌┐└┘├┤░▒▓█',
} as const;

function literal(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;
}

function randomText(random: Random, pools: readonly (keyof typeof POOLS)[], most: number): string {
  const length = random.chance(0.1) ? 0 : random.between(1, random.chance(0.1) ? most : Math.min(most, 20));
  let text = '';
  let count = 0;
  while (count < length) {
    const pool = Array.from(POOLS[random.chance(0.5) ? 'ascii' : random.pick(pools)]);
    text += random.pick(pool);
    count += 1;
  }
  return text;
}

/** A text in another character set; what the set lacks becomes a question mark on the server. */
function inCharset(charset: string, pools: readonly (keyof typeof POOLS)[], most = 40) {
  return (random: Random): string => `CONVERT(_utf8mb4${literal(randomText(random, pools, most))} USING ${charset})`;
}

function plain(pools: readonly (keyof typeof POOLS)[], most: number) {
  return (random: Random): string => literal(randomText(random, pools, most));
}

const ALL = ['ascii', 'latin', 'greek', 'cyrillic', 'hebrew', 'kana', 'kanji', 'hangul', 'emoji', 'box'] as const;

/** Labels with everything that could go wrong in them; a comma cannot be part of a set's. */
const LABELS = ['small', 'Größe', "it's", 'say "x"', 'back\\slash', '日本', ' lead', 'tab\there', '😀'];

function labelList(labels: readonly string[]): string {
  return labels.map(literal).join(',');
}

function labelled(labels: readonly string[], set: boolean) {
  return (random: Random): string => {
    if (!set) return literal(random.pick(labels));
    return literal(labels.filter(() => random.chance(0.4)).join(','));
  };
}

function texts(flavour: OracleFlavour): ColumnCase[] {
  const many = Array.from({ length: 300 }, (_, n) => `label ${n}`);
  const wide = Array.from({ length: 64 }, (_, n) => `m${n}`);
  const single = [
    ['latin1', 'latin'],
    ['latin2', 'latin'],
    ['latin5', 'latin'],
    ['latin7', 'latin'],
    ['cp850', 'box'],
    ['cp852', 'latin'],
    ['cp866', 'cyrillic'],
    ['cp1250', 'latin'],
    ['cp1251', 'cyrillic'],
    ['cp1256', 'arabic'],
    ['cp1257', 'latin'],
    ['koi8r', 'cyrillic'],
    ['koi8u', 'cyrillic'],
    ['greek', 'greek'],
    ['hebrew', 'hebrew'],
    ['tis620', 'thai'],
    ['macroman', 'latin'],
    ['macce', 'latin'],
    ['dec8', 'latin'],
    ['hp8', 'latin'],
    ['swe7', 'latin'],
    ['armscii8', 'latin'],
    ['geostd8', 'latin'],
    ['keybcs2', 'latin'],
  ] as const;
  const multi = [
    ['sjis', ['kana', 'kanji']],
    ['cp932', ['kana', 'kanji']],
    ['ujis', ['kana', 'kanji']],
    ['eucjpms', ['kana', 'kanji']],
    ['gbk', ['kanji', 'kana']],
    ['gb2312', ['kana']],
    ['big5', ['kanji']],
    ['euckr', ['hangul', 'kana']],
    ['ucs2', ['kanji', 'cyrillic', 'latin']],
    ['utf16', ALL],
    ['utf16le', ALL],
    ['utf32', ALL],
    ['utf8mb3', ['latin', 'kanji', 'greek']],
  ] as const;
  return numbered('s', [
    ['char(10)', plain(ALL, 10)],
    ['char(255)', plain(ALL, 255)],
    ['varchar(50)', plain(ALL, 50)],
    ['varchar(300)', plain(ALL, 300)],
    ['char(30) character set ascii', inCharset('ascii', ['ascii'], 30)],
    ['varchar(40) collate utf8mb4_bin', plain(ALL, 40)],
    ['tinytext', plain(ALL, 50)],
    ['text', plain(ALL, 2000)],
    ['mediumtext', plain(ALL, 400)],
    ['longtext', plain(ALL, 400)],
    ...single.map(([charset, pool]) => [`varchar(40) character set ${charset}`, inCharset(charset, [pool])] as const),
    ['text character set latin1', inCharset('latin1', ['latin'])],
    ['char(40) character set latin1', inCharset('latin1', ['latin'])],
    ...multi.map(([charset, pools]) => [`varchar(40) character set ${charset}`, inCharset(charset, pools)] as const),
    ['char(20) character set utf16', inCharset('utf16', ALL, 20)],
    ...(flavour === 'mysql' ? ([['varchar(40) character set gb18030', inCharset('gb18030', ALL)]] as const) : []),
    [`enum(${labelList(LABELS)})`, labelled(LABELS, false)],
    [`enum(${labelList(many)})`, labelled(many, false)],
    [`enum('ä','ö') character set latin1`, labelled(['ä', 'ö'], false)],
    [`set(${labelList(LABELS)})`, labelled(LABELS, true)],
    [`set(${labelList(wide)})`, labelled(wide, true)],
    [`set('x','ÿ') character set latin1`, labelled(['x', 'ÿ'], true)],
    ["enum('a','b')", (random) => random.pick(["'a'", "'b'", '0'])],
    ["varchar(80) generated always as (concat('<', s2, '>')) stored", undefined],
  ]);
}

function hex(random: Random, most: number, exact = false): string {
  const length = exact ? most : random.chance(0.1) ? 0 : random.between(1, most);
  const bytes = random.bytes(length);
  // Zeros at the end are what the log leaves out of BINARY.
  if (random.chance(0.3)) bytes.fill(0, random.between(0, length));
  return `X'${bytes.toString('hex')}'`;
}

function atLeast(version: string, major: number, minor: number): boolean {
  const [a = 0, b = 0] = version.split('.').map(Number);
  return a > major || (a === major && b >= minor);
}

function inet6(random: Random): string {
  if (random.chance(0.3))
    return random.pick(["'::'", "'::1'", "'::ffff:192.0.2.1'", "'::1.2.3.4'", "'2001:db8::1'", "'1::'"]);
  const groups = Array.from({ length: 8 }, () => (random.chance(0.4) ? 0 : random.between(0, 0xffff)).toString(16));
  return `'${groups.join(':')}'`;
}

function bytes(flavour: OracleFlavour, version: string): ColumnCase[] {
  const mariadb = [
    ['uuid', (random: Random) => `'${uuid(random)}'`],
    ['inet6', inet6],
    ['inet4', (random: Random) => `'${[...random.bytes(4)].join('.')}'`],
    ['varchar(200) compressed', plain(ALL, 200)],
    ['varchar(200) compressed character set latin1', inCharset('latin1', ['latin'], 200)],
    [
      'text compressed',
      (random: Random) => `REPEAT(${literal(randomText(random, ALL, 50))}, ${random.between(0, 60)})`,
    ],
    ['varbinary(300) compressed', (random: Random) => hex(random, 300)],
    ['blob compressed', (random: Random) => `REPEAT(${hex(random, 40)}, ${random.between(0, 60)})`],
  ] as const;
  return numbered('b', [
    ['binary(1)', (random) => hex(random, 1)],
    ['binary(16)', (random) => hex(random, 16)],
    ['binary(255)', (random) => hex(random, 255)],
    ['varbinary(50)', (random) => hex(random, 50)],
    ['varbinary(400)', (random) => hex(random, 400)],
    ['char(20) character set binary', (random) => hex(random, 20)],
    ['tinyblob', (random) => hex(random, 200)],
    ['blob', (random) => hex(random, 600)],
    ['mediumblob', (random) => hex(random, 600)],
    ['longblob', (random) => hex(random, 600)],
    ...(flavour === 'mariadb' ? mariadb : []),
    ...(flavour === 'mysql' || atLeast(version, 11, 7)
      ? [['vector(5)', (random: Random) => vector(random, flavour)] as const]
      : []),
  ]);
}

function vector(random: Random, flavour: OracleFlavour): string {
  const numbersText = Array.from({ length: 5 }, () => (random.between(-1000, 1000) / 8).toString()).join(',');
  return `${flavour === 'mysql' ? 'STRING_TO_VECTOR' : 'VEC_FromText'}('[${numbersText}]')`;
}

function uuid(random: Random): string {
  const text = random.bytes(16).toString('hex');
  return `${text.slice(0, 8)}-${text.slice(8, 12)}-${text.slice(12, 16)}-${text.slice(16, 20)}-${text.slice(20)}`;
}

function coordinate(random: Random): string {
  return String(random.between(-9000, 9000) / 100);
}

function points(random: Random, count: number): string {
  return Array.from({ length: count }, () => `${coordinate(random)} ${coordinate(random)}`).join(',');
}

function ring(random: Random): string {
  const [x, y] = [random.between(-50, 50), random.between(-50, 50)];
  return `(${x} ${y},${x + 1} ${y},${x + 1} ${y + 1},${x} ${y})`;
}

/** A JSON document as text. */
function json(random: Random, depth: number): string {
  if (depth > 0 && random.chance(0.5)) {
    const count = random.chance(0.05) ? 300 : random.between(0, 5);
    const members = Array.from({ length: count }, () => json(random, depth - 1));
    if (random.chance(0.5)) return `[${members.join(',')}]`;
    return `{${members.map((member, n) => `${JSON.stringify(`${randomText(random, ALL, 6)}${n}`)}:${member}`).join(',')}}`;
  }
  switch (random.between(0, 8)) {
    case 0:
      return 'null';
    case 1:
      return random.pick(['true', 'false']);
    case 2:
      return String(random.between(-40_000, 70_000));
    case 3:
      return integer(64, random.chance(0.5))(random);
    case 4:
      return String(random.between(-3_000_000_000, 5_000_000_000));
    case 5:
    case 6: {
      const value = random.bytes(8).readDoubleLE();
      return random.chance(0.5) && Number.isFinite(value) && Math.abs(value) > 1e-300
        ? String(value)
        : `${random.between(-99, 99)}.${random.between(1, 99)}`;
    }
    default:
      return JSON.stringify(randomText(random, ALL, random.chance(0.1) ? 200 : 12));
  }
}

/** A document with values that JSON text does not have: exact decimals, dates, bytes. */
function jsonOfSql(random: Random): string {
  return `JSON_OBJECT('dec', CAST('${decimal(30, 10)(random)}' AS DECIMAL(40,10)), 'date', CAST('${day(random).replace(/-00/g, '-01').replace('0000', '2000')}' AS DATE),
    'time', CAST('${random.chance(0.5) ? '-' : ''}${random.between(0, 800)}:${two(random.between(0, 59))}:07.${digits(random, 6)}' AS TIME(6)),
    'dt', CAST('2024-02-29 ${clock(random)}.${digits(random, 6)}' AS DATETIME(6)), 'ts', TIMESTAMP('2001-01-01 00:00:00'), 'y', CAST('2024' AS YEAR),
    'bin', ${hex(random, random.chance(0.1) ? 300 : 20)}, 'bit', b'101', 'u', 18446744073709551615, 'neg', -9223372036854775808, 'd', ${floating(false)(random)},
    'big', REPEAT('x', ${random.chance(0.05) ? 70_000 : random.between(0, 200)}), 'arr', JSON_ARRAY(1.50, NULL, TRUE, 'a"b'))`;
}

function documents(flavour: OracleFlavour, version: string): ColumnCase[] {
  const geometry =
    (wkt: (random: Random) => string, srid = 0) =>
    (random: Random): string =>
      `ST_GeomFromText('${wkt(random)}'${srid === 0 ? '' : `, ${srid}`})`;
  const point = (random: Random): string => `POINT(${coordinate(random)} ${coordinate(random)})`;
  const line = (random: Random): string => `LINESTRING(${points(random, random.between(2, 20))})`;
  const polygon = (random: Random): string => `POLYGON(${ring(random)})`;
  const text = (random: Random): string => literal(json(random, 3));
  return numbered('j', [
    ['json', text],
    ['json', flavour === 'mysql' ? jsonOfSql : text],
    ['geometry', (random) => geometry(random.pick([point, line, polygon]))(random)],
    ['point', geometry(point, flavour === 'mysql' ? 4326 : 4326)],
    ['linestring', geometry(line)],
    ['polygon', geometry(polygon)],
    ['multipoint', geometry((random) => `MULTIPOINT(${points(random, 3)})`)],
    ['multilinestring', geometry((random) => `MULTILINESTRING((${points(random, 3)}),(${points(random, 2)}))`)],
    ['multipolygon', geometry((random) => `MULTIPOLYGON((${ring(random)}))`)],
    ['geometrycollection', geometry((random) => `GEOMETRYCOLLECTION(${point(random)},${line(random)})`)],
    ['varchar(20) character set latin1', inCharset('latin1', ['latin'], 20)],
    ['text', plain(ALL, 30)],
    ...(flavour === 'mysql' || atLeast(version, 11, 7)
      ? ([['vector(5)', (random: Random) => vector(random, flavour)]] as const)
      : []),
    ["enum('ä','b')", (random) => random.pick(["'ä'", "'b'"])],
  ]);
}
