/** Looks at a range of keys that is asked for, with the source's own eyes. */
import { behindSql } from '../../core/key-order.ts';
import { refuseBound, refuseEmpty } from '../key-span.ts';
import type { KeySpan, KeyTexts } from '../snapshot-request.ts';
import type { CapturedTable } from './catalog.ts';
import { quoteLiteral, type SqlClient } from './connection.ts';
import { baseType } from './log-type.ts';

const INTEGER_BITS: Readonly<Record<string, bigint>> = {
  tinyint: 8n,
  smallint: 16n,
  mediumint: 24n,
  int: 32n,
  bigint: 64n,
  year: 16n,
};
const TEXT = /^(?:char|varchar|tinytext|text|mediumtext|longtext)$/;
const BYTES = /^(?:binary|varbinary|tinyblob|blob|mediumblob|longblob)$/;
/** What the server reads a text as: NULL where it is none such. */
const READ_AS: Readonly<Record<string, string>> = {
  date: 'DATE',
  datetime: 'DATETIME(6)',
  timestamp: 'DATETIME(6)',
  time: 'TIME(6)',
};

/** A value as frames carry it, and as the server compares it with the column. */
interface Bound {
  readonly text: string;
  readonly sql: string;
}

/** The span with its values as frames carry them. Throws `config_invalid` where they are none of their columns. */
export async function checkSpan(client: SqlClient, table: CapturedTable, span: KeySpan): Promise<KeySpan> {
  const bound = async (texts: KeyTexts | null): Promise<Bound[] | null> => {
    if (texts === null) return null;
    const bounds: Bound[] = [];
    for (const [index, text] of texts.entries()) bounds.push(await readBound(client, table, span, index, text));
    return bounds;
  };
  const [from, to] = [await bound(span.from), await bound(span.to)];
  if (from !== null && to !== null && !(await hasRoom(client, from, to))) refuseEmpty(table.schema);
  const texts = (some: readonly Bound[] | null): KeyTexts | null => some?.map(({ text }) => text) ?? null;
  return { ...span, from: texts(from), to: texts(to) };
}

async function readBound(
  client: SqlClient,
  table: CapturedTable,
  span: KeySpan,
  index: number,
  text: string,
): Promise<Bound> {
  const { name, type } = span.columns[index]!;
  const base = baseType(type);
  const refuse = (why: string): never => refuseBound(table.schema, span, `${JSON.stringify(text)} ${why}`);
  const bits = INTEGER_BITS[base];
  if (bits !== undefined) {
    if (!/^-?\d+$/.test(text)) refuse(`is no integer, as column ${name} has`);
    const unsigned = /\bunsigned\b|\bzerofill\b/.test(type);
    if ((unsigned ? BigInt.asUintN : BigInt.asIntN)(Number(bits), BigInt(text)) !== BigInt(text))
      refuse(`is too large or too small for column ${name}`);
    // Years of two digits are read as later ones in comparisons, by this server alone.
    if (base === 'year' && !/^[1-9]\d{3}$/.test(text)) refuse(`is no year of four digits, as column ${name} has`);
    return { text: String(BigInt(text)), sql: text };
  }
  if (/^(?:decimal|float|double)$/.test(base)) {
    if (!/^-?\d+(?:\.\d+)?$/.test(text)) refuse(`is no number, as column ${name} has`);
    return { text, sql: text };
  }
  const readAs = READ_AS[base];
  if (readAs !== undefined) {
    const [[read] = []] = await client.query(
      `SELECT CAST(CAST(${quoteLiteral(text)} AS ${readAs}) AS CHAR)`,
      'looking at --from and --to',
    );
    // Dates with a zero in them are read, too, and no other database has them.
    if (read === null || read === undefined || (base !== 'time' && /^0000|-00/.test(read)))
      return refuse(`is no ${base}, as column ${name} has`);
    return { text: read, sql: quoteLiteral(read) };
  }
  // As chunks compare them.
  if (base === 'enum') return { text, sql: `CONVERT(${quoteLiteral(text)} USING utf8mb4) COLLATE utf8mb4_bin` };
  if (TEXT.test(base)) {
    const { collation } = table.schema.columns.find((column) => column.name === name)!;
    const characters = collation === undefined ? undefined : /^[^_]+/.exec(collation)![0];
    const literal = `CONVERT(${quoteLiteral(text)} USING ${characters ?? 'utf8mb4'})`;
    return { text, sql: collation === undefined ? literal : `${literal} COLLATE ${collation}` };
  }
  if (BYTES.test(base)) {
    const hex = /^0x((?:[0-9a-f]{2})*)$/i.exec(text)?.[1];
    if (hex === undefined) return refuse(`is not bytes in the form 0x00ff, as column ${name} has`);
    return { text: Buffer.from(hex, 'hex').toString('base64'), sql: `X'${hex}'` };
  }
  return refuse(`is a value of a type that has no ranges here (${type}); read the whole table`);
}

/** Whether a key may lie between the bounds. */
async function hasRoom(client: SqlClient, from: readonly Bound[], to: readonly Bound[]): Promise<boolean> {
  const pairs = to.slice(0, from.length).map(({ sql }, index) => ({ column: sql, bound: from[index]!.sql }));
  const condition = from.length < to.length ? behindSql(pairs, true) : behindSql(pairs, false);
  const [[room] = []] = await client.query(`SELECT ${condition}`, 'looking at --from and --to');
  return room === '1';
}
