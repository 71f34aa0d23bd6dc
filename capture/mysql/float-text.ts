/**
 * Texts of FLOAT and DOUBLE as the server prints them (mysql-server strings/dtoa.cc, `my_gcvt`): the shortest digits
 * that read back as the same value, without an exponent from 1e-15 up to fifteen integer digits.
 */

/** A double as the server prints it. */
export function doubleText(value: number): string {
  const text = String(value);
  const size = Math.abs(value);
  // Between these JavaScript and the server print the same, except for minus nought.
  if ((size >= 1e-6 && size < 1e15) || value === 0) return Object.is(value, -0) ? '-0' : text;
  return regroup(text);
}

const scratch = new Float32Array(1);

/** A float: up to six digits, as the server prints it, where these read back as the same float; else as a double. */
export function floatText(value: number): string {
  // As text minus nought would lose its sign.
  if (value === 0) return doubleText(value);
  const six = Number(value.toPrecision(6));
  scratch[0] = six;
  return doubleText(scratch[0] === value ? six : value);
}

/** Chooses between plain and exponent form anew. */
function regroup(text: string): string {
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(text);
  if (match === null) throw new RangeError(`not a number: ${text}`);
  const [, sign, whole, fraction = '', exponent = '0'] = match;
  const all = `${whole}${fraction}`;
  const leading = /^0*/.exec(all)![0].length;
  const digits = all.slice(leading).replace(/0+$/, '');
  /** Place of the decimal point behind the first digit that counts. */
  const point = whole!.length - leading + Number(exponent);
  if (point >= -14 && (point <= 15 || digits.length > point)) {
    if (point <= 0) return `${sign}0.${'0'.repeat(-point)}${digits}`;
    if (point >= digits.length) return `${sign}${digits}${'0'.repeat(point - digits.length)}`;
    return `${sign}${digits.slice(0, point)}.${digits.slice(point)}`;
  }
  return `${sign}${digits[0]}${digits.length > 1 ? `.${digits.slice(1)}` : ''}e${point - 1}`;
}
