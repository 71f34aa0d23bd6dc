/** What the console does: each action over connections of its own, and with its line in the audit log. */
import { targetOf, type TargetDesk } from '../../apply/target-kind.ts';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import { flowSettings, type Config } from '../../core/config.ts';
import { asReplicationError, ReplicationError } from '../../core/errors.ts';
import type { Logger } from '../../core/logger.ts';
import { connectNats } from '../../core/nats.ts';
import type { ActionResult, Actor, ConsoleData, ShownValue } from '../../monitoring/console/views.ts';
import { coverage, isProven, openFindings } from '../../monitoring/drift/outcome.ts';
import { requestAnew } from '../../transform/request.ts';
import { audit, targetsOf } from '../audit.ts';
import { named, refused, waiting } from '../quarantine-notes.ts';
import { requireTables } from '../requested-names.ts';
import { isHeldByMapping } from './quarantine.ts';
import { hiddenColumns, shown } from './hidden-columns.ts';

/** How long a comparison waits for the end of another one, before it is said that there is one. */
const WAIT_MS = 15_000;

type Acts = Pick<ConsoleData, 'replay' | 'discard' | 'edit' | 'snapshot' | 'verify'>;

async function withDesk<T>(config: Config, flow: string, work: (desk: TargetDesk) => Promise<T>): Promise<T> {
  const target = config.targets[flowSettings(config, flow)!.to]!;
  const desk = await (await targetOf(target)).openDesk('waybill console');
  try {
    return await work(desk);
  } finally {
    await desk.close();
  }
}

export function createActions(config: Config, log: Logger, stop: AbortSignal): Acts {
  const verifying = new Set<string>();
  const target = (flow: string): string[] => [flowSettings(config, flow)!.to];

  const replay = async (actor: Actor, flow: string, ids: readonly string[] | 'all'): Promise<ActionResult> =>
    await withDesk(config, flow, async (desk) => {
      if (config.outboundFlows[flow] !== undefined)
        throw new ReplicationError('config_invalid', `${flow} tries its records again by itself`);
      const before = await waiting(desk, flow);
      const { applied, failed } = await desk.replayQuarantine(
        flow,
        ids === 'all' ? { all: true } : { ids },
        flowSettings(config, flow)!,
      );
      // What a mapping held is worked out anew, with the mapping as it is now.
      if (config.canonicalFlows[flow] !== undefined) await requestAnew(config.nats, flow);
      await audit(config, target(flow), {
        actor: actor.name,
        action: 'quarantine-replay',
        subject: `flow ${flow}`,
        detail: {
          ids: named(ids),
          applied,
          failed: refused(failed),
          before,
          after: await waiting(desk, flow),
        },
      });
      return {
        done: `${applied} applied${failed.length === 0 ? '' : `, ${failed.length} refused again`}`,
        failed: failed.map(({ id, message }) => ({ id, message })),
      };
    });

  return {
    replay,

    async discard(actor, flow, ids) {
      return await withDesk(config, flow, async (desk) => {
        const before = await waiting(desk, flow);
        const count = await desk.discardQuarantine(flow, ids);
        await audit(config, target(flow), {
          actor: actor.name,
          action: 'quarantine-discard',
          subject: `flow ${flow}`,
          detail: { ids: named(ids), count, before, after: await waiting(desk, flow) },
        });
        return { done: `${count} discarded` };
      });
    },

    async edit(actor, flow, id, edit, again) {
      await withDesk(config, flow, async (desk) => {
        const entry = await desk.showQuarantine(id);
        if (entry === undefined || entry.flow !== flow)
          throw new ReplicationError('config_invalid', `flow ${flow} has no quarantined change ${id}`);
        if (isHeldByMapping(entry))
          throw new ReplicationError(
            'config_invalid',
            'a mapping holds this row: mend the mapping or the row in its source, then replay',
          );
        const { change, table } = entry.change;
        const hides = hiddenColumns(config, flow);
        const hidden = Object.keys(edit).find((column) => hides(table.schema, table.name, column));
        if (hidden !== undefined)
          throw new ReplicationError('config_invalid', `${hidden} is not shown here, so it cannot be edited here`);
        const before = Object.fromEntries(
          Object.keys(edit).map((name): [string, ShownValue] => {
            const at = table.columns.findIndex((column) => column.name === name);
            return [name, shown(change[2]?.[at], false)];
          }),
        );
        await desk.editQuarantine(flow, id, edit);
        await audit(config, target(flow), {
          actor: actor.name,
          action: 'quarantine-edit',
          subject: `flow ${flow}`,
          detail: { id, table: `${table.schema}.${table.name}`, before, after: edit },
        });
      });
      if (!again) return { done: 'saved' };
      const result = await replay(actor, flow, [id]);
      return { ...result, done: `saved; ${result.done}` };
    },

    async snapshot(actor, source, tables, cancel) {
      if (!cancel) await requireTables(config.nats, source, config.sources[source]!, tables);
      const id = await requestSnapshot(config.nats, source, { tables, cancel });
      const done = cancel ? 'asked the capture to stop reading' : `asked the capture to read: snapshot ${id}`;
      try {
        await audit(config, targetsOf(config, source), {
          actor: actor.name,
          action: 'snapshot',
          subject: `source ${source}`,
          detail: { id, tables, cancel, reset: false },
        });
      } catch (thrown) {
        // A target that is away may be what the tables are read again for: it is asked for, and so said.
        return { done: `${done}; not written to the audit log: ${asReplicationError(thrown).message}` };
      }
      return { done };
    },

    async verify(actor, flow, repair) {
      if (config.outboundFlows[flow] !== undefined)
        throw new ReplicationError('config_invalid', `${flow} writes to another system, which is not compared`);
      if (verifying.has(flow)) return { done: 'a comparison is under way already' };
      verifying.add(flow);
      try {
        const nats = await connectNats(config.nats, 'waybill console');
        try {
          const { verifyOnce } = await import('../verification.ts');
          const outcome = await verifyOnce(config, flow, {
            nats,
            repair,
            resume: false,
            turn: { as: 'the console', waitMs: WAIT_MS },
            signal: stop,
            actor: actor.name,
          });
          const left = outcome.tables.reduce((sum, table) => sum + openFindings(table).length, 0);
          await audit(config, target(flow), {
            actor: actor.name,
            action: 'comparison',
            subject: `flow ${flow}`,
            detail: { repair, equal: isProven(outcome), left },
          });
          log.info({ flow, left, coverage: coverage(outcome.tables), who: actor.name }, 'compared');
          return { done: isProven(outcome) ? 'both sides are equal' : `${left} rows differ` };
        } finally {
          await nats.close();
        }
      } finally {
        verifying.delete(flow);
      }
    },
  };
}
