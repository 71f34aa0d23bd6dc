/** Records that are passed on once more: a comparison found that the target does not have them as they were passed on. */
import type { RecordValues } from './canonical/entity.ts';
import type { Lineage } from './canonical/envelope.ts';
import type { FlowState } from './flow-state.ts';
import type { AgainRequest } from './request.ts';

export interface PassedAgain {
  readonly values: RecordValues;
  /** Left out: the record is gone. */
  readonly lineage?: { readonly newest: Lineage; readonly groups: string | null };
}

const SEPARATOR = '\u001f';

/**
 * What a request comes to. A record whose change waits for its delivery is passed on as it was; of one that is there nobody
 * is told that it is gone, whatever the request says.
 */
export function passedAgain(state: FlowState, { again, gone }: AgainRequest): PassedAgain[] {
  const { resolver, delivery, plan } = state;
  const passed: PassedAgain[] = [];
  for (const parts of again) {
    const key = parts.join(SEPARATOR);
    const record = resolver.record(key);
    const values = record === undefined ? undefined : delivery.passedOn(key, record);
    const newest = resolver.lineage(key);
    if (values !== undefined && newest !== undefined)
      passed.push({ values, lineage: { newest, groups: state.groups(key) } });
  }
  for (const parts of gone) {
    const key = parts.join(SEPARATOR);
    // One that waits to be said to be gone has its time.
    if (resolver.record(key) !== undefined || delivery.waits(key)) continue;
    const values: (string | null)[] = plan.entity.fields.map(() => null);
    for (const [at, index] of plan.entity.keyIndexes.entries()) values[index] = parts[at] ?? null;
    passed.push({ values });
  }
  return passed;
}
