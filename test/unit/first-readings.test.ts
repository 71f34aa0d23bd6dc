import type { KV } from '@nats-io/kv';
import { expect, it } from 'vitest';
import { readFirstReadings } from '../../capture/first-readings.ts';
import { withRequest } from '../../capture/requested-tables.ts';
import { planSnapshot } from '../../capture/snapshot-plan.ts';
import type { ProgressStore, SnapshotProgress } from '../../capture/snapshot-request.ts';

const names = ['a', 'b'].map((name) => ({ schema: 's', name }));

/** The progress that a start makes of what there was. */
async function plan(before: SnapshotProgress | undefined, resets: readonly string[] = []): Promise<SnapshotProgress> {
  let progress = before;
  const store = {
    read: async () => progress,
    write: async (written: SnapshotProgress) => void (progress = written),
  } as unknown as ProgressStore;
  await planSnapshot(store, names, { startAfresh: resets.length > 0, read: true, resets });
  return progress!;
}

async function first(progress: SnapshotProgress): Promise<string[]> {
  const entry = { operation: 'PUT', json: () => progress };
  return [...(await readFirstReadings({ get: async () => entry } as unknown as KV, 'wms'))];
}

const ended = ({ tables, ...rest }: SnapshotProgress): SnapshotProgress => ({
  ...rest,
  tables: tables.map((table) => ({ ...table, state: 'done' })),
});

it('a table is read for the first time also where somebody asks for it meanwhile', async () => {
  const progress = await plan(undefined);
  expect(await first(progress)).toEqual(['s.a', 's.b']);
  progress.tables[0]!.state = 'running';
  progress.tables[0]!.reading = 'one';
  for (const tables of [['s.a'], undefined]) {
    const request = { v: 1 as const, id: 'asked', ...(tables === undefined ? {} : { tables }) };
    const wanted = tables === undefined ? names : names.slice(0, 1);
    const made = { ...progress, tables: withRequest(progress.tables, request, wanted) };
    expect((await first(made)).toSorted()).toEqual(['s.a', 's.b']);
  }
});

it('a table that is there is not, when somebody asks for it', async () => {
  const progress = ended(await plan(undefined));
  expect(await first(progress)).toEqual([]);
  const request = { v: 1 as const, id: 'asked' };
  expect(await first({ ...progress, tables: withRequest(progress.tables, request, names) })).toEqual([]);
});

it('after the log was lost all are', async () => {
  const before = ended(await plan(undefined));
  expect(await first(await plan(before, ['reset']))).toEqual(['s.a', 's.b']);
});
