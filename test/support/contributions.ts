/** Contributions to records made by hand, for tests of the resolver without mappings. */
import { keyText, type Entity } from '../../transform/canonical/entity.ts';
import { timestampOfMicros } from '../../transform/canonical/timestamp.ts';
import type { ContributionChange } from '../../transform/mapping/contribution-change.ts';
import type { ResolvedChange } from '../../transform/ownership/resolved.ts';

/** What `source` says of a record at a commit time; fields that are not named are not supplied, parts of the key empty. */
export function contributionOf(
  entity: Entity,
  source: string,
  record: Readonly<Record<string, string | null>>,
  timeUs: number,
): ContributionChange {
  const values = entity.fields.map((field) => {
    const value = record[field.name];
    return value === undefined && field.key ? '' : value;
  });
  return {
    // The resolver knows a block by its number alone.
    block: undefined as never,
    index: 0,
    key: keyText(entity, values as string[]),
    values,
    lineage: { source, table: 'public.t', key: '{}', position: `p${timeUs}`, time: timestampOfMicros(timeUs) },
    held: new Map(),
  };
}

/** The fields of a changed record that hold something. */
export function recordShown({ entity, after }: ResolvedChange): Record<string, string> {
  return Object.fromEntries(
    entity.fields.flatMap(({ name }, index) => {
      const value = after?.[index];
      return typeof value === 'string' && value !== '' ? [[name, value]] : [];
    }),
  );
}
