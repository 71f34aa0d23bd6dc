/** `waybill tail`: the stream of a source, or those of canonical records, as JSON lines. */
import { canonicalStreamName } from '../../core/canonical-stream.ts';
import { cdcStreamName, readFrames } from '../../core/cdc-stream.ts';
import { ReplicationError } from '../../core/errors.ts';
import type { Config } from '../../core/config.ts';
import { decodeFrame, type FramePayload, type RowChange, type TableSchema } from '../../core/frame.ts';
import { isGtidEntry } from '../../core/gtid-position.ts';
import { connectNats, natsError, type Nats } from '../../core/nats.ts';
import {
  comparePositions,
  entryPosition,
  formatPosition,
  parseLsn,
  parsePosition,
  ORIGIN,
  pgPosition,
  type Position,
} from '../../core/position.ts';
import { findStartSequence } from '../../core/start-sequence.ts';
import { readConfig, requireSource, unknownName, type GlobalOptions } from '../context.ts';
import { EXIT } from '../exit-status.ts';

/** In place of a source's name: the records of all entities that are configured. */
const CANONICAL = 'canonical';

export async function tail(
  source: string,
  options: GlobalOptions & { table?: string; from?: string; limit?: string },
): Promise<number> {
  const config = readConfig(options);
  const from = parseFrom(options.from);
  const streams = streamsOf(config, source, options.table);
  if (from !== undefined && streams.length > 1)
    throw new ReplicationError(
      'config_invalid',
      `--from ${options.from} is a position among the records of one entity; name it with --table, as in ${CANONICAL}.ENTITY`,
    );
  const limit = options.limit === undefined ? Infinity : Number(options.limit);
  if (!(limit >= 1))
    throw new ReplicationError('config_invalid', `--limit ${options.limit} is not a number of rows from 1 on`);
  const nats = await connectNats(config.nats, 'waybill tail');
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  // Whoever reads what is printed has seen enough (`| head`).
  process.stdout.on('error', () => stop.abort());
  let printed = 0;
  const print = async (stream: string): Promise<void> => {
    const { startSeq, position } = await findBeginning(nats, stream, from);
    for await (const frame of readFrames(nats, stream, { startSeq, position, signal: stop.signal })) {
      for (const line of describeRows(decodeFrame(frame.payload, frame.place), frame.seq)) {
        if (options.table !== undefined && line['table'] !== options.table) continue;
        // A frame begins before the position that lies in it.
        if (from !== undefined && comparePositions(parsePosition(line['position'] as string)!, from) <= 0) continue;
        if (stop.signal.aborted) return;
        printed += 1;
        if (!process.stdout.write(`${JSON.stringify(line)}\n`)) await drained(stop.signal);
        if (printed >= limit) stop.abort();
      }
    }
  };
  try {
    await Promise.all(streams.map(print));
    return EXIT.good;
  } finally {
    // Where one stream cannot be read, the others need not be.
    stop.abort();
    await nats.close();
  }
}

/** The streams that a name stands for. Throws `config_invalid`. */
function streamsOf(config: Config, source: string, table: string | undefined): string[] {
  const { prefix } = config.nats;
  if (source !== CANONICAL || config.sources[source] !== undefined) {
    requireSource(config, source);
    return [cdcStreamName(prefix, source)];
  }
  const entities = [...new Set(Object.values(config.canonicalFlows).map(({ canonical }) => canonical))];
  if (entities.length === 0)
    throw new ReplicationError('config_invalid', 'no flow makes canonical records; name a source instead');
  const wanted = table === undefined ? entities : entities.filter((entity) => `${CANONICAL}.${entity}` === table);
  if (wanted.length === 0)
    unknownName(
      'table of records',
      table!,
      entities.map((entity) => `${CANONICAL}.${entity}`),
    );
  return wanted.map((entity) => canonicalStreamName(prefix, entity));
}

/** Resolves when more can be printed, or nobody wants it any more. */
async function drained(signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    process.stdout.once('drain', resolve);
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** Where to read from: the first frame that is kept, or the one that `from` lies in. Throws `stream_missing`. */
async function findBeginning(
  nats: Nats,
  stream: string,
  from: Position | undefined,
): Promise<{ startSeq: number; position: Position }> {
  try {
    const { state } = await nats.manager.streams.info(stream);
    const startSeq = from === undefined ? state.first_seq : await findStartSequence(nats, stream, from);
    const first = state.messages === 0 ? null : await nats.manager.streams.getMessage(stream, { seq: startSeq });
    return { startSeq, position: parsePosition(first?.header.get('Waybill-Start') ?? '') ?? from ?? ORIGIN };
  } catch (thrown) {
    throw natsError(thrown, `reading stream ${stream}`);
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
