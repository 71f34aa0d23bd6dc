/** A flow that goes back to an earlier place of its stream, in one transaction of its target. */
import type { TableRecord } from './followed-tables.ts';
import type { RebuildPlan } from './rebuild-plan.ts';

export interface RebuildOptions {
  readonly flow: string;
  readonly source: string;
  readonly stream: string;
  /** Says where to go, from what the flow knows of its tables, while the flow's position is locked. What it throws undoes all. */
  readonly plan: (records: readonly TableRecord[]) => Promise<RebuildPlan>;
}

export interface Rebuilt {
  readonly plan: RebuildPlan;
  /** Changes that waited in quarantine: they come again, or what came later stands in for them. */
  readonly discarded: number;
}
