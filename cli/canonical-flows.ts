/** What the configuration says of canonical flows, held against entities, mappings and the tables of sources. */
import { targetOf } from '../apply/target-kind.ts';
import type { Config } from '../core/config.ts';
import { errorFindings, type Finding } from '../core/finding.ts';
import type { TableSchema } from '../core/frame.ts';

/** Throws `config_invalid` or `mapping_invalid` for a flow that can not run. Loads nothing where there are none. */
export async function checkCanonicalFlows(config: Config): Promise<void> {
  const flows = Object.entries(config.canonicalFlows);
  if (flows.length === 0) return;
  const { loadFlowPlan } = await import('../transform/flow-plan.ts');
  for (const [name, settings] of flows) await loadFlowPlan(name, settings);
  const { loadOutboundPlan } = await import('../transform/outbound/outbound-file.ts');
  for (const { map, outbound } of Object.values(config.outboundFlows)) loadOutboundPlan(map, outbound);
}

/** What `waybill check` says of outbound flows: every problem with the file and line. */
export async function outboundFindings(config: Config): Promise<Finding[]> {
  const findings: Finding[] = [];
  const flows = Object.entries(config.outboundFlows);
  if (flows.length === 0) return findings;
  const { loadOutboundPlan } = await import('../transform/outbound/outbound-file.ts');
  for (const [name, { map, outbound, to }] of flows) {
    const subject = `flow ${name}`;
    try {
      const plan = loadOutboundPlan(map, outbound);
      const { problems, meetings } = await (await targetOf(config.targets[to]!)).checkOutbound(plan);
      if (problems.length === 0)
        findings.push({ severity: 'ok', subject, message: `mapping ${map} fits the tables of ${to}` });
      for (const [{ write, gone, keyLine }, { keyLacks, rowLacks, keyBlurs, rowBlurs }] of meetings) {
        if (keyLacks.length > 0)
          findings.push({
            severity: 'warning',
            subject,
            message: `${map}:${keyLine}: records that differ only in ${keyLacks.join(', ')} meet in one row of ${write.table}: the first writes it, the others are held`,
            remedy: `add what tells the rows apart to the key, or let "where" pass one of the records`,
          });
        for (const { field, why } of keyBlurs)
          findings.push({
            severity: 'warning',
            subject,
            message: `${map}:${keyLine}: several values of ${field} may be one there (${why}): records that have them meet in one row of ${write.table}: the first writes it, the others are held`,
            remedy: `compare exactly there, or leave it where records never differ in that alone`,
          });
        const side = rowLacks.length + rowBlurs.length > keyLacks.length + keyBlurs.length;
        if (gone !== 'ignore' && gone.remove && side)
          findings.push({
            severity: 'warning',
            subject,
            message: `${map}:${keyLine}: other records fill other columns of the same row of ${write.table}: "gone: delete" deletes it with the last of them, and leaves until then what this block set`,
            remedy: `let "gone" set the columns that this block fills`,
          });
      }
      for (const { line, message } of problems)
        findings.push({
          severity: 'error',
          subject,
          message: `${map}:${line}: ${message}`,
          remedy: `mend the mapping, or what it says of ${to}; Waybill does not alter tables of another system`,
        });
    } catch (thrown) {
      findings.push(...errorFindings(subject, thrown));
    }
  }
  return findings;
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
