/** Keys of several texts as one: joined by NUL, which a text of MySQL may hold itself. */

export function joinedKey(parts: readonly string[]): string {
  let key = '';
  for (let i = 0; i < parts.length; i++) key += (i === 0 ? '' : '\0') + keyPart(parts[i]!);
  return key;
}

/** A text as a part of a key: without NUL. */
export function keyPart(text: string): string {
  if (!text.includes('\0') && !text.includes('\u0001')) return text;
  return text.replaceAll('\u0001', '\u0001a').replaceAll('\0', '\u0001b');
}

/** The parts of a key that `joinedKey` made. */
export function keyParts(key: string): string[] {
  return key.split('\0').map((part) => part.replaceAll('\u0001b', '\0').replaceAll('\u0001a', '\u0001'));
}
