/**
 * V8 lets a heap grow several times over before it collects, and the young part to 32 MB. Stages work on buffers of
 * bounded size with few objects (Invariant 6): memory matters more to them than the last tenth of speed. To be imported
 * before anything else: the young part never shrinks, and loading code makes it grow.
 *
 * Nor may V8 decide that what a line of code makes is old from the start, because it once was. What the first load of a
 * hundred thousand rows keeps, each later change makes and drops; as old objects, with all that they name, such changes
 * stayed until the whole heap was collected (docs/decisions.md).
 */
import { setFlagsFromString } from 'node:v8';

setFlagsFromString('--semi-space-growth-factor=1');
setFlagsFromString('--heap-growing-percent=50');
setFlagsFromString('--no-allocation-site-pretenuring');
