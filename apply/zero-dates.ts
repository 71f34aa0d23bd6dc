/** Dates that only MySQL and MariaDB have: 0000-00-00, and those whose month or day is zero. A policy per flow. */
import type { FlowConfig } from '../core/config.ts';
import { ValueMisfit, type Convert } from './value-misfit.ts';

const ZERO = 0x30;

/** Whether the year, month or day of `2024-02-29…` is zero. */
function hasZeroPart(text: string): boolean {
  const zero = (at: number): boolean => text.charCodeAt(at) === ZERO && text.charCodeAt(at + 1) === ZERO;
  return zero(5) || zero(8) || (zero(0) && zero(2));
}

/** What becomes of such a date by the flow's policy; other dates stay. `epoch` is 1970-01-01 in the column's form. */
export function zeroDates(policy: FlowConfig['zero_dates'], epoch: string): Convert {
  return (text) => {
    if (!hasZeroPart(text)) return text;
    if (policy === 'null') return null;
    if (policy === 'epoch') return epoch;
    throw new ValueMisfit('the date has a year, month or day of zero (see zero_dates of the flow)');
  };
}
