/**
 * GS1 identification keys and their check digits (GS1 General Specifications, 7.9: weights alternate 3, 1, … from the
 * right). Identifiers are text: leading zeros count.
 */

const GTIN_LENGTHS = new Set([8, 12, 13, 14]);
/** GS1 AI encodable character set 82: what a serial may hold. */
const CHARACTERS_82 = /^[!-"%-?A-Z_a-z]{1,16}$/;

/** The check digit that belongs behind `digits`. */
export function checkDigit(digits: string): string {
  let sum = 0;
  for (let i = digits.length - 1, weight = 3; i >= 0; i--, weight = 4 - weight)
    sum += (digits.charCodeAt(i) - 0x30) * weight;
  return String((10 - (sum % 10)) % 10);
}

function digitsFault(text: string, length: number): string | undefined {
  if (!/^\d+$/.test(text)) return 'must be digits only';
  if (text.length !== length) return `must have ${length} digits`;
  if (/^0+$/.test(text)) return 'must not be all zeros';
  return checkDigit(text.slice(0, -1)) === text.at(-1) ? undefined : 'must end with its check digit';
}

/** A GTIN-8, -12, -13 or -14 left-padded to 14 digits; undefined when it is none. */
export function gtin14(text: string): string | undefined {
  if (!GTIN_LENGTHS.has(text.length)) return undefined;
  const padded = text.padStart(14, '0');
  return gtin14Fault(padded) === undefined ? padded : undefined;
}

/** What is wrong with a text as a GTIN of 14 digits. */
export function gtin14Fault(text: string): string | undefined {
  return digitsFault(text, 14);
}

/** What is wrong with a text as a GLN (13 digits). */
export function glnFault(text: string): string | undefined {
  return digitsFault(text, 13);
}

/** What is wrong with a text as an SSCC (18 digits). */
export function ssccFault(text: string): string | undefined {
  return digitsFault(text, 18);
}

/**
 * A GRAI as AI 8003 carries it: a leading zero, 13 digits with check digit, then up to 16 characters of serial. The
 * leading zero is added where a source leaves it out; undefined when the text is no GRAI.
 */
export function grai(text: string): string | undefined {
  const padded = /^\d{13}$/.test(text) ? `0${text}` : text;
  return graiFault(padded) === undefined ? padded : undefined;
}

/** What is wrong with a text as a GRAI of 14 digits and an optional serial. */
export function graiFault(text: string): string | undefined {
  if (!text.startsWith('0')) return 'must start with the filler digit 0';
  const asset = text.slice(1, 14);
  const fault = digitsFault(asset, 13);
  if (fault !== undefined) return fault.replace('13', '14');
  const serial = text.slice(14);
  return serial === '' || CHARACTERS_82.test(serial)
    ? undefined
    : 'must have a serial of at most 16 characters of set 82';
}
