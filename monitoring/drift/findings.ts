/** Differences of two readings of the same rows. */
import { formatDigest } from './digest.ts';
import type { DigestedRow, KeyTexts } from './side.ts';
import { rowId } from './touched.ts';

export const DRIFT_KINDS = ['missing', 'extra', 'different'] as const;
export type DriftKind = (typeof DRIFT_KINDS)[number];

/** A row that differs. In a table without a key it is named by its digest, and `copies` says how many too few or many. */
export interface Finding {
  readonly id: string;
  readonly kind: DriftKind;
  readonly key: KeyTexts | null;
  /** Of the source's row, and of the target's; absent where there is none. */
  readonly sourceDigest?: string;
  readonly targetDigest?: string;
  readonly copies: number;
}

/** What differs between the rows of both sides. */
export function compareRows(keyed: boolean, source: readonly DigestedRow[], target: readonly DigestedRow[]): Finding[] {
  return keyed ? compareByKey(source, target) : compareAsMultisets(source, target);
}

function compareByKey(source: readonly DigestedRow[], target: readonly DigestedRow[]): Finding[] {
  const findings: Finding[] = [];
  const rest = rowsById(target);
  for (const row of source) {
    const id = rowId(row.key);
    const others = rest.get(id) ?? [];
    rest.delete(id);
    const base = { id, key: row.key, sourceDigest: formatDigest(row.digest) };
    const [other] = others;
    if (other === undefined) findings.push({ ...base, kind: 'missing', copies: 1 });
    else if (others.length > 1) findings.push({ ...base, ...tooMany(others) });
    else if (!sameDigest(other, row))
      findings.push({ ...base, kind: 'different', copies: 1, targetDigest: formatDigest(other.digest) });
  }
  for (const [id, rows] of rest)
    findings.push({
      id,
      key: rows[0]!.key,
      kind: 'extra',
      targetDigest: formatDigest(rows[0]!.digest),
      copies: rows.length,
    });
  return findings;
}

/** Rows by their key: several of one where the target has no constraint that forbids it. */
export function rowsById(rows: readonly DigestedRow[]): Map<string, DigestedRow[]> {
  const byId = new Map<string, DigestedRow[]>();
  for (const row of rows) {
    const id = rowId(row.key);
    const known = byId.get(id);
    if (known === undefined) byId.set(id, [row]);
    else known.push(row);
  }
  return byId;
}

/** What is wrong with several rows of one key. */
export function tooMany(rows: readonly DigestedRow[]): Pick<Finding, 'kind' | 'copies' | 'targetDigest'> {
  return { kind: 'extra', copies: rows.length - 1, targetDigest: formatDigest(rows.at(-1)!.digest) };
}

function sameDigest(a: DigestedRow, b: DigestedRow): boolean {
  return a.digest.high === b.digest.high && a.digest.low === b.digest.low;
}

function compareAsMultisets(source: readonly DigestedRow[], target: readonly DigestedRow[]): Finding[] {
  const counts = new Map<string, number>();
  for (const row of source) add(counts, formatDigest(row.digest), 1);
  for (const row of target) add(counts, formatDigest(row.digest), -1);
  const findings: Finding[] = [];
  for (const [id, count] of counts) {
    if (count > 0) findings.push({ id, key: null, kind: 'missing', sourceDigest: id, copies: count });
    if (count < 0) findings.push({ id, key: null, kind: 'extra', targetDigest: id, copies: -count });
  }
  return findings;
}

function add(counts: Map<string, number>, id: string, count: number): void {
  counts.set(id, (counts.get(id) ?? 0) + count);
}
