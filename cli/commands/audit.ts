/** `waybill audit`: shows the audit logs of the targets, or checks that nobody changed them. */
import { printTable, readConfig, requireTarget, type GlobalOptions } from '../context.ts';
import { EXIT } from '../exit-status.ts';
import { checkAuditLog, openAuditLog } from '../audit.ts';
import type { AuditEntry } from '../../monitoring/audit/audit-log.ts';

export interface AuditCommandOptions extends GlobalOptions {
  readonly verify?: boolean;
  readonly json?: boolean;
}

/** Exit status 1 when a chain is broken. */
export async function auditCommand(target: string | undefined, options: AuditCommandOptions): Promise<number> {
  const config = readConfig(options);
  if (target !== undefined) requireTarget(config, target);
  const targets = target === undefined ? Object.keys(config.targets) : [target];
  if (options.verify === true) {
    const reports = [];
    for (const name of targets) reports.push({ target: name, ...(await checkAuditLog(config, name)) });
    if (options.json === true) console.log(JSON.stringify(reports, undefined, 2));
    else
      for (const { target: name, entries, problems } of reports) {
        console.log(`target ${name}: ${entries} entries, ${problems.length === 0 ? 'the chain is whole' : 'BROKEN'}`);
        for (const problem of problems) console.log(`  ${problem}`);
      }
    return reports.every((report) => report.problems.length === 0) ? EXIT.good : EXIT.no;
  }
  const all: (AuditEntry & { target: string })[] = [];
  for (const name of targets) {
    const log = await openAuditLog(config, name);
    try {
      let after = 0;
      for (let page = await log.read(after, 1000); page.length > 0; page = await log.read(after, 1000)) {
        all.push(...page.map((entry) => ({ target: name, ...entry })));
        after = page.at(-1)!.id;
      }
    } finally {
      await log.close();
    }
  }
  if (options.json === true) console.log(JSON.stringify(all, undefined, 2));
  else
    printTable(
      ['TARGET', 'ID', 'AT', 'WHO', 'ACTION', 'SUBJECT', 'DETAIL'],
      all.map((entry) => [
        entry.target,
        String(entry.id),
        entry.at,
        entry.actor,
        entry.action,
        entry.subject,
        entry.detail.length > 100 ? `${entry.detail.slice(0, 100)}…` : entry.detail,
      ]),
    );
  return EXIT.good;
}
