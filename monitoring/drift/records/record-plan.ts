/** How records are compared with the rows of their table: forms of values that both sides have, and digests of them. */
import { ReplicationError } from '../../../core/errors.ts';
import { canonicalRow, type TextKind } from '../canonical-text.ts';
import { frameValue } from '../canonical-value.ts';
import { crossKind } from '../cross-kind.ts';
import { digestOf } from '../digest.ts';
import type { ComparedColumn, ComparedTable, DigestedRow, KeyTexts, SideTable } from '../side.ts';
import type { RecordColumn } from './expected-records.ts';

export interface RecordPlan {
  /** The target's table. */
  readonly table: ComparedTable;
  /** Position, in the record, of each compared column. */
  readonly from: readonly number[];
  /** The canonical values of a record, as its row has them. */
  texts(values: readonly (string | null)[]): (string | null)[];
  digest(values: readonly (string | null)[]): DigestedRow;
  /** The values of a key as records have them. */
  keyOfRow(key: KeyTexts): KeyTexts;
}

export interface RecordTable {
  readonly columns: readonly RecordColumn[];
  readonly key: readonly number[];
  readonly target: SideTable;
}

/** Compares all columns but those that are `open`. Throws `target_query` where the table lacks one. */
export function recordPlan({ columns, key, target }: RecordTable, open: ReadonlySet<number>): RecordPlan {
  const compared: ComparedColumn[] = [];
  const from: number[] = [];
  for (const [index, { name, type }] of columns.entries()) {
    if (open.has(index)) continue;
    const there = target.columns.find((column) => column.name === name);
    if (there === undefined)
      throw new ReplicationError(
        'target_query',
        `${target.schema}.${target.name} has no column ${name}, which records of this version have`,
      );
    compared.push({ name, type: there.base, kind: kindOf(type, target, there.base) });
    from.push(index);
  }
  const keyAt = key.map((index) => from.indexOf(index));
  const table: ComparedTable = {
    dialect: target.dialect,
    hash: 'sha256',
    schema: target.schema,
    name: target.name,
    columns: compared,
    key: keyAt,
  };
  const kinds = compared.map((column) => column.kind);
  const types = from.map((index) => columns[index]!.type);
  const textsOf = (values: readonly (string | null)[]): (string | null)[] =>
    from.map((index, at) => recordText(types[at]!, kinds[at]!, values[index]!));
  return {
    table,
    from,
    texts: textsOf,
    digest(values) {
      const texts = textsOf(values);
      return { key: keyAt.map((at) => texts[at] ?? ''), digest: digestOf(canonicalRow(kinds, texts), 'sha256') };
    },
    keyOfRow: (texts) => texts.map((text, i) => asRecords(types[keyAt[i]!]!, text)),
  };
}

function kindOf(type: string, { dialect }: SideTable, base: string): TextKind {
  // Of JSON only the meaning counts: a record's text is not printed by the engine.
  const kind = crossKind({ dialect: 'postgres', type }, { dialect, type: base });
  return type === 'jsonb' && /^jsonb?$/.test(base) ? 'document' : kind;
}

const TIMESTAMP = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d\.\d{6})Z$/;

/** The canonical text of a record's value. */
function recordText(type: string, kind: TextKind, value: string | null): string | null {
  if (value === null) return null;
  const column = { type, portable: type };
  const text = frameValue(column, 'postgres', kind, undefined, asFrames(type, value));
  if (text === undefined)
    throw new ReplicationError('internal', `a value of type ${type} cannot be compared in the form "${kind}"`);
  return text;
}

/** The value as frames of a Postgres source would carry it. */
function asFrames(type: string, value: string): string {
  if (type === 'boolean') return value === 'true' ? 't' : 'f';
  const match = type.startsWith('timestamp') ? TIMESTAMP.exec(value) : null;
  return match === null ? value : `${match[1]} ${match[2]}+00`;
}

/** The other way round, of a key's canonical text. */
function asRecords(type: string, text: string): string {
  if (type === 'boolean') return text === '1' ? 'true' : 'false';
  if (!type.startsWith('timestamp')) return text;
  const [whole = '', fraction = ''] = text.split('.');
  return `${whole.replace(' ', 'T')}.${fraction.padEnd(6, '0')}Z`;
}
