/** Lines of audit about a process: that it began and ended, its configuration, and who owns the fields of records. */
import { flowSettings, type Config } from '../core/config.ts';
import { asReplicationError, ReplicationError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import { untilAborted } from '../core/run-service.ts';
import type { AuditEvent } from '../monitoring/audit/audit-log.ts';
import {
  audit,
  auditWhenReachable,
  describeConfiguration,
  lastConfigurationHash,
  lastOwnership,
  targetsOf,
} from './audit.ts';

/** How long a target is tried that the process itself has no business with: it may not be let in there. */
const DISTANT_MS = 60_000;
/** How long the end of a process waits for its last line in the audit log. */
const STOP_MS = 5000;

export interface ProcessNotes {
  /** Writes that the process began. Resolves when that is written everywhere, or will not be. */
  start(signal: AbortSignal): Promise<void>;
  /** Writes that it ended, where it is written that it began. */
  stop(): Promise<void>;
}

export function createProcessNotes(config: Config, stages: readonly string[], log: Logger): ProcessNotes {
  const targets = concerned(config, stages);
  const written = new Set<string>();
  const subject = `process ${process.pid}`;
  const startAt = async (target: string, distant: boolean, signal: AbortSignal): Promise<void> => {
    try {
      const late = distant ? AbortSignal.any([signal, AbortSignal.timeout(DISTANT_MS)]) : signal;
      const events = (): Promise<Event[]> => startEvents(config, stages, target, subject);
      if (await auditWhenReachable(config, target, events, log, late)) written.add(target);
      else if (!signal.aborted) throw new ReplicationError('target_unreachable', 'the target was not reached in time');
    } catch (thrown) {
      // Data goes on: a process that replicates is worth more than a line about it.
      const error = asReplicationError(thrown);
      log[distant ? 'info' : 'error'](
        { target, code: error.code, remedy: error.remedy },
        `the start is not in the audit log: ${error.message}`,
      );
    }
  };
  const stopAt = async (target: string): Promise<void> => {
    try {
      await untilAborted(
        audit(config, [target], { action: 'stop', subject, detail: { stages } }),
        AbortSignal.timeout(STOP_MS),
      );
    } catch (thrown) {
      const error =
        thrown instanceof DOMException && thrown.name === 'TimeoutError'
          ? new ReplicationError('target_unreachable', 'the target did not answer in time')
          : asReplicationError(thrown);
      log.error(
        { target, code: error.code, remedy: error.remedy },
        `the stop is not in the audit log: ${error.message}`,
      );
    }
  };
  return {
    async start(signal) {
      await Promise.all([...targets].map(([target, distant]) => startAt(target, distant, signal)));
    },
    async stop() {
      const wanted = [...targets].flatMap(([target, distant]) => (!distant || written.has(target) ? [target] : []));
      await Promise.all(wanted.map(stopAt));
    },
  };
}

/**
 * The targets of the flows that stages work for. `true`: only what is done there in the end is theirs, and the stages
 * need not reach it.
 */
function concerned(config: Config, stages: readonly string[]): Map<string, boolean> {
  const targets = new Map<string, boolean>();
  const note = (target: string, distant: boolean): void => {
    targets.set(target, (targets.get(target) ?? true) && distant);
  };
  const own = new Set([...Object.values(config.flows), ...Object.values(config.canonicalFlows)].map(({ to }) => to));
  for (const stage of stages) {
    const [, kind, name = ''] = /^(\w+):(.+)$/.exec(stage) ?? [];
    // Nothing is left in the tables of another system before a flow to it runs.
    if (kind === 'capture')
      for (const target of targetsOf(config, name).filter((each) => own.has(each))) note(target, true);
    else if (kind !== undefined) note(flowSettings(config, name)!.to, kind !== 'apply' && kind !== 'verify');
  }
  return targets;
}

type Event = Omit<AuditEvent, 'actor'>;

async function startEvents(
  config: Config,
  stages: readonly string[],
  target: string,
  subject: string,
): Promise<Event[]> {
  const { hash, configuration } = describeConfiguration(config);
  const before = await lastConfigurationHash(config, target);
  return [
    ...(before === hash
      ? []
      : [{ action: 'configuration', subject, detail: { before, after: hash, configuration } } as const]),
    ...(await ownershipEvents(config, stages, target)),
    { action: 'start', subject, detail: { stages, configuration: hash } },
  ];
}

/** Who owns the fields of records is decided by the configuration, and takes effect where a transform begins with it. */
async function ownershipEvents(config: Config, stages: readonly string[], target: string): Promise<Event[]> {
  const events: Event[] = [];
  for (const [flow, { to, from, owner }] of Object.entries(config.canonicalFlows)) {
    if (to !== target || !stages.includes(`transform:${flow}`)) continue;
    const sorted = (entries: object): unknown =>
      Object.fromEntries(Object.entries(entries).sort(([a], [b]) => (a < b ? -1 : 1)));
    const after = { from: sorted(from), owner: sorted(owner) };
    const before = await lastOwnership(config, target, flow);
    if (JSON.stringify(before) !== JSON.stringify(after))
      events.push({ action: 'ownership', subject: `flow ${flow}`, detail: { before: before ?? null, after } });
  }
  return events;
}
