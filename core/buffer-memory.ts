/**
 * Memory of large buffers. V8 looks after objects: buffers outside its heap are freed with the object that names them,
 * and up to 32 MB of those that are no longer needed gather before that is a reason to collect (64 MB of those that were
 * needed for a while). A stage that passes hundreds of megabytes a second through a heap of a few would hold that much for
 * nothing. Hence stages say how much they have used, and give up large buffers when they are done with them.
 */

import { getHeapStatistics } from 'node:v8';

/** A collection of the young part of a small heap takes less than a millisecond: often enough to be bounded, too rare to be felt. */
const COLLECT_BYTES = 1 << 20;
/** In a large heap it takes longer, and buffers of this part of it are not what its memory is spent on. */
const COLLECT_PART = 16;
/** Node reads at most so much of a socket at a time: a longer message was put together in memory of its own. */
const SOCKET_BYTES = 64 * 1024;
/** Below this, giving a buffer up costs more than it brings. */
const LARGE_BYTES = 64 * 1024;

/**
 * Of so many collections, one is of the whole heap: buffers that outlived two of the others are no longer young, and V8
 * itself sees no reason to look for them while little else grows.
 */
const COLLECTIONS = 32;
/** In a heap of this size that takes some 20 ms. In a larger one it would be felt, and a few buffers would not. */
const SMALL_HEAP_BYTES = 48 << 20;

let used = 0;
let collectAt = COLLECT_BYTES;
let collections = 0;

/**
 * Counts bytes of buffers that were used and are no longer needed; from time to time, has them freed. Does so only where
 * the program was started with `--expose-gc`, as its first line has it.
 */
export function buffersUsed(bytes: number): void {
  used += bytes;
  if (used < collectAt) return;
  used = 0;
  collections += 1;
  const heap = getHeapStatistics().used_heap_size;
  collectAt = Math.max(COLLECT_BYTES, heap / COLLECT_PART);
  if (collections % COLLECTIONS === 0 && heap < SMALL_HEAP_BYTES) globalThis.gc?.();
  else globalThis.gc?.({ type: 'minor' });
}

/** A copy of the parts, one after the other, that owns its memory: what `giveUp` wants. */
export function ownCopy(...parts: readonly Uint8Array[]): Buffer {
  const copy = Buffer.allocUnsafeSlow(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    copy.set(part, at);
    at += part.byteLength;
  }
  return copy;
}

/**
 * Gives up the memory of a view that owns it (`ownCopy`) however long it has lived: the view is empty from now on, and the
 * memory is freed with the next collection of the young part.
 */
export function giveUp(view: NodeJS.ArrayBufferView): void {
  const { buffer, byteLength } = view;
  if (byteLength < LARGE_BYTES || byteLength !== buffer.byteLength || !(buffer instanceof ArrayBuffer)) return;
  structuredClone(buffer, { transfer: [buffer] });
}

/**
 * Gives up the memory of a message of the broker, of which nothing is read any more. For one that comes in several packets
 * the client grows a buffer to up to twice its size; while it waits, others are freed, and then it is no longer young and
 * stays until the whole heap is collected. A short message shares its memory with others, and is left alone.
 */
export function giveUpMessage({ buffer, byteLength }: Uint8Array): void {
  if (byteLength > SOCKET_BYTES && buffer instanceof ArrayBuffer) structuredClone(buffer, { transfer: [buffer] });
}
