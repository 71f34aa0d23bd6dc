import { defineConfig } from 'vitest/config';

/** One project for each kind of test, by folder. Groups run one after the other, so that loads do not mix. */
function project(name: string, order: number, settings: { testTimeout?: number; maxWorkers?: number }) {
  return {
    test: {
      name,
      include: [`test/${name}/**/*.test.ts`],
      environment: 'node' as const,
      hookTimeout: settings.testTimeout ?? 30_000,
      testTimeout: settings.testTimeout ?? 30_000,
      maxWorkers: settings.maxWorkers ?? 2,
      fileParallelism: settings.maxWorkers !== 1,
      sequence: { groupOrder: order },
      retry: 0,
    },
  };
}

export default defineConfig({
  test: {
    projects: [
      project('unit', 1, {}),
      project('property', 2, {}),
      project('integration', 3, { testTimeout: 120_000 }),
      project('fault', 4, { testTimeout: 120_000 }),
      project('e2e', 5, { testTimeout: 600_000, maxWorkers: 1 }),
    ],
  },
});
