/**
 * What a QUERY event says. No SQL is understood here: statements that mark transactions are recognised, whole, in the
 * form in which the servers write them; DML is recognised by its keyword, since with it rows are missing from the log;
 * of all the rest only what changes rows and logs none is recognised: TRUNCATE TABLE; ALTER TABLE with partitions or
 * tablespaces that go, come or are emptied; and a name that stands for another table from now on.
 */
import { xidText } from './gtid-event.ts';

export type Statement =
  | { readonly kind: 'begin' | 'commit' | 'rollback' | 'ignored' }
  | { readonly kind: 'savepoint' | 'rollback-to'; readonly name: string }
  | {
      readonly kind: 'xa-start' | 'xa-end' | 'xa-commit' | 'xa-rollback';
      readonly xid: string;
      readonly onePhase: boolean;
    }
  | { readonly kind: 'dml'; readonly verb: string }
  | {
      readonly kind: 'other';
      readonly verb: string;
      readonly truncates: TableName | undefined;
      readonly movesRows: boolean;
    };

interface TableName {
  readonly schema: string;
  readonly name: string;
}

const XA =
  /^XA\s+(START|BEGIN|END|PREPARE|COMMIT|ROLLBACK)\s+X'([0-9a-f]*)'\s*,\s*X'([0-9a-f]*)'\s*,\s*(\d+)(\s+ONE\s+PHASE)?/i;
const QUOTED = '\'(?:[^\'\\\\]|\\\\.|\'\')*\'|"(?:[^"\\\\]|\\\\.|"")*"|`(?:[^`]|``)*`';
/** What stands in quotes, or else comments; of one whose content is executed only what is around that. */
const COMMENTS = new RegExp(`(${QUOTED})|--(?=\\s)[^\\n]*|#[^\\n]*|/\\*(?!M?!)[^]*?\\*/|/\\*M?!\\d*|\\*/`, 'g');
/** MariaDB: settings for one statement, which follows. */
const SETTINGS = new RegExp(`^SET\\s+STATEMENT\\s(?:${QUOTED}|[^'"\`])*?\\sFOR\\s+`, 'i');
const NAME = '(?:`(?:[^`]|``)+`|"(?:[^"]|"")+"|[^\\s`"./;,]+)';
const TRUNCATE = new RegExp(`^TRUNCATE\\s+(?:TABLE\\s+)?(?:IF\\s+EXISTS\\s+)?(${NAME})(?:\\s*\\.\\s*(${NAME}))?`, 'i');
const GAP = '\\s+';
/** Looked for anywhere in the text: found in a literal by chance, it costs a table that is read again. */
const MOVES_ROWS = new RegExp(
  `^ALTER${GAP}(?:ONLINE${GAP})?IGNORE\\b|\\b(?:DROP|TRUNCATE|EXCHANGE|CONVERT|IMPORT|DISCARD)${GAP}PARTITION\\b|\\bCONVERT${GAP}TABLE\\b|\\b(?:IMPORT|DISCARD)${GAP}TABLESPACE\\b`,
  'i',
);
/** A table of that name is another one from here on. */
const REPLACES = new RegExp(
  `^(?:CREATE${GAP}(?:OR${GAP}REPLACE${GAP})?|DROP${GAP}|RENAME${GAP})TABLES?\\b|^ALTER\\b[^]*\\bRENAME${GAP}(?!COLUMN\\b|INDEX\\b|KEY\\b)`,
  'i',
);
const SAVEPOINT = new RegExp(`^(SAVEPOINT|ROLLBACK\\s+(?:WORK\\s+)?TO(?:\\s+SAVEPOINT)?)\\s+(${NAME})`, 'i');
const DML = new Set(['INSERT', 'UPDATE', 'DELETE', 'REPLACE', 'LOAD', 'WITH', 'CALL', 'MERGE', 'SELECT', 'EXECUTE']);

const BEGIN: Statement = { kind: 'begin' };
const COMMIT: Statement = { kind: 'commit' };
const ROLLBACK: Statement = { kind: 'rollback' };
const IGNORED: Statement = { kind: 'ignored' };

/** Classifies a logged statement; `schema` is the default database that unqualified names are in. */
export function classifyStatement(sql: string, schema: string): Statement {
  if (sql === 'BEGIN') return BEGIN;
  if (sql === 'COMMIT') return COMMIT;
  if (sql === 'ROLLBACK') return ROLLBACK;
  const text = plainText(sql);
  const verb = /^[A-Za-z]+/.exec(text)?.[0].toUpperCase() ?? '';
  if (DML.has(verb)) return { kind: 'dml', verb };
  switch (verb) {
    case 'BEGIN':
    case 'START':
      // A statement of MariaDB's two-phase ALTER also begins with START; it comes inside a comment that was taken off.
      return /^START\s+ALTER/i.test(text) ? alter(text) : BEGIN;
    case 'COMMIT':
      return /^COMMIT\s+ALTER/i.test(text) ? alter(text) : COMMIT;
    case 'SAVEPOINT':
    case 'ROLLBACK': {
      if (/^ROLLBACK\s+ALTER/i.test(text)) return alter(text);
      const match = SAVEPOINT.exec(text);
      if (match === null) return ROLLBACK;
      // The servers tell them apart by their letters, not by the case of these.
      return { kind: verb === 'SAVEPOINT' ? 'savepoint' : 'rollback-to', name: unquote(match[2]!).toLowerCase() };
    }
    case 'RELEASE':
      return IGNORED;
    case 'XA':
      return classifyXa(text);
    case 'TRUNCATE': {
      const match = TRUNCATE.exec(text);
      if (match === null) break;
      const [, first, second] = match;
      const truncates =
        second === undefined ? { schema, name: unquote(first!) } : { schema: unquote(first!), name: unquote(second) };
      return { kind: 'other', verb, truncates, movesRows: false };
    }
    case 'ALTER':
      return alter(text);
    default:
  }
  return { kind: 'other', verb, truncates: undefined, movesRows: REPLACES.test(text) };
}

/** The statement without comments, and without settings that are for it alone. */
function plainText(sql: string): string {
  const text = sql.replaceAll(COMMENTS, (_, quoted: string | undefined) => quoted ?? ' ').trim();
  return text.replace(SETTINGS, '');
}

function alter(text: string): Statement {
  return {
    kind: 'other',
    verb: 'ALTER',
    truncates: undefined,
    movesRows: MOVES_ROWS.test(text) || REPLACES.test(text),
  };
}

function classifyXa(text: string): Statement {
  const match = XA.exec(text);
  if (match === null) return { kind: 'other', verb: 'XA', truncates: undefined, movesRows: false };
  const xid = xidText(match[2]!, match[3]!, Number(match[4]));
  const onePhase = match[5] !== undefined;
  switch (match[1]!.toUpperCase()) {
    case 'START':
    case 'BEGIN':
      return { kind: 'xa-start', xid, onePhase };
    case 'END':
      return { kind: 'xa-end', xid, onePhase };
    case 'COMMIT':
      return { kind: 'xa-commit', xid, onePhase };
    case 'ROLLBACK':
      return { kind: 'xa-rollback', xid, onePhase };
    default:
      // XA PREPARE is an event of its own; as a statement it adds nothing.
      return IGNORED;
  }
}

function unquote(name: string): string {
  const quote = name[0]!;
  return quote === '`' || quote === '"' ? name.slice(1, -1).replaceAll(quote + quote, quote) : name;
}
