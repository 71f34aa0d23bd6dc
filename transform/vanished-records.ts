/**
 * Records that went while nobody looked: they are in no state any more when all records are written anew. A target that
 * keeps records by themselves forgets what is not among them; tables of other systems must be told of each that goes.
 */
import type { Entity, RecordValues } from './canonical/entity.ts';
import type { FlowState } from './flow-state.ts';
import { passedOnBefore } from './saved-state.ts';
import type { StateStore } from './state-store.ts';

/**
 * The keys, as values by position, of records that were passed on and are not there now: what waits to be passed on as
 * gone; and with `store`, where `state` was not made from what was passed on last, what the saved state before it had.
 */
export async function vanishedRecords(state: FlowState, store: StateStore | undefined): Promise<RecordValues[]> {
  const { entity } = state.plan;
  const gone = new Set<string>();
  const note = (key: string): void => {
    if (state.resolver.record(key) === undefined) gone.add(key);
  };
  for (const [key, view] of state.delivery.saved()) if (view !== null) note(key);
  const saved = await store?.latest();
  if (saved !== undefined) {
    const passedOn = passedOnBefore(entity);
    // A state of which a piece is gone still names keys that were there.
    await store!.read(saved, (line) => {
      for (const key of passedOn(line)) note(key);
    });
  }
  return [...gone].sort().map((key) => keyValues(entity, key));
}

function keyValues({ fields, keyIndexes }: Entity, key: string): RecordValues {
  const parts = key.split('\u001f');
  const values: (string | null)[] = fields.map(() => null);
  for (const [part, index] of keyIndexes.entries()) values[index] = parts[part]!;
  return values;
}
