/** Milestones of a tracking event, and the words other standards have for them. */

/** In the order of a delivery: a later rank is not undone by an earlier one that arrives late. */
export const MILESTONES = [
  'picked_up',
  'departed_terminal',
  'arrived_terminal',
  'eta_updated',
  'arrived_at_delivery',
  'attempted',
  'exception',
  'delivered',
] as const;

export type Milestone = (typeof MILESTONES)[number];

/** X12 214 AT701 status codes. */
export const X12_MILESTONES: Readonly<Record<string, Milestone>> = {
  AF: 'picked_up',
  X4: 'arrived_terminal',
  P1: 'departed_terminal',
  AG: 'eta_updated',
  X2: 'eta_updated',
  X1: 'arrived_at_delivery',
  AH: 'attempted',
  D1: 'delivered',
  SD: 'exception',
  A9: 'exception',
  A7: 'exception',
  A3: 'exception',
  CA: 'exception',
};

/** Standards whose words a mapping may take as they are. */
export const MILESTONE_STANDARDS = ['x12', 'dcsa'] as const;

export type MilestoneStandard = (typeof MILESTONE_STANDARDS)[number];

/** What a word of a standard is; undefined where it is no milestone. `classifier` is for DCSA. */
export function milestoneOf(standard: MilestoneStandard, word: string, classifier: string): Milestone | undefined {
  if (standard === 'dcsa') return dcsaMilestone(word, classifier);
  return Object.hasOwn(X12_MILESTONES, word) ? X12_MILESTONES[word] : undefined;
}

/** The milestone of a DCSA event (Track and Trace) and its classifier; DCSA's `GTIN` is a gate and no identifier. */
export function dcsaMilestone(event: string, classifier: string): Milestone | undefined {
  switch (event) {
    case 'PICK':
      return 'picked_up';
    case 'ARRI':
      return classifier === 'EST' ? 'eta_updated' : classifier === 'ACT' ? 'arrived_terminal' : undefined;
    case 'DEPA':
      return classifier === 'ACT' ? 'departed_terminal' : undefined;
    case 'HOLD':
    case 'CANC':
      return 'exception';
    default:
      return undefined;
  }
}
