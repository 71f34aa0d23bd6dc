/** The stream of one entity's canonical records: frames, as a source's stream has them. */

export function canonicalStreamName(prefix: string, entity: string): string {
  return `${prefix}_canonical_${entity}`;
}

export function canonicalSubject(prefix: string, entity: string): string {
  return `${prefix}.canonical.${entity}`;
}
