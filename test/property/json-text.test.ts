/** Texts that are copied into JSON or into lines of COPY, wherever they and their escapes lie. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { MOST_COPY_ESCAPE_BYTES, MOST_ESCAPE_BYTES, TextCopier } from '../../core/json-text.ts';
import { copyField } from '../support/copy-rows.ts';

/** Mostly plain, with everything that needs an escape or lies next to it, and beyond ASCII. */
const character = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('a', ' ', '!', '#', '[', ']', '\u007f') },
  { weight: 2, arbitrary: fc.constantFrom('"', '\\', '\n', '\t', '\v', '\r', '\u0000', '\u001f', '\u0001') },
  { weight: 2, arbitrary: fc.constantFrom('ä', '¢', 'ܢ', '\u0080', '€', '😀') },
);

it.each([
  ['JSON writes it', 'json', MOST_ESCAPE_BYTES, (text: string) => JSON.stringify(text).slice(1, -1)],
  ['COPY of Postgres writes it', 'copy', MOST_COPY_ESCAPE_BYTES, copyField],
] as const)('copies every text as %s', (_, form, mostBytes, written) => {
  const copier = new TextCopier(form);
  fc.assert(
    fc.property(
      fc.array(character, { maxLength: 80 }),
      fc.nat({ max: 9 }),
      fc.nat({ max: 9 }),
      fc.boolean(),
      (characters, before, outBefore, forget) => {
        const text = characters.join('');
        const bytes = Buffer.from(text);
        const source = Buffer.concat([Buffer.alloc(before, '"'), bytes, Buffer.from('"\\')]);
        const out = Buffer.alloc(outBefore + bytes.length * mostBytes, '~');
        if (forget) copier.forget();
        const end = copier.copy(source, before, before + bytes.length, out, outBefore);
        expect(out.toString('utf8', outBefore, end)).toBe(written(text));
        expect(out.toString('latin1', 0, outBefore)).toBe('~'.repeat(outBefore));
      },
    ),
    { numRuns: 2000 },
  );
});
