/** The rows behind findings, column by column, as the comparison had them: what people are shown of a difference. */
import { canonicalRow } from './canonical-text.ts';
import { digestOf, formatDigest } from './digest.ts';
import type { Finding } from './findings.ts';
import type { Pace } from './pace.ts';
import type { ComparedTable, DriftSide, KeyTexts } from './side.ts';
import { rowId } from './touched.ts';

/** A value as text; in place of one that nobody may see, that it is hidden. */
export type ShownText = string | null | { readonly hidden: true };

/** Both rows of a finding; null where a side has none. Values of both stand in the order of `columns`. */
export interface RowImages {
  readonly columns: readonly string[];
  /** Positions of the key's columns, and of those that differ. */
  readonly key: readonly number[];
  readonly differs: readonly number[];
  readonly source: readonly ShownText[] | null;
  readonly target: readonly ShownText[] | null;
}

/** Whether the values of a column of the source (of records: of their table) are not to be shown. */
export type HidesColumn = (schema: string, table: string, column: string) => boolean;

type Values = readonly (string | null)[];

/** Of so many findings of a table both rows are kept. */
export const SHOWN_FINDINGS = 100;
/** Of a longer value only the beginning is. */
const SHOWN_CHARS = 300;

/** What is kept of two rows. `columns` and `key` as the values have them. */
export function rowImages(
  { columns, key }: { readonly columns: readonly string[]; readonly key: readonly number[] },
  hides: (column: string) => boolean,
  source: Values | undefined,
  target: Values | undefined,
): RowImages {
  const both = source !== undefined && target !== undefined;
  const show = (values: Values | undefined): ShownText[] | null =>
    values?.map((value, index) => {
      if (value === null) return null;
      if (hides(columns[index]!)) return { hidden: true };
      return value.length > SHOWN_CHARS ? `${value.slice(0, SHOWN_CHARS)}…` : value;
    }) ?? null;
  return {
    columns,
    key,
    differs: both ? columns.flatMap((_, index) => (source[index] === target[index] ? [] : [index])) : [],
    source: show(source),
    target: show(target),
  };
}

/**
 * Reads the rows of the first findings of a table once more. A finding whose rows are not those any more that it was made
 * of is left out.
 */
export async function readImages(
  sides: { readonly source: DriftSide; readonly target: DriftSide },
  { source, target }: { readonly source: ComparedTable; readonly target: ComparedTable | undefined },
  all: readonly Finding[],
  { hides, pace }: { readonly hides: HidesColumn; readonly pace: Pace },
): Promise<Map<string, RowImages>> {
  const findings = all.slice(0, SHOWN_FINDINGS);
  if (findings.length === 0) return new Map();
  return imagesOf(source, findings, hides, {
    source: await readRows(sides.source, source, findings, pace),
    target: target === undefined ? new Map() : await readRows(sides.target, target, findings, pace),
  });
}

/** Rows by the ids of their findings and their digests. */
export type RowsRead = ReadonlyMap<string, Values>;

export function imagesOf(
  table: ComparedTable,
  findings: readonly Finding[],
  hides: HidesColumn,
  rows: { readonly source: RowsRead; readonly target: RowsRead },
): Map<string, RowImages> {
  const images = new Map<string, RowImages>();
  const columns = table.columns.map(({ name }) => name);
  for (const { id, sourceDigest, targetDigest } of findings) {
    const of = (side: RowsRead, digest: string | undefined): Values | undefined =>
      digest === undefined ? undefined : side.get(`${id} ${digest}`);
    const [here, there] = [of(rows.source, sourceDigest), of(rows.target, targetDigest)];
    if ((sourceDigest !== undefined && here === undefined) || (targetDigest !== undefined && there === undefined))
      continue;
    const hidden = (column: string): boolean => hides(table.schema, table.name, column);
    images.set(id, rowImages({ columns, key: table.key }, hidden, here, there));
  }
  return images;
}

/** Reads what a side has of the rows of findings. */
export async function readRows(
  side: DriftSide,
  table: ComparedTable,
  findings: readonly Finding[],
  pace: Pace,
): Promise<RowsRead> {
  const rows = new Map<string, Values>();
  if (table.key.length === 0) {
    const digests = new Set(findings.map(({ id }) => id));
    await side.find(table, digests, pace, (values) => rows.set(placeOf(table, values), values));
    return rows;
  }
  const read = async (): Promise<readonly Values[]> =>
    await side.read(
      table,
      findings.map(({ key }) => key!),
    );
  for (const values of (await pace.work(read)).result) rows.set(placeOf(table, values), values);
  return rows;
}

/** Where a row of these canonical values stands among `RowsRead`. */
export function placeOf(table: ComparedTable, values: Values): string {
  const kinds = table.columns.map(({ kind }) => kind);
  const digest = formatDigest(digestOf(canonicalRow(kinds, values), table.hash));
  const key: KeyTexts = table.key.map((index) => values[index] ?? '');
  return `${key.length === 0 ? digest : rowId(key)} ${digest}`;
}
