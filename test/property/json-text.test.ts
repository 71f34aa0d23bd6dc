/** Texts that are copied into JSON, wherever they and their escapes lie. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { JsonTextCopier, MOST_ESCAPE_BYTES } from '../../core/json-text.ts';

/** Mostly plain, with everything that needs an escape or lies next to it, and beyond ASCII. */
const character = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('a', ' ', '!', '#', '[', ']', '\u007f') },
  { weight: 2, arbitrary: fc.constantFrom('"', '\\', '\n', '\u0000', '\u001f', '\u0001') },
  { weight: 2, arbitrary: fc.constantFrom('ä', '¢', 'ܢ', '\u0080', '€', '😀') },
);

it('copies every text as JSON writes it', () => {
  const copier = new JsonTextCopier();
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
        const out = Buffer.alloc(outBefore + bytes.length * MOST_ESCAPE_BYTES, '~');
        if (forget) copier.forget();
        const end = copier.copy(source, before, before + bytes.length, out, outBefore);
        expect(`"${out.toString('utf8', outBefore, end)}"`).toBe(JSON.stringify(text));
        expect(out.toString('latin1', 0, outBefore)).toBe('~'.repeat(outBefore));
      },
    ),
    { numRuns: 2000 },
  );
});
