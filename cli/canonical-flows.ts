/** What the configuration says of canonical flows, held against entities, mappings and the tables of sources. */
import type { Config } from '../core/config.ts';
import type { Finding } from '../core/finding.ts';
import type { TableSchema } from '../core/frame.ts';

/** Throws `config_invalid` or `mapping_invalid` for a flow that can not run. Loads nothing where there are none. */
export async function checkCanonicalFlows(config: Config): Promise<void> {
  const flows = Object.entries(config.canonicalFlows);
  if (flows.length === 0) return;
  const { loadFlowPlan } = await import('../transform/flow-plan.ts');
  for (const [name, settings] of flows) await loadFlowPlan(name, settings);
}

/** What `waybill check` says of mappings: every problem with the file and line, for sources whose tables are known. */
export async function mappingFindings(
  config: Config,
  tables: Readonly<Record<string, readonly TableSchema[]>>,
): Promise<Finding[]> {
  const flows = Object.entries(config.canonicalFlows);
  if (flows.length === 0) return [];
  const { checkFlowMappings } = await import('../transform/flow-check.ts');
  const findings: Finding[] = [];
  for (const [name, settings] of flows) findings.push(...(await checkFlowMappings(name, settings, tables)));
  return findings;
}
