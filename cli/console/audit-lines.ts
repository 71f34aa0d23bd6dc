/** Lines of an audit log as people read them. */
import type { AuditEntry } from '../../monitoring/audit/audit-log.ts';
import type { AuditLineView } from '../../monitoring/console/views.ts';

/** A detail that somebody made unreadable is shown as it is: that it was changed, the chain tells. */
export function auditLine({ previous: _, detail, ...line }: AuditEntry): AuditLineView {
  return { ...line, detail: parsed(detail) };
}

function parsed(detail: string): unknown {
  try {
    return JSON.parse(detail);
  } catch {
    return detail;
  }
}
