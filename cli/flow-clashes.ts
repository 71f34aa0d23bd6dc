/** Flows that would write to one table of a target: each would take the rows of the other for its own. */
import type { Config } from '../core/config.ts';
import type { Finding } from '../core/finding.ts';
import { flowTables, placeOf } from '../monitoring/drift/open-sides.ts';

interface NamedTable {
  readonly schema: string;
  readonly name: string;
}

/** `tables` are those that the source of each mirror flow has; sources that cannot be asked are not among them. */
export function flowClashes(config: Config, tables: Readonly<Record<string, readonly NamedTable[]>>): Finding[] {
  const writers = new Map<string, string>();
  const findings: Finding[] = [];
  const write = (flow: string, target: string, table: string): void => {
    const place = JSON.stringify([target, table]);
    const other = writers.get(place);
    if (other === undefined) writers.set(place, flow);
    else
      findings.push({
        severity: 'error',
        subject: `flow ${flow}: ${table}`,
        message: `flow ${other} writes to the same table of target ${target}, so that each changes and removes rows of the other`,
        remedy: `Give one of the two flows a \`schema\` of its own, or take the table out of its \`tables\`.`,
      });
  };
  for (const [flow, { to, schema, canonical }] of Object.entries(config.canonicalFlows))
    write(flow, to, `${schema}.${canonical}`);
  for (const [flow, { to }] of Object.entries(config.flows)) {
    const takes = flowTables(config, flow);
    const place = placeOf(config, flow);
    const places = (tables[flow] ?? [])
      .filter(({ schema, name }) => takes(schema, name))
      .map(({ schema, name }) => `${place(schema)}.${name}`);
    for (const table of places) write(flow, to, table);
  }
  return findings;
}
