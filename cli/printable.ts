/** Texts of others on a terminal: names, keys and messages that may hold anything. */

/** Characters that a terminal obeys rather than shows: control characters, and those that turn the direction of text. */
const OBEYED = /[\p{Cc}\u202A-\u202E\u2066-\u2069]/gu;
const SHORT: Readonly<Record<string, string>> = { '\n': String.raw`\n`, '\r': String.raw`\r`, '\t': String.raw`\t` };

/** The text on one line, with such characters as escapes. */
export function printable(text: string): string {
  return text.replaceAll(
    OBEYED,
    (char) => SHORT[char] ?? String.raw`\u${char.codePointAt(0)!.toString(16).padStart(4, '0')}`,
  );
}

/** The same of a text that may have several lines. */
export function printableLines(text: string): string {
  return text.split('\n').map(printable).join('\n');
}
