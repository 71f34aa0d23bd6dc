/** Keys with a change in quarantine: later changes of such a key wait behind it, and its neighbours go on. */
import type { ClientBase } from 'pg';
import { changedKey, keyShape, keyText, type KeyShape } from './table-plan.ts';
import type { RowChange, TableSchema } from '../../core/frame.ts';
import { targetError } from './target-error.ts';

export class HeldKeys {
  readonly #tables = new Map<string, Set<string>>();

  get empty(): boolean {
    return this.#tables.size === 0;
  }

  add(table: string, key: string): void {
    const keys = this.#tables.get(table);
    if (keys === undefined) this.#tables.set(table, new Set([key]));
    else keys.add(key);
  }

  has(table: string, key: string): boolean {
    return this.#tables.get(table)?.has(key) === true;
  }

  releaseTable(table: string): void {
    this.#tables.delete(table);
  }
}

/** The keys that a change touches: one, or two for an update that changes the key; none in a table without a key. */
export function touchedKeys(plan: KeyShape, row: RowChange): string[] {
  if (plan.key.length === 0) return [];
  const [op, , after, , before] = row;
  if (op === 'd') return [keyText(plan, before!)];
  if (after === null) return [];
  const now = keyText(plan, after, before);
  const earlier = changedKey(plan, row);
  return earlier === undefined ? [now] : [earlier, now];
}

/** Loads the held keys of a flow. Both keys of an update that changed one are held. */
export async function loadHeldKeys(client: ClientBase, flow: string, source: string): Promise<HeldKeys> {
  const held = new HeldKeys();
  try {
    const { rows } = await client.query<{ change: { change: RowChange; table: TableSchema } }>(
      'SELECT change FROM waybill.quarantine WHERE flow = $1 AND source = $2 AND key IS NOT NULL',
      [flow, source],
    );
    for (const { change } of rows) {
      const shape = keyShape(change.table);
      for (const key of touchedKeys(shape, change.change)) held.add(shape.id, key);
    }
    return held;
  } catch (thrown) {
    throw targetError(thrown, 'reading waybill.quarantine');
  }
}
