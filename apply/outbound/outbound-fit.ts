/** How an outbound mapping fits the tables of a system as they are. */
import type { OutboundBlock, OutboundPlan } from '../../core/outbound.ts';
import { meetingsOf, type Meeting } from './meeting-rows.ts';
import { outboundProblems, type OutboundProblem, type SystemTables } from './outbound-shape.ts';

export interface OutboundFit {
  /** Everything that is wrong. */
  readonly problems: readonly OutboundProblem[];
  /** Which records meet in rows of each block. */
  readonly meetings: ReadonlyMap<OutboundBlock, Meeting>;
}

export function outboundFit(plan: OutboundPlan, tables: SystemTables): OutboundFit {
  return { problems: outboundProblems(plan, tables), meetings: meetingsOf(plan, tables) };
}
