/** How an outbound mapping fits the tables of a system as they are. */
import { ReplicationError } from '../../core/errors.ts';
import type { OutboundBlock, OutboundPlan } from '../../core/outbound.ts';
import { endingProblems, meetingsOf, type Meeting } from './meeting-rows.ts';
import { outboundProblems, type OutboundProblem, type SystemTables } from './outbound-shape.ts';

export interface OutboundFit {
  /** Everything that is wrong. */
  readonly problems: readonly OutboundProblem[];
  /** Which records meet in rows of each block. */
  readonly meetings: ReadonlyMap<OutboundBlock, Meeting>;
}

export function outboundFit(plan: OutboundPlan, tables: SystemTables): OutboundFit {
  return {
    problems: [...outboundProblems(plan, tables), ...endingProblems(plan, tables)],
    meetings: meetingsOf(plan, tables),
  };
}

/** Throws `mapping_invalid`, with file and line, when a plan does not fit. */
export function requireFit(plan: OutboundPlan, tables: SystemTables): void {
  const { problems } = outboundFit(plan, tables);
  if (problems.length > 0)
    throw new ReplicationError(
      'mapping_invalid',
      problems.map(({ line, message }) => `${plan.place}:${line}: ${message}`).join('; '),
    );
}
