/** Commands that look and change nothing: check, status, grants, schema, tail. */
import { setTimeout as delay } from 'node:timers/promises';
import { targetOf } from '../../apply/target-kind.ts';
import { mysqlGrantsSql } from '../../capture/mysql/grants.ts';
import { checkMysqlSource } from '../../capture/mysql/preflight.ts';
import { mysqlSourceStatus } from '../../capture/mysql/status.ts';
import { sourceGrantsSql } from '../../capture/postgres/grants.ts';
import { checkPostgresSource } from '../../capture/postgres/preflight.ts';
import { sourceStatus } from '../../capture/postgres/status.ts';
import type { SourceStatus } from '../../capture/source-status.ts';
import { cdcStreamName, findStartSequence, readFrames } from '../../core/cdc-stream.ts';
import { configJsonSchema, flowNames, flowSettings, type Config } from '../../core/config.ts';
import { asReplicationError, ReplicationError } from '../../core/errors.ts';
import type { Finding } from '../../core/finding.ts';
import { decodeFrame, type FramePayload, type RowChange, type TableSchema } from '../../core/frame.ts';
import { isGtidEntry } from '../../core/gtid-position.ts';
import { connectNats } from '../../core/nats.ts';
import {
  comparePositions,
  describePosition,
  entryPosition,
  formatPosition,
  parseLsn,
  parsePosition,
  ORIGIN,
  pgPosition,
  type Position,
} from '../../core/position.ts';
import { mappingFindings } from '../canonical-flows.ts';
import { EXIT, printTable, readConfig, requireSource, type GlobalOptions } from '../context.ts';
import { sourceTables } from '../source-tables.ts';

interface JsonOption extends GlobalOptions {
  readonly json?: boolean;
}

export async function check(options: JsonOption): Promise<number> {
  const config = readConfig(options);
  const findings: Finding[] = [{ severity: 'ok', subject: 'configuration', message: 'valid' }, await checkNats(config)];
  for (const [name, settings] of Object.entries(config.sources))
    findings.push(
      ...(await (settings.kind === 'postgres'
        ? checkPostgresSource(name, settings, config.nats.prefix)
        : checkMysqlSource(name, settings, config.nats.prefix))),
    );
  const tables = await knownTables(config);
  const ofFlow = Object.fromEntries(
    Object.entries(config.flows).map(([flow, { mirror }]) => [flow, tables[mirror] ?? []]),
  );
  const flows = Object.fromEntries(flowNames(config).map((flow) => [flow, flowSettings(config, flow)!]));
  for (const [name, settings] of Object.entries(config.targets))
    findings.push(...(await (await targetOf(settings)).check(name, flows, ofFlow)));
  findings.push(...(await mappingFindings(config, tables)));
  if (options.json === true) console.log(JSON.stringify(findings, undefined, 2));
  else
    for (const { severity, subject, message, remedy } of findings) {
      console.log(`${severity.padEnd(7)}  ${subject}: ${message}`);
      if (remedy !== undefined) console.log(`         remedy: ${remedy}`);
    }
  return findings.some((finding) => finding.severity === 'error') ? EXIT.no : EXIT.good;
}

/** The tables of each source that a flow reads and that can be read; the source's own findings say why another cannot. */
async function knownTables(config: Config): Promise<Record<string, readonly TableSchema[]>> {
  const ofSource: Record<string, readonly TableSchema[]> = {};
  const mirrored = Object.values(config.flows).map((flow) => flow.mirror);
  const mapped = Object.values(config.canonicalFlows).flatMap((flow) => Object.keys(flow.from));
  for (const name of new Set([...mirrored, ...mapped]))
    try {
      ofSource[name] = await sourceTables(config.sources[name]!);
    } catch (thrown) {
      if (!(thrown instanceof ReplicationError)) throw thrown;
    }
  return ofSource;
}

async function checkNats(config: Config): Promise<Finding> {
  try {
    const nats = await connectNats(config.nats, 'waybill check');
    const limit = nats.connection.info?.max_payload ?? 0;
    await nats.close();
    if (limit < 65_536)
      return {
        severity: 'error',
        subject: 'nats',
        message: `max_payload is ${limit} bytes`,
        remedy: new ReplicationError('nats_payload_too_small', '').remedy,
      };
    return { severity: 'ok', subject: 'nats', message: `JetStream answers; max_payload ${limit} bytes` };
  } catch (thrown) {
    const error = asReplicationError(thrown);
    return { severity: 'error', subject: `nats: ${error.code}`, message: error.message, remedy: error.remedy };
  }
}

export async function status(options: JsonOption & { watch?: boolean }): Promise<number> {
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
    flowNames(config).map(async (name): Promise<FlowStatus> => {
      const flow = flowSettings(config, name)!;
      try {
        const target = await targetOf(config.targets[flow.to]!);
        const desk = await target.openDesk('waybill status');
        const nats = await connectNats(config.nats, 'waybill status');
        try {
          const row = (await desk.readPositions()).find((position) => position.flow === name);
          const quarantined = (await desk.listQuarantine(name)).length;
          if (row === undefined) return { name, quarantined };
          const { state } = await nats.manager.streams.info(row.stream);
          const position = parsePosition(row.position);
          return {
            name,
            quarantined,
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

export async function grants(name: string, options: GlobalOptions): Promise<number> {
  const config = readConfig(options);
  const target = config.targets[name];
  if (target !== undefined) {
    const schemas = flowNames(config)
      .map((flow) => flowSettings(config, flow)!)
      .filter((flow) => flow.to === name)
      .map((flow) => flow.schema ?? (target.kind === 'postgres' ? 'public' : databaseName(target.url)));
    console.log((await targetOf(target)).grantsSql(userOf(target.url), [...new Set(schemas)]));
  } else {
    const source = requireSource(config, name);
    const user = userOf(source.url);
    console.log(
      source.kind === 'postgres'
        ? sourceGrantsSql(name, source, config.nats.prefix, user)
        : mysqlGrantsSql(name, source, user),
    );
  }
  return EXIT.good;
}

/** The database that a url names, else the one that a source's tables usually lie in. */
function databaseName(url: string): string {
  return decodeURIComponent(new URL(url).pathname.slice(1)) || 'public';
}

function userOf(url: string): string {
  try {
    return decodeURIComponent(new URL(url).username) || 'waybill';
  } catch {
    throw new ReplicationError('config_invalid', 'the url of this source or target is not a url');
  }
}

export function schema(): number {
  console.log(JSON.stringify(configJsonSchema(), undefined, 2));
  return EXIT.good;
}

export async function tail(
  source: string,
  options: GlobalOptions & { table?: string; from?: string; limit?: string },
): Promise<number> {
  const config = readConfig(options);
  requireSource(config, source);
  const from = parseFrom(options.from);
  const limit = options.limit === undefined ? Infinity : Number(options.limit);
  const nats = await connectNats(config.nats, 'waybill tail');
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  try {
    const stream = cdcStreamName(config.nats.prefix, source);
    let startSeq: number;
    let position: Position;
    if (from === undefined) {
      const { state } = await nats.manager.streams.info(stream);
      startSeq = state.first_seq;
      const first = state.messages === 0 ? null : await nats.manager.streams.getMessage(stream, { seq: startSeq });
      position = parsePosition(first?.header.get('Waybill-Start') ?? '') ?? ORIGIN;
    } else {
      startSeq = await findStartSequence(nats, stream, from);
      const first = await nats.manager.streams.getMessage(stream, { seq: startSeq });
      position = parsePosition(first?.header.get('Waybill-Start') ?? '') ?? from;
    }
    let printed = 0;
    for await (const frame of readFrames(nats, stream, { startSeq, position, signal: stop.signal })) {
      for (const line of describeRows(decodeFrame(frame.payload, frame.place), frame.seq)) {
        if (options.table !== undefined && line['table'] !== options.table) continue;
        // A frame begins before the position that lies in it.
        if (from !== undefined && comparePositions(parsePosition(line['position'] as string)!, from) <= 0) continue;
        if (!process.stdout.write(`${JSON.stringify(line)}\n`))
          await new Promise((resolve) => process.stdout.once('drain', resolve));
        printed += 1;
        if (printed >= limit) return EXIT.good;
      }
    }
    return EXIT.good;
  } finally {
    await nats.close();
  }
}

function parseFrom(text: string | undefined): Position | undefined {
  if (text === undefined) return undefined;
  const position = parsePosition(text);
  if (position !== undefined) return position;
  const lsn = parseLsn(text);
  if (lsn === undefined)
    throw new ReplicationError(
      'config_invalid',
      `--from ${text} is neither an LSN such as 0/16B3748 nor a position as tail prints it`,
    );
  return pgPosition(lsn);
}

/** The rows of a frame as objects, for people and for jq. */
export function* describeRows(frame: FramePayload, seq: number): Generator<Record<string, unknown>> {
  let at = 0;
  for (const entry of frame.tx) {
    const [xid, commit, , timeUs, rows, , ordinal] = entry;
    for (let i = 0; i < rows; i++) {
      const row = frame.rows[at++]!;
      const position = formatPosition(entryPosition(entry, ordinal + i + 1));
      yield {
        seq,
        position,
        ...(isGtidEntry(commit) ? { gtid: commit } : { xid }),
        commitTime: new Date(timeUs / 1000).toISOString(),
        ...describeRow(row, frame.tables[row[1]]),
      };
    }
  }
}

const OPS: Readonly<Record<RowChange[0], string>> = {
  i: 'insert',
  u: 'update',
  d: 'delete',
  r: 'snapshot',
  t: 'truncate',
  s: 'mark',
  m: 'message',
};

function describeRow(row: RowChange, table: TableSchema | undefined): Record<string, unknown> {
  const [op, , after, kind, before] = row;
  const named = (values: readonly unknown[], only?: readonly string[]): Record<string, unknown> =>
    Object.fromEntries(
      table!.columns.flatMap((column, index) =>
        values[index] === 0 || only?.includes(column.name) === false ? [] : [[column.name, values[index]]],
      ),
    );
  const head = { op: OPS[op], ...(table === undefined ? {} : { table: `${table.schema}.${table.name}` }) };
  if (table === undefined || op === 't' || op === 's') return { ...head, content: after };
  return {
    ...head,
    ...(before === undefined ? {} : { before: named(before, kind === 'k' ? table.key : undefined) }),
    ...(after === null ? {} : { after: named(after) }),
  };
}
