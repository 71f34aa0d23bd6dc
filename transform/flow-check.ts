/** What `waybill check` says of a canonical flow: its mappings against the real tables of its sources. */
import type { CanonicalFlowConfig } from '../core/canonical-config.ts';
import { errorFindings, type Finding } from '../core/finding.ts';
import type { TableSchema } from '../core/frame.ts';
import { compileSource, loadFlowPlan, type FlowPlan } from './flow-plan.ts';
import { checkMapping } from './mapping/check.ts';

/** `tables` are those of each source, where they are known. A flow that can not be loaded is a finding, not an error. */
export async function checkFlowMappings(
  name: string,
  settings: CanonicalFlowConfig,
  tables: Readonly<Record<string, readonly TableSchema[]>>,
): Promise<Finding[]> {
  const subject = `flow ${name}`;
  let plan: FlowPlan;
  try {
    plan = await loadFlowPlan(name, settings);
  } catch (thrown) {
    return errorFindings(subject, thrown);
  }
  return plan.sources.flatMap((source): Finding[] => {
    const known = tables[source.name];
    if (known === undefined) return [];
    const { mapping, functions } = source;
    const problems = checkMapping(compileSource(plan, source), known, functions);
    if (problems.length === 0)
      return [{ severity: 'ok', subject, message: `mapping ${mapping.name} fits the tables of ${source.name}` }];
    return problems.map(({ path, message }) => ({
      severity: 'error',
      subject,
      message: `${mapping.place}:${mapping.lineOf(path)}: ${path.join('.')}: ${message}`,
      remedy: `mend the mapping, or capture what it needs of ${source.name}`,
    }));
  });
}
