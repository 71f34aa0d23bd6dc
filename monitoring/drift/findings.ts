/** Differences of two readings of the same rows. */
import { formatDigest } from './digest.ts';
import type { DigestedRow, KeyTexts } from './side.ts';
import { rowId } from './touched.ts';

export type DriftKind = 'missing' | 'extra' | 'different';

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
  const rest = new Map<string, DigestedRow>();
  for (const row of target) rest.set(rowId(row.key), row);
  for (const row of source) {
    const id = rowId(row.key);
    const other = rest.get(id);
    rest.delete(id);
    if (other !== undefined && other.digest.high === row.digest.high && other.digest.low === row.digest.low) continue;
    const base = { id, key: row.key, sourceDigest: formatDigest(row.digest), copies: 1 };
    if (other === undefined) findings.push({ ...base, kind: 'missing' });
    else findings.push({ ...base, kind: 'different', targetDigest: formatDigest(other.digest) });
  }
  for (const [id, row] of rest)
    findings.push({ id, key: row.key, kind: 'extra', targetDigest: formatDigest(row.digest), copies: 1 });
  return findings;
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
