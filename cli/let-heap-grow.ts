/**
 * Takes back what `keep-heap-small.ts` sets, for a stage that keeps rows and records by the hundred thousand: collecting
 * such a heap often, and copying what stays through a small young part, took half of a transform's time. What it keeps is
 * bounded by `state_bytes` of its flow (Invariant 6).
 */
import { setFlagsFromString } from 'node:v8';

export function letHeapGrow(): void {
  setFlagsFromString('--semi-space-growth-factor=2');
  setFlagsFromString('--heap-growing-percent=0');
}
