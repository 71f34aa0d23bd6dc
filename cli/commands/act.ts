/** Commands that change something: snapshot, teardown, quarantine. */
import { targetOf, type TargetDesk } from '../../apply/target-kind.ts';
import { requestAnew } from '../../transform/request.ts';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import { flowNames, flowSettings, type Config, type FlowConfig, type SourceConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { audit, auditIfReachable, targetsOf } from '../audit.ts';
import { describeOutboundTraces, teardownOutbound } from '../flow-teardown.ts';
import { confirmed } from '../confirm.ts';
import { printable } from '../printable.ts';
import { named, refused, waiting } from '../quarantine-notes.ts';
import { watchCancel, watchSnapshot } from '../snapshot-watch.ts';
import { requireTables } from '../requested-names.ts';
import { checkedSpan, tableOfSpan } from '../key-span.ts';
import { EXIT } from '../exit-status.ts';
import { stagesOfSource, whileStopped } from '../stopped-stages.ts';
import { printTable, readConfig, requireSource, requireTarget, unknownName, type GlobalOptions } from '../context.ts';

export async function snapshot(
  source: string,
  tables: string[],
  options: GlobalOptions & { cancel?: boolean; reset?: boolean; wait?: boolean; from?: string; to?: string },
): Promise<number> {
  const config = readConfig(options);
  const { from, to } = options;
  const isRange = from !== undefined || to !== undefined;
  if (config.canonicalFlows[source] !== undefined && config.sources[source] === undefined)
    return await writeAnew(config, source, tables, options);
  const settings = requireSource(config, source);
  if (options.cancel === true && options.reset === true)
    throw new ReplicationError('config_invalid', '--cancel and --reset exclude each other');
  const whole = options.cancel === true ? '--cancel' : options.reset === true ? '--reset' : undefined;
  if (whole !== undefined && (tables.length > 0 || isRange))
    throw new ReplicationError(
      'config_invalid',
      `${whole} is for all that is read of a source, and goes without tables, --from and --to`,
    );
  if (!isRange) await requireTables(config.nats, source, settings, tables);
  const range = isRange ? await checkedSpan(settings, tableOfSpan(tables), { from, to }) : undefined;
  const id = await requestSnapshot(config.nats, source, {
    tables,
    cancel: options.cancel === true,
    reset: options.reset === true,
    ...(range === undefined ? {} : { span: range.span }),
  });
  await auditIfReachable(config, targetsOf(config, source), {
    action: 'snapshot',
    subject: `source ${source}`,
    detail: {
      id,
      tables,
      cancel: options.cancel === true,
      reset: options.reset === true,
      ...(range === undefined ? {} : { from: range.span.from, to: range.span.to }),
    },
  });
  const what = options.reset === true ? 'from scratch of' : 'of';
  if (options.cancel === true) console.log(`asked the capture of ${source} to stop its snapshot`);
  else
    console.log(
      `snapshot ${id} ${what} ${tables.length === 0 ? 'all tables' : `${isRange ? 'a range of ' : ''}${tables.join(', ')}`} asked for; the running capture of ${source} takes it up (waybill status shows how far it is)`,
    );
  if (range?.removes === false)
    console.log(
      `keys of this type sort in another way elsewhere: rows of the range that ${source} does not have any more stay in the targets until \`waybill verify --repair\` or a snapshot of the whole table removes them`,
    );
  if (options.wait !== true) return EXIT.good;
  return await (options.cancel === true ? watchCancel : watchSnapshot)(config.nats, source, id);
}

/** A flow of records has no tables to read: it works its records out and writes all of them anew. */
async function writeAnew(
  config: Config,
  flow: string,
  tables: readonly string[],
  options: { cancel?: boolean; reset?: boolean; wait?: boolean; from?: string; to?: string },
): Promise<number> {
  const { cancel, reset, wait, from, to } = options;
  const isMore = tables.length > 0 || from !== undefined || to !== undefined;
  if (isMore || cancel === true || reset === true || wait === true)
    throw new ReplicationError(
      'config_invalid',
      `${flow} is a flow of records: it is written anew as a whole, and takes neither tables nor options`,
    );
  const id = await requestAnew(config.nats, flow);
  await auditIfReachable(config, [config.canonicalFlows[flow]!.to], {
    action: 'snapshot',
    subject: `flow ${flow}`,
    detail: { id },
  });
  console.log(`all records of ${flow} are asked for anew (${id}); its running transform takes it up`);
  return EXIT.good;
}

export async function teardown(source: string, options: GlobalOptions & { yes?: boolean }): Promise<number> {
  const config = readConfig(options);
  if (config.outboundFlows[source] !== undefined && config.sources[source] === undefined)
    return await teardownFlow(config, source, options);
  const settings = requireSource(config, source);
  const { describe, remove } = await teardownOf(config, source, settings);
  const lines = await describe();
  if (lines.length === 0) {
    console.log(`nothing of source ${source} is left`);
    return EXIT.good;
  }
  if (!(await isWanted(source, lines, options))) return EXIT.no;
  const removed = await whileStopped(
    config,
    stagesOfSource(config, source),
    { gone: [`capture:${source}`] },
    async () => {
      await auditIfReachable(config, targetsOf(config, source), {
        action: 'teardown',
        subject: `source ${source}`,
        detail: { removes: lines },
      });
      return await remove();
    },
  );
  return sayRemoved(removed);
}

/** What would be removed, and the removing of it: a line each. */
async function teardownOf(
  { nats }: Config,
  source: string,
  settings: SourceConfig,
): Promise<{ readonly describe: () => Promise<string[]>; readonly remove: () => Promise<readonly Removed[]> }> {
  if (settings.kind === 'postgres') {
    const { describeTeardown, teardownSource } = await import('../../capture/postgres/teardown.ts');
    return {
      describe: () => describeTeardown(source, settings, nats),
      remove: () => teardownSource(source, settings, nats),
    };
  }
  const { describeMysqlTeardown, teardownMysqlSource } = await import('../../capture/mysql/teardown.ts');
  return {
    describe: () => describeMysqlTeardown(source, nats),
    remove: async () => (await teardownMysqlSource(source, nats)).map((what) => ({ what })),
  };
}

/** What was removed; `kept`: why it was not. */
interface Removed {
  readonly what: string;
  readonly kept?: string | undefined;
}

function sayRemoved(removed: readonly Removed[]): number {
  for (const { what, kept } of removed) console.log(kept === undefined ? `removed ${what}` : `left ${what}: ${kept}`);
  return removed.some(({ kept }) => kept !== undefined) ? EXIT.no : EXIT.good;
}

/** Says what is removed, and asks. Throws `config_invalid` where nobody can answer. */
async function isWanted(name: string, lines: readonly string[], options: { yes?: boolean }): Promise<boolean> {
  console.log(`this removes, for good:\n${lines.map((line) => `  - ${line}`).join('\n')}`);
  const isSaid = await confirmed(options.yes === true, name, 'teardown asks before it removes');
  if (!isSaid) console.log('nothing was removed');
  return isSaid;
}

/** An outbound flow that is given up: its traces in the system that it wrote to. The rows that it wrote stay. */
async function teardownFlow(config: Config, flow: string, options: { yes?: boolean }): Promise<number> {
  const { to } = config.outboundFlows[flow]!;
  const found = await describeOutboundTraces(config, flow);
  if (found.length === 0) {
    console.log(`nothing of flow ${flow} is left in ${to}`);
    return EXIT.good;
  }
  const lines = found.map(({ what, kept }) => (kept === undefined ? what : `${what}: ${kept}`));
  if (!(await isWanted(flow, lines, options))) return EXIT.no;
  const removed = await teardownOutbound(config, flow);
  await auditIfReachable(config, [to], { action: 'teardown', subject: `flow ${flow}`, detail: { removes: lines } });
  return sayRemoved(removed);
}

async function withTarget<T>(
  config: Config,
  flow: string,
  work: (desk: TargetDesk, settings: FlowConfig) => Promise<T>,
): Promise<T> {
  const settings = flowSettings(config, flow) ?? unknownName('flow', flow, flowNames(config));
  const target = await targetOf(requireTarget(config, settings.to));
  const desk = await target.openDesk('waybill quarantine');
  try {
    return await work(desk, settings);
  } finally {
    await desk.close();
  }
}

export async function quarantineList(
  flow: string | undefined,
  options: GlobalOptions & { json?: boolean },
): Promise<number> {
  const config = readConfig(options);
  const entries = [];
  for (const name of flow === undefined ? flowNames(config) : [flow])
    entries.push(...(await withTarget(config, name, (desk) => desk.listQuarantine(name))));
  if (options.json === true) console.log(JSON.stringify(entries, undefined, 2));
  else
    printTable(
      ['ID', 'FLOW', 'TABLE', 'KEY', 'OP', 'REASON', 'SQLSTATE', 'SINCE', 'MESSAGE'],
      entries.map((e) => [
        e.id,
        e.flow,
        `${e.schema}.${e.table}`,
        e.key ?? '-',
        e.op,
        e.reason,
        e.sqlState ?? '-',
        e.createdAt.toISOString(),
        e.message ?? '',
      ]),
    );
  return EXIT.good;
}

export async function quarantineShow(flow: string, id: string, options: GlobalOptions): Promise<number> {
  requireIds([id], {});
  const entry = await withTarget(readConfig(options), flow, (desk) => desk.showQuarantine(id));
  if (entry === undefined || entry.flow !== flow)
    throw new ReplicationError('config_invalid', `there is no quarantined change ${id} in flow ${flow}`);
  console.log(JSON.stringify(entry, undefined, 2));
  return EXIT.good;
}

export async function quarantineReplay(
  flow: string,
  ids: string[],
  options: GlobalOptions & { all?: boolean },
): Promise<number> {
  requireIds(ids, options);
  const config = readConfig(options);
  if (config.outboundFlows[flow] !== undefined)
    throw new ReplicationError(
      'config_invalid',
      `${flow} tries its records again by itself, until they go in or a newer one of their key comes`,
    );
  const chosen = options.all === true ? 'all' : ids;
  const { before, result, after } = await withTarget(config, flow, async (desk, settings) => ({
    before: await waiting(desk, flow),
    result: await desk.replayQuarantine(flow, chosen === 'all' ? { all: true } : { ids: chosen }, settings),
    after: await waiting(desk, flow),
  }));
  await audit(config, [flowSettings(config, flow)!.to], {
    action: 'quarantine-replay',
    subject: `flow ${flow}`,
    detail: { ids: named(chosen), applied: result.applied, failed: refused(result.failed), before, after },
  });
  console.log(`${result.applied} applied, ${result.failed.length} failed`);
  if (config.canonicalFlows[flow] !== undefined) {
    await requestAnew(config.nats, flow);
    console.log(
      `the transform of ${flow} is asked to read its mapping again and write all records anew, with those that it held`,
    );
  }
  for (const { id, message, sqlState } of result.failed)
    console.log(printable(`  ${id}: ${message}${sqlState === null ? '' : ` (SQLSTATE ${sqlState})`}`));
  return result.failed.length === 0 ? EXIT.good : EXIT.no;
}

export async function quarantineDiscard(
  flow: string,
  ids: string[],
  options: GlobalOptions & { all?: boolean },
): Promise<number> {
  requireIds(ids, options);
  const config = readConfig(options);
  const { before, count, discarded, after } = await withTarget(config, flow, async (desk) => {
    const discarded = options.all === true ? (await desk.listQuarantine(flow)).map((entry) => entry.id) : ids;
    return {
      before: await waiting(desk, flow),
      discarded,
      count: await desk.discardQuarantine(flow, discarded),
      after: await waiting(desk, flow),
    };
  });
  await audit(config, [flowSettings(config, flow)!.to], {
    action: 'quarantine-discard',
    subject: `flow ${flow}`,
    detail: { ids: named(discarded), count, before, after },
  });
  console.log(`${count} discarded`);
  return EXIT.good;
}

function requireIds(ids: readonly string[], options: { all?: boolean }): void {
  if (options.all !== true && ids.length === 0)
    throw new ReplicationError('config_invalid', 'name the ids that `waybill quarantine list` shows, or say --all');
  const wrong = ids.find((id) => !/^\d+$/.test(id));
  if (wrong !== undefined) throw new ReplicationError('config_invalid', `${wrong} is not an id`);
}
