import { BaseSequencer, type TestSpecification } from 'vitest/node';
import { defineConfig } from 'vitest/config';
import { memoryFolder } from './test/support/memory-folder.ts';
import { THOROUGH } from './test/thorough.ts';

/** Those that kill and restart whole installations: they last longest, and each keeps the machine busy by itself. */
const HEAVY = /[/\\](e2e|fault)[/\\]/;

/** Spreads the heavy files over the run, so that few of them run at a time and none is left to the end. */
class HeavySpread extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const heavy = sorted.filter(({ moduleId }) => HEAVY.test(moduleId));
    const light = sorted.filter(({ moduleId }) => !HEAVY.test(moduleId));
    const lightPerHeavy = Math.floor(light.length / (heavy.length + 1));
    const spread = heavy.flatMap((one) => [one, ...light.splice(0, lightPerHeavy)]);
    return [...spread, ...light];
  }
}

/** Where the servers of the tests keep their data: in memory where there is room, unless told otherwise. */
const sandboxFolder = process.env['WAYBILL_SANDBOX_DIR'] ?? memoryFolder();

/**
 * One project for each kind of test, by folder, and beside it one of those that `npm test` leaves out (test/thorough.ts).
 * Groups run one after the other: what computes only, then what starts servers, of which three at a time keep two cores
 * busy, since much of their time is spent waiting for servers.
 *
 * Files share processes: to start one and load the modules takes longer than many tests, and code that ran before runs
 * faster. Hence a file leaves nothing behind: it closes what it opened, and puts back what it changed in its process. Those
 * few that kill and restart whole installations have processes of their own.
 */
function project(name: string, order: number, settings: ProjectSettings) {
  const all = `test/${name}/**/*.test.ts`;
  const thorough = THOROUGH.filter((file) => file.startsWith(`${name}/`)).map((file) => `test/${file}.test.ts`);
  return thorough.length === 0
    ? [projectOf(name, order, [all], [], settings)]
    : [projectOf(name, order, [all], thorough, settings), projectOf(`${name}-thorough`, order, thorough, [], settings)];
}

interface ProjectSettings {
  readonly testTimeout?: number;
  readonly maxWorkers?: number;
  readonly isolate?: boolean;
}

function projectOf(name: string, order: number, include: string[], exclude: string[], settings: ProjectSettings) {
  return {
    test: {
      name,
      include,
      exclude,
      environment: 'node' as const,
      env: sandboxFolder === undefined ? {} : { WAYBILL_SANDBOX_DIR: sandboxFolder },
      hookTimeout: settings.testTimeout ?? 30_000,
      testTimeout: settings.testTimeout ?? 30_000,
      maxWorkers: settings.maxWorkers ?? 2,
      isolate: settings.isolate ?? true,
      sequence: { groupOrder: order },
      retry: 0,
      // As the program itself (cli/main.ts): on cores that servers use as well, threads that compile and collect cost more than they save.
      execArgv: ['--single-threaded'],
      // What is waited for comes, or is a defect: on a busy machine it comes later.
      expect: { poll: { timeout: 60_000, interval: 50 } },
    },
  };
}

export default defineConfig({
  test: {
    sequence: { sequencer: HeavySpread },
    projects: [
      ...project('unit', 1, { isolate: false }),
      ...project('property', 2, { isolate: false }),
      ...project('integration', 3, { testTimeout: 240_000, maxWorkers: 3, isolate: false }),
      ...project('fault', 3, { testTimeout: 240_000, maxWorkers: 3 }),
      ...project('e2e', 3, { testTimeout: 600_000, maxWorkers: 3 }),
      // Another seed each time: for looking for defects by hand, not for telling whether a change is good.
      ...project('fuzz', 4, { testTimeout: 600_000, maxWorkers: 1 }),
    ],
  },
});
