/** Kills of a stage at random: between any two statements, and where it is in the middle of something. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Failpoint } from '../../core/failpoint.ts';
import type { Random } from '../../sandbox/demo/random.ts';
import type { Stage } from './stage.ts';

/** What a stage that was just started does takes about so long. */
const MOST_DELAY_MS = 300;

/**
 * Kills a stage, at once or in a moment, and starts it again so that it kills itself at one of the points, or not. Gives what
 * was chosen.
 */
export async function killAtRandom(
  random: Random,
  stage: Stage,
  points: readonly (Failpoint | undefined)[],
): Promise<string> {
  const afterMs = random.pick([0, 0, random.between(1, MOST_DELAY_MS)]);
  const name = random.pick(points);
  const point = name === undefined ? undefined : `${name}:${random.pick([1, 1, 2, 3])}`;
  await delay(afterMs);
  await stage.end('SIGKILL');
  stage.start(point);
  return `after ${afterMs} ms, then ${point ?? 'at no point'}`;
}
