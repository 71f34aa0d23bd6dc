/**
 * Digests of rows and of sets of rows. A row's digest is 128 bits of a hash of its canonical text, read as two signed
 * 64-bit halves; a set is a row count and the sums of both halves, from which Σ digest mod 2^128 follows. Sums, not XOR:
 * XOR forgets rows that come in pairs. Between Postgres databases the hash is MD5, the fastest that they compute (nobody
 * chooses rows to make it collide); where MySQL or MariaDB take part the first half of SHA-256, because MySQL has had no
 * MD5 since 9.6.
 */
import { createHash } from 'node:crypto';

export interface RowDigest {
  readonly high: bigint;
  readonly low: bigint;
}

export type DigestHash = 'md5' | 'sha256';

export function digestOf(canonicalText: string, hash: DigestHash): RowDigest {
  const bytes = createHash(hash).update(canonicalText, 'utf8').digest();
  return { high: bytes.readBigInt64BE(0), low: bytes.readBigInt64BE(8) };
}

/** 32 hexadecimal digits: the first half of the hash, or all of the MD5. */
export function formatDigest({ high, low }: RowDigest): string {
  const hex = (half: bigint): string => BigInt.asUintN(64, half).toString(16).padStart(16, '0');
  return hex(high) + hex(low);
}

/** The digest that `formatDigest` wrote. */
export function parseDigest(text: string): RowDigest {
  const half = (digits: string): bigint => BigInt.asIntN(64, BigInt(`0x${digits}`));
  return { high: half(text.slice(0, 16)), low: half(text.slice(16)) };
}

/** The bucket that a digest falls into: the low bits that `mask` leaves. */
export function bucketOf(digest: RowDigest, mask: number): number {
  return Number(digest.low & BigInt(mask));
}

/** What a set of rows amounts to. */
export interface BucketSum {
  rows: number;
  high: bigint;
  low: bigint;
}

/** Σ digest mod 2^128. */
export function sumOf(bucket: BucketSum): bigint {
  return BigInt.asUintN(128, (bucket.high << 64n) + bucket.low);
}

/** The sums of a set of rows, bucket by bucket; buckets without rows are left out. */
export class Buckets {
  readonly mask: number;
  readonly #sums = new Map<number, BucketSum>();

  /** `mask` is a power of two less one. */
  constructor(mask: number) {
    this.mask = mask;
  }

  get rows(): number {
    let rows = 0;
    for (const sum of this.#sums.values()) rows += sum.rows;
    return rows;
  }

  get size(): number {
    return this.mask + 1;
  }

  rowsIn(bucket: number): number {
    return this.#sums.get(bucket)?.rows ?? 0;
  }

  add(bucket: number, rows: number, high: bigint, low: bigint): void {
    const sum = this.#sums.get(bucket);
    if (sum === undefined) {
      this.#sums.set(bucket, { rows, high, low });
      return;
    }
    sum.rows += rows;
    sum.high += high;
    sum.low += low;
  }

  addRow(digest: RowDigest): void {
    this.add(bucketOf(digest, this.mask), 1, digest.high, digest.low);
  }

  /** The buckets in which two sets of one mask differ, in order. */
  differing(other: Buckets): number[] {
    const found: number[] = [];
    for (const bucket of new Set([...this.#sums.keys(), ...other.#sums.keys()])) {
      const a = this.#sums.get(bucket);
      const b = other.#sums.get(bucket);
      if (a === undefined || b === undefined || a.rows !== b.rows || sumOf(a) !== sumOf(b)) found.push(bucket);
    }
    return found.sort((a, b) => a - b);
  }
}
