/**
 * Records that went while nobody looked: they are in no state any more when all records are written anew. A target that
 * keeps records by themselves forgets what is not among them; tables of other systems must be told of each that goes.
 */
import { keptSequences, findFirstWhole, readFrames, readHeaders } from '../core/cdc-stream.ts';
import type { TableSchema, Value } from '../core/frame.ts';
import { IndexedFrame } from '../core/indexed-frame.ts';
import type { Nats } from '../core/nats.ts';
import type { Entity, RecordValues } from './canonical/entity.ts';
import { CANONICAL_SCHEMA } from './canonical/envelope.ts';
import type { FlowState } from './flow-state.ts';
import { passedOnBefore } from './saved-state.ts';
import type { StateStore } from './state-store.ts';

/** Where it is told what was passed on before. */
export interface PassedOn {
  readonly store: StateStore;
  readonly nats: Nats;
  /** The stream of records. */
  readonly stream: string;
  readonly signal: AbortSignal;
}

/**
 * The keys, as values by position, of records that were passed on and are not there now: what waits to be passed on as
 * gone; and with `before`, where `state` was not made from what was passed on last, what the saved state before it had,
 * and what came behind that in the stream of records. Of no use when the signal has aborted.
 */
export async function vanishedRecords(state: FlowState, before: PassedOn | undefined): Promise<RecordValues[]> {
  const { entity } = state.plan;
  const gone = new Set<string>();
  const note = (key: string): void => {
    if (state.resolver.record(key) === undefined) gone.add(key);
  };
  for (const [key, view] of state.delivery.saved()) if (view !== null) note(key);
  if (before !== undefined) {
    const { store } = before;
    const saved = await store.latest();
    if (saved !== undefined) {
      const passedOn = passedOnBefore(entity);
      // A state of which a piece is gone still names keys that were there.
      await store.read(saved, (line) => {
        for (const key of passedOn(line)) note(key);
      });
    }
    for await (const { key, isThere } of passedOnBehind(before, entity, saved?.recordsSeq ?? 0))
      if (isThere) note(key);
      else gone.delete(key);
  }
  return [...gone].sort().map((key) => keyValues(entity, key));
}

/** The keys of what stands in the stream of records behind a sequence, as far as it is kept. */
async function* passedOnBehind(
  { nats, stream, signal }: PassedOn,
  entity: Entity,
  seq: number,
): AsyncGenerator<{ readonly key: string; readonly isThere: boolean }, void, void> {
  const { last } = await keptSequences(nats, stream);
  const startSeq = last > seq ? await findFirstWhole(nats, stream, seq + 1) : undefined;
  if (startSeq === undefined) return;
  const { start: position } = await readHeaders(nats, stream, startSeq);
  for await (const frame of readFrames(nats, stream, { startSeq, position, signal })) {
    const rows = IndexedFrame.open(frame.payload, frame.place);
    const keys = rows.tables.map((table) => keyColumns(table, entity));
    for (let row = 0; row < rows.length; row++) {
      const op = rows.op(row);
      const columns = keys[rows.tableIndex(row)];
      if (columns === undefined || op === 's') continue;
      const change = rows.row(row);
      const image = (op === 'd' ? change[4] : change[2])!;
      yield { key: columns.map((column) => textOf(image[column])).join('\u001f'), isThere: op !== 'd' };
    }
    if (frame.seq >= last) return;
  }
}

/** Where the fields of an entity's key stand in a table of a frame; undefined where it is not the entity's. */
function keyColumns({ schema, name, columns }: TableSchema, entity: Entity): number[] | undefined {
  if (schema !== CANONICAL_SCHEMA || name !== entity.name) return undefined;
  return entity.key.map((field) => columns.findIndex((column) => column.name === field));
}

function textOf(value: Value | undefined): string {
  return typeof value === 'string' ? value : '';
}

function keyValues({ fields, keyIndexes }: Entity, key: string): RecordValues {
  const parts = key.split('\u001f');
  const values: (string | null)[] = fields.map(() => null);
  for (const [part, index] of keyIndexes.entries()) values[index] = parts[part]!;
  return values;
}
