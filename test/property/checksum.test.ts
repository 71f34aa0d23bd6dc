import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { checksum } from '../../capture/checksum.ts';

it('the checksum of an event of any length is that of zlib', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 0, maxLength: 700, size: 'max' }), fc.nat(40), fc.nat(40), (bytes, a, b) => {
      const buffer = Buffer.from(bytes);
      const start = Math.min(a, buffer.length);
      const end = Math.max(start, buffer.length - b);
      expect(checksum(buffer, start, end)).toBe(crc32(buffer.subarray(start, end)));
    }),
  );
});
