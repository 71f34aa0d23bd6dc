import { BaseSequencer, type TestSpecification } from 'vitest/node';
import { defineConfig } from 'vitest/config';

/** Those last longest that kill and restart whole installations; then those on several databases. */
const LONGEST_FIRST = [/[/\\]e2e[/\\]/, /[/\\]fault[/\\]/, /drift/, /mysql/];

/** Starts with the files that last longest, so that no worker is left alone with one of them at the end. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const found = LONGEST_FIRST.findIndex((pattern) => pattern.test(moduleId));
      return found < 0 ? LONGEST_FIRST.length : found;
    };
    return (await super.sort(files)).toSorted((a, b) => rank(a) - rank(b));
  }
}

/**
 * One project for each kind of test, by folder. Groups run one after the other: what computes only, then what starts
 * servers, of which three at a time keep two cores busy, since much of their time is spent waiting for servers.
 */
function project(name: string, order: number, settings: { testTimeout?: number; maxWorkers?: number }) {
  return {
    test: {
      name,
      include: [`test/${name}/**/*.test.ts`],
      environment: 'node' as const,
      hookTimeout: settings.testTimeout ?? 30_000,
      testTimeout: settings.testTimeout ?? 30_000,
      maxWorkers: settings.maxWorkers ?? 2,
      sequence: { groupOrder: order },
      retry: 0,
    },
  };
}

export default defineConfig({
  test: {
    sequence: { sequencer: LongestFirst },
    projects: [
      project('unit', 1, {}),
      project('property', 1, {}),
      project('integration', 2, { testTimeout: 240_000, maxWorkers: 3 }),
      project('fault', 2, { testTimeout: 240_000, maxWorkers: 3 }),
      project('e2e', 2, { testTimeout: 600_000, maxWorkers: 3 }),
    ],
  },
});
