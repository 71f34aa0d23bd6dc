/** `waybill rebuild`: builds the tables of a mirror flow anew from the frames that its stream has kept. */
import { StreamTrace, type RebuildPlan } from '../../apply/rebuild-plan.ts';
import { targetOf } from '../../apply/target-kind.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import type { Config, FlowConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { connectNats } from '../../core/nats.ts';
import { describePosition } from '../../core/position.ts';
import { compileTablePatterns } from '../../core/table-pattern.ts';
import { audit } from '../audit.ts';
import { confirmed } from '../confirm.ts';
import { readConfig, requireTarget, unknownName, type GlobalOptions } from '../context.ts';
import { EXIT } from '../exit-status.ts';

/** So often the progress of reading the stream is shown. */
const SAY_MS = 5000;

/** Exit status 1 when nothing was changed: the frames are not enough, or somebody said no. */
export async function rebuild(flow: string, options: GlobalOptions & { yes?: boolean }): Promise<number> {
  const config = readConfig(options);
  const settings = requireMirror(config, flow);
  const { mirror: source } = settings;
  const stream = cdcStreamName(config.nats.prefix, source);
  const nats = await connectNats(config.nats, 'waybill rebuild');
  try {
    const desk = await (await targetOf(requireTarget(config, settings.to))).openDesk('waybill rebuild');
    try {
      if (!(await desk.readPositions()).some((each) => each.flow === flow && each.source === source)) neverBegun(flow);
      const includes = settings.tables === undefined ? () => true : compileTablePatterns(settings.tables);
      const trace = new StreamTrace({
        nats,
        stream,
        includes: ({ schema, name }) => includes(schema, name),
        onProgress: teller(stream),
      });
      await trace.read();
      describe(flow, await trace.plan(await desk.tableRecords(flow), source), settings);
      if (!(await confirmed(options.yes === true, flow, 'rebuild asks before it begins'))) {
        console.log('nothing was changed');
        return EXIT.no;
      }
      const done = await desk.rebuild({
        flow,
        source,
        stream,
        plan: async (records) => {
          // The flow stands still meanwhile, and what has come since is all that it may have taken since.
          await trace.read();
          return await trace.plan(records, source);
        },
      });
      if (done === undefined) return neverBegun(flow);
      await audit(config, [settings.to], {
        action: 'rebuild',
        subject: `flow ${flow}`,
        detail: {
          from: describePosition(done.plan.from.position),
          sequence: done.plan.startSeq,
          tables: done.plan.tables.map(({ schema, name }) => `${schema}.${name}`),
          discarded: done.discarded,
        },
      });
      console.log(
        `flow ${flow} begins again at sequence ${done.plan.startSeq}; the running apply finds that with its next batch (waybill status shows how far it is)`,
      );
      return EXIT.good;
    } finally {
      await desk.close();
    }
  } finally {
    await nats.close();
  }
}

function neverBegun(flow: string): never {
  throw new ReplicationError('config_invalid', `flow ${flow} has written nothing yet: \`waybill run\` builds it`);
}

function requireMirror(config: Config, flow: string): FlowConfig {
  const settings = config.flows[flow];
  if (settings !== undefined) return settings;
  if (config.canonicalFlows[flow] !== undefined)
    throw new ReplicationError(
      'config_invalid',
      `${flow} is a flow of records, which are worked out of the stream anyway; write them anew with: waybill snapshot ${flow}`,
    );
  if (config.outboundFlows[flow] !== undefined)
    throw new ReplicationError(
      'config_invalid',
      `${flow} writes to tables of another system; write its records anew with: waybill snapshot of the flow that makes them`,
    );
  return unknownName('flow', flow, Object.keys(config.flows));
}

function describe(flow: string, { tables, startSeq, storedAt, frames }: RebuildPlan, { deletes }: FlowConfig): void {
  const names = tables.map(({ schema, name }) => `${schema}.${name}`).join(', ');
  console.log(
    `flow ${flow} can be built from sequence ${startSeq} of its stream (${storedAt.toISOString()}; ${frames} frames), without reading the source.\n` +
      `Until it has caught up, its tables show earlier states, or stand still: ${names}.` +
      (deletes !== 'ignore' ? '' : '\nIt ignores deletes, so rows that the source does not have stay.'),
  );
}

function teller(stream: string): (seq: number, last: number) => void {
  let saidMs = performance.now();
  return (seq, last) => {
    if (performance.now() - saidMs < SAY_MS) return;
    saidMs = performance.now();
    console.log(`reading stream ${stream}: sequence ${seq} of ${last}`);
  };
}
