#!/usr/bin/env -S MALLOC_MMAP_THRESHOLD_=131072 node --single-threaded --expose-gc
/**
 * Where the program starts: how V8 and the C library shall work is said before anything is loaded.
 *
 * A stage is one thread of JavaScript over short-lived buffers. Helper threads that collect and compile beside it find
 * little to do, and waking them and waiting for them costs a tenth of its time on a machine whose cores the databases and
 * NATS use as well (docs/decisions.md). For the collections that stages ask for see core/buffer-memory.ts. Once a large
 * buffer was freed, glibc keeps the memory of the next ones for itself, unless it is told the size from which they are to go
 * back at once. All these are taken at the start alone, hence the first line.
 */
// oxlint-disable-next-line import/no-unassigned-import -- it acts before the modules below are loaded
import './keep-heap-small.ts';
// oxlint-disable-next-line import/no-unassigned-import -- the same
import './name-runtime.ts';

// Not a static import: where modules are joined (cli/bundle.mjs), what they share is loaded before what imports it.
await import('./program.ts');
