/**
 * V8 lets a heap grow several times over before it collects, and the young part to 32 MB. Stages work on buffers of
 * bounded size with few objects (Invariant 6): memory matters more to them than the last tenth of speed. To be imported
 * before anything else: the young part never shrinks, and loading code makes it grow.
 */
import { setFlagsFromString } from 'node:v8';

setFlagsFromString('--semi-space-growth-factor=1');
setFlagsFromString('--heap-growing-percent=50');
