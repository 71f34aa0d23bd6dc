/** Groups of fields that are made of values which are encrypted at capture, and so are other ones each time. */
import type { FlowPlan } from '../flow-plan.ts';

/** `encrypted`: by source, the names of encrypted columns among the tables that its mapping reads. */
export function encryptedGroups(plan: FlowPlan, encrypted: ReadonlyMap<string, ReadonlySet<string>>): Set<string> {
  const { entity } = plan;
  const groups = new Set<string>();
  for (const { name, mapping } of plan.sources) {
    const columns = encrypted.get(name);
    if (columns === undefined || columns.size === 0) continue;
    for (const block of mapping.blocks.filter((each) => each.entity === entity))
      for (const field of block.fields) {
        const { group } = entity.fields[entity.index.get(field.name)!]!;
        if (group !== '' && [...columnsIn(field.value)].some((column) => columns.has(column))) groups.add(group);
      }
  }
  return groups;
}

/** The columns that an expression names, at whatever depth. */
function* columnsIn(node: unknown): Generator<string> {
  if (typeof node !== 'object' || node === null) return;
  if ('op' in node && node.op === 'column' && 'ref' in node)
    yield* (node.ref as { readonly columns: readonly string[] }).columns;
  else for (const child of Object.values(node)) yield* columnsIn(child);
}
