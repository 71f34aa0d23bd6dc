/** What a block of a mapping says, as a text: the same however the file is laid out, and whatever else stands in it. */
import type { Block } from './mapping-file.ts';

/** A block without its places in the file. */
export function blockText({ entity, ...block }: Block): string {
  return JSON.stringify({ entity: entity.name, ...block }, (key, value: unknown) => {
    if (key === 'path') return undefined;
    return value instanceof Map ? [...(value as ReadonlyMap<string, unknown>)] : value;
  });
}
