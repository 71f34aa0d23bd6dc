/** `waybill status`: a line for each source and flow. */
import { setTimeout as delay } from 'node:timers/promises';
import { targetOf } from '../../apply/target-kind.ts';
import { mysqlSourceStatus } from '../../capture/mysql/status.ts';
import { sourceStatus } from '../../capture/postgres/status.ts';
import type { SourceStatus } from '../../capture/source-status.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import type { Config } from '../../core/config.ts';
import { asReplicationError } from '../../core/errors.ts';
import type { TableNotice } from '../../core/metrics.ts';
import { connectNats } from '../../core/nats.ts';
import { describePosition, parsePosition } from '../../core/position.ts';
import { EXIT, printTable, readConfig, type GlobalOptions } from '../context.ts';

export async function status(options: GlobalOptions & { json?: boolean; watch?: boolean }): Promise<number> {
  const config = readConfig(options);
  for (;;) {
    const report = await gather(config);
    if (options.json === true) console.log(JSON.stringify(report));
    else {
      if (options.watch === true) process.stdout.write('\u001B[2J\u001B[H');
      printTable(
        ['SOURCE', 'STATE', 'POSITION', 'BEHIND', 'RETAINED', 'SNAPSHOT', 'DETAIL'],
        report.sources.map((s) => [
          s.name,
          s.state,
          s.position ?? '-',
          bytes(s.behindBytes),
          bytes(s.retainedLogBytes),
          s.snapshot ?? '-',
          s.detail ?? '',
        ]),
      );
      console.log();
      printTable(
        ['FLOW', 'POSITION', 'FRAMES BEHIND', 'LAST COMMIT', 'QUARANTINE', 'DETAIL'],
        report.flows.map((f) => [
          f.name,
          f.position ?? '-',
          f.pendingFrames === undefined ? '-' : String(f.pendingFrames),
          f.commitTime ?? '-',
          String(f.quarantined ?? '-'),
          f.detail ?? '',
        ]),
      );
      const notices = report.flows.flatMap((f) => (f.tables ?? []).map((table) => [f.name, table] as const));
      if (notices.length > 0) console.log();
      if (notices.length > 0)
        printTable(
          ['FLOW', 'TABLE', 'STATE', 'REASON'],
          notices.map(([flow, { schema, name, state, reason }]) => [flow, `${schema}.${name}`, state, reason]),
        );
    }
    if (options.watch !== true)
      return report.sources.some((s) => s.state === 'unreachable') || report.flows.some((f) => f.detail !== undefined)
        ? EXIT.unreachable
        : EXIT.good;
    await delay(1000);
  }
}

interface FlowStatus {
  name: string;
  position?: string;
  pendingFrames?: number;
  commitTime?: string;
  quarantined?: number;
  /** Tables that the flow does not follow. */
  tables?: readonly TableNotice[];
  detail?: string;
}

async function gather(config: Config): Promise<{ sources: (SourceStatus & { name: string })[]; flows: FlowStatus[] }> {
  const sources = await Promise.all(
    Object.entries(config.sources).map(async ([name, settings]) => ({
      name,
      ...(await (settings.kind === 'postgres'
        ? sourceStatus(name, settings, config.nats)
        : mysqlSourceStatus(name, settings, config.nats))),
    })),
  );
  const flows = await Promise.all(
    Object.entries(config.flows).map(async ([name, flow]): Promise<FlowStatus> => {
      try {
        const target = await targetOf(config.targets[flow.to]!);
        const desk = await target.openDesk('waybill status');
        const nats = await connectNats(config.nats, 'waybill status');
        try {
          const row = (await desk.readPositions()).find((position) => position.flow === name);
          const quarantined = (await desk.listQuarantine(name)).length;
          const tables = await desk.tableNotices(name);
          const more = tables.length === 0 ? {} : { tables };
          if (row === undefined) return { name, quarantined };
          const { state } = await nats.manager.streams.info(cdcStreamName(config.nats.prefix, flow.mirror));
          const position = parsePosition(row.position);
          return {
            name,
            quarantined,
            ...more,
            pendingFrames: Math.max(0, state.last_seq - row.streamSeq),
            ...(position === undefined ? {} : { position: describePosition(position) }),
            ...(row.commitTime === null ? {} : { commitTime: row.commitTime.toISOString() }),
          };
        } finally {
          await nats.close();
          await desk.close();
        }
      } catch (thrown) {
        const error = asReplicationError(thrown);
        return { name, detail: `${error.code}: ${error.message}` };
      }
    }),
  );
  return { sources, flows };
}

function bytes(value: number | undefined): string {
  if (value === undefined) return '-';
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let scaled = value;
  let unit = 0;
  while (scaled >= 1024 && unit < units.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? scaled : scaled.toFixed(1)} ${units[unit]}`;
}
