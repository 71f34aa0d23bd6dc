/** Composes the heartbeats of a flow: one from each of its sources. */
import { canonicalStreamName } from '../core/canonical-stream.ts';
import { flowSettings, makerOf, sourcesOf, type Config } from '../core/config.ts';
import type { Logger } from '../core/logger.ts';
import { connectNats } from '../core/nats.ts';
import { openLog } from '../monitoring/drift/open-sides.ts';
import { createHeartbeatPath, type HeartbeatPath, type PathOptions } from '../monitoring/heartbeat-path.ts';
import { runHeartbeat, type HeartbeatReport } from '../monitoring/heartbeat.ts';
import { openReader } from '../monitoring/sql-reader.ts';
import { withChosenServers } from './source-server.ts';

export interface HeartbeatsOptions {
  readonly reportOf: (source: string) => HeartbeatReport;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Sends heartbeats through a flow, until the signal aborts. Throws classified errors. */
export async function runHeartbeats(config: Config, flow: string, options: HeartbeatsOptions): Promise<void> {
  const { reportOf, log, signal } = options;
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const each = sourcesOf(config, flow).map(async (source) => {
    try {
      await runHeartbeat({
        flow,
        everyMs: config.monitoring.heartbeat!,
        open: () => openPath(config, flow, source),
        report: reportOf(source),
        log,
        signal: either,
      });
    } catch (thrown) {
      // The stage ends as one; that of its sources which failed says why.
      failed.abort();
      throw thrown;
    }
  });
  const ended = await Promise.allSettled(each);
  for (const result of ended) if (result.status === 'rejected') throw result.reason;
}

async function openPath(config: Config, flow: string, source: string): Promise<HeartbeatPath> {
  const name = `waybill heartbeat ${flow}`;
  const closing: (() => Promise<void>)[] = [];
  try {
    const log = await openLog(await withChosenServers(config, [source]), source, name);
    closing.push(() => log.close());
    const target = await openReader('target', config.targets[flowSettings(config, flow)!.to]!, name);
    closing.push(() => target.close());
    const nats = await connectNats(config.nats, name);
    closing.push(() => nats.close());
    const { prefix } = config.nats;
    const records = await recordsOf(config, flow, source);
    return createHeartbeatPath({ nats, prefix, source: { name: source, log }, flow, target, ...records });
  } catch (thrown) {
    for (const close of closing) await close();
    throw thrown;
  }
}

async function recordsOf(config: Config, flow: string, source: string): Promise<Pick<PathOptions, 'records'>> {
  const maker = makerOf(config, flow);
  if (maker === undefined) return {};
  // A process that looks at mirrors alone holds nothing of records.
  const { parseCheckpoint } = await import('../transform/checkpoint.ts');
  const stream = canonicalStreamName(config.nats.prefix, config.canonicalFlows[maker]!.canonical);
  const placeOf = (text: string) => parseCheckpoint(text, `a frame of ${stream}`).sources.get(source);
  return { records: { stream, maker, placeOf } };
}
