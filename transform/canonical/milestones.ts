/** Milestones of a tracking event, and the words other standards have for them. */

/** In the order of a delivery: a later rank is not undone by an earlier one that arrives late. */
export const MILESTONES = [
  'picked_up',
  'departed_terminal',
  'arrived_terminal',
  'eta_updated',
  'arrived_at_delivery',
  'attempted',
  'delivered',
  'exception',
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
