/** Sets of numbers as intervals: what a GTID set holds of one source. */

/** Flat: first, last, first, last, … both inclusive, ascending, never touching. */
export type Intervals = readonly number[];

/** Sorts and merges intervals; touching ones become one. */
export function normalise(list: readonly number[]): Intervals {
  const pairs: [number, number][] = [];
  for (let i = 0; i < list.length; i += 2) pairs.push([list[i]!, list[i + 1]!]);
  pairs.sort((a, b) => a[0] - b[0]);
  const out: number[] = [];
  for (const [first, last] of pairs) {
    const end = out.at(-1);
    if (end !== undefined && first <= end + 1) out[out.length - 1] = Math.max(end, last);
    else out.push(first, last);
  }
  return out;
}

/** Whether one interval of the list holds all of [first, last]; binary search. */
export function covers(list: Intervals, first: number, last: number): boolean {
  let low = 0;
  let high = list.length / 2 - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (list[middle * 2]! > first) high = middle - 1;
    else if (list[middle * 2 + 1]! < first) low = middle + 1;
    else return last <= list[middle * 2 + 1]!;
  }
  return false;
}

/** What of `a` is not in `b`. */
export function difference(a: Intervals, b: Intervals): Intervals {
  const out: number[] = [];
  let n = 0;
  for (let i = 0; i < a.length; i += 2) {
    let first = a[i]!;
    const last = a[i + 1]!;
    while (n < b.length && b[n + 1]! < first) n += 2;
    let m = n;
    while (m < b.length && b[m]! <= last) {
      if (b[m]! > first) out.push(first, b[m]! - 1);
      first = b[m + 1]! + 1;
      m += 2;
    }
    if (first <= last) out.push(first, last);
  }
  return out;
}
