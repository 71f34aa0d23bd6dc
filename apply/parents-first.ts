/** Ranks tables so that parents come before children. Tables in a cycle get the place where the cycle was entered. */
export function parentsFirst<T>(
  tables: readonly T[],
  edges: readonly { readonly child: T; readonly parent: T }[],
): Map<T, number> {
  const parents = new Map<T, T[]>();
  for (const { child, parent } of edges) {
    if (child === parent) continue;
    const list = parents.get(child);
    if (list === undefined) parents.set(child, [parent]);
    else list.push(parent);
  }
  const order = new Map<T, number>();
  const visiting = new Set<T>();
  const visit = (table: T): void => {
    if (order.has(table) || visiting.has(table)) return;
    visiting.add(table);
    for (const parent of parents.get(table) ?? []) visit(parent);
    order.set(table, order.size);
  };
  for (const table of tables) visit(table);
  return order;
}
