/** Values of the configuration that more than one part of it has. */
import { z } from 'zod';

export const nameSchema = z
  .string()
  .regex(/^[a-z][a-z0-9_]{0,39}$/, 'must be lower case letters, digits and _, at most 40, starting with a letter');

const DURATION = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/;
const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const SIZE = /^(\d+)(KB|MB|GB|TB)?$/;
const UNIT_BYTES = { KB: 1024, MB: 1024 ** 2, GB: 1024 ** 3, TB: 1024 ** 4 } as const;

/** A duration; milliseconds once it is read. */
export const durationSchema = z
  .string()
  .regex(DURATION, 'must be a duration such as 10s, 5m, 1h')
  .transform((text) => {
    const [, count, unit] = DURATION.exec(text)!;
    return Number(count) * UNIT_MS[unit as keyof typeof UNIT_MS];
  });

/** A size; bytes once it is read. */
export const sizeSchema = z
  .union([z.string().regex(SIZE, 'must be a size such as 512KB, 8MB, 16GB'), z.number().int().positive()])
  .transform((value) => {
    if (typeof value === 'number') return value;
    const [, count, unit] = SIZE.exec(value)!;
    return Number(count) * (unit === undefined ? 1 : UNIT_BYTES[unit as keyof typeof UNIT_BYTES]);
  });
