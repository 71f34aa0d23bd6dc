/**
 * Statements that are longer than a packet may be. Their longest literals are set as user variables first, in parts, and the
 * statement names those. A value can have as many bytes as a packet: what the server's functions give ends there, and so do
 * parameters of prepared statements (MySQL Reference Manual, "max_allowed_packet").
 */
import { ValueMisfit } from '../value-misfit.ts';
import type { MysqlSession, Outcome } from './session.ts';

/** The quote that begins a literal or a name. */
const QUOTE = /['`]/g;
const DECODED = 'FROM_BASE64(';
/** Characters of literals that stay where they are. */
const SHORT_CHARS = 64;
/** Characters of a part, as a part of a packet: each takes up to three bytes, for it may be half of a pair with four. */
const PART_OF_PACKET = 4;

interface Literal {
  /** Of the expression: the literal with its quotes, or what decodes it. */
  readonly start: number;
  readonly end: number;
  /** What is between the quotes, with those in it doubled. */
  readonly text: string;
  readonly base64: boolean;
}

function* literalsOf(sql: string): Generator<Literal> {
  for (let at = 0; ;) {
    QUOTE.lastIndex = at;
    const quote = QUOTE.exec(sql);
    if (quote === null) return;
    const { 0: sign, index } = quote;
    let end = sql.indexOf(sign, index + 1);
    while (sql[end + 1] === sign) end = sql.indexOf(sign, end + 2);
    at = end + 1;
    if (sign === '`' || end - index < SHORT_CHARS) continue;
    const base64 = sql.startsWith(DECODED, index - DECODED.length) && sql[at] === ')';
    yield {
      start: base64 ? index - DECODED.length : index,
      end: base64 ? at + 1 : at,
      text: sql.slice(index + 1, end),
      base64,
    };
  }
}

function bytesOf({ text, base64 }: Literal): number {
  if (base64) return Buffer.byteLength(text, 'base64');
  return Buffer.byteLength(text.replaceAll("''", "'"));
}

/** The text of a literal in parts of at most so many characters. Whole groups of base64, characters and pairs of quotes. */
function* partsOf({ text, base64 }: Literal, most: number): Generator<string> {
  for (let at = 0; at < text.length;) {
    let end = Math.min(at + most, text.length);
    if (base64) end = end === text.length ? end : end - ((end - at) % 4);
    else if (end < text.length) {
      if (/[\uD800-\uDBFF]/.test(text[end - 1]!)) end -= 1;
      let quotes = 0;
      while (text[end - 1 - quotes] === "'" && end - quotes > at) quotes += 1;
      if (quotes % 2 === 1) end -= 1;
    }
    yield text.slice(at, end);
    at = end;
  }
}

const nameOf = (index: number): string => `@wb_part_${index}`;

function* settings(literals: readonly Literal[], maxPacketBytes: number): Generator<string> {
  for (const [index, literal] of literals.entries()) {
    const name = nameOf(index);
    let first = true;
    for (const part of partsOf(literal, Math.floor(maxPacketBytes / PART_OF_PACKET))) {
      const value = literal.base64 ? `${DECODED}'${part}')` : `'${part}'`;
      yield `SET ${name} = ${first ? value : `CONCAT(${name}, ${value})`}`;
      first = false;
    }
  }
}

/** The longest literals, as many as have to leave the statement, in its order. */
function longest(sql: string, bytes: number, maxPacketBytes: number): Literal[] {
  const chosen: Literal[] = [];
  let left = bytes;
  for (const literal of [...literalsOf(sql)].sort((a, b) => b.text.length - a.text.length)) {
    if (left < maxPacketBytes / 2) break;
    const size = bytesOf(literal);
    if (size > maxPacketBytes)
      throw new ValueMisfit(
        `a value of ${size} bytes is larger than max_allowed_packet of the target, ${maxPacketBytes}`,
      );
    left -= Buffer.byteLength(literal.text);
    chosen.push(literal);
  }
  if (left >= maxPacketBytes) throw new ValueMisfit('a statement would exceed max_allowed_packet of the target');
  return chosen.sort((a, b) => a.start - b.start);
}

function naming(sql: string, literals: readonly Literal[]): string {
  let text = '';
  let at = 0;
  for (const [index, { start, end }] of literals.entries()) {
    text += sql.slice(at, start) + nameOf(index);
    at = end;
  }
  return text + sql.slice(at);
}

/**
 * Runs statements that write rows, however long they are. Throws `ValueMisfit`, which names the setting, when a value of
 * theirs is larger than a packet may be.
 */
export async function runLarge(session: Pick<MysqlSession, 'facts' | 'run'>, sql: string): Promise<readonly Outcome[]> {
  const { maxPacketBytes } = session.facts;
  const bytes = Buffer.byteLength(sql);
  if (bytes < maxPacketBytes) return await session.run(sql);
  const literals = longest(sql, bytes, maxPacketBytes);
  for (const setting of settings(literals, maxPacketBytes)) {
    const [outcome] = await session.run(setting);
    if (outcome!.warnings > 0) throw new ValueMisfit('the target would not put a value together from its parts');
  }
  const outcomes = await session.run(naming(sql, literals));
  // Whoever is warned asks what of, and another statement would take the answer away: then the next one that is long does this.
  if (outcomes.every(({ warnings }) => warnings === 0))
    await session.run(`SET ${literals.map((_, index) => `${nameOf(index)} = NULL`).join(', ')}`);
  return outcomes;
}
