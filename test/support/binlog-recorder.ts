/** Reads a server's binary log and writes down what the decoder said, one line a call. */
import { randomInt, randomUUID } from 'node:crypto';
import type { BinlogHandler } from '../../capture/mysql/binlog-handler.ts';
import { BinlogStream, type BinlogStreamOptions } from '../../capture/mysql/binlog-stream.ts';
import type { Image, RowReader } from '../../capture/mysql/row-reader.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import { GtidCursor, type GtidSet } from '../../core/gtid-set.ts';
import { formatGtid } from '../../core/gtid.ts';
import { MariadbGtidSet } from '../../core/mariadb-gtid-set.ts';
import { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';

/** A handler whose calls become lines: `i t ["1"]`, `end commit`. */
export class Recorder implements BinlogHandler {
  readonly lines: string[] = [];
  readonly gtids: string[] = [];
  readonly cursor: GtidCursor;
  groups = 0;
  heartbeats = 0;
  #current = '';
  readonly #writer = new FrameWriter(4096);
  /** Called at the end of each group. */
  onEnd: () => void = () => undefined;
  onRow: () => void = () => undefined;

  constructor(start: GtidSet) {
    this.cursor = new GtidCursor(start);
  }

  gtid: BinlogHandler['gtid'] = (gtid) => {
    this.#current = formatGtid(gtid);
    this.gtids.push(this.#current);
    this.cursor.add(gtid);
  };
  tableMap: BinlogHandler['tableMap'] = () => undefined;
  rows: BinlogHandler['rows'] = (rows) => {
    while (rows.next()) {
      const images =
        rows.op === 'u' ? (['before', 'after'] as const) : ([rows.op === 'i' ? 'after' : 'before'] as const);
      const texts = images.map((image) => this.#image(rows, image));
      this.lines.push(`${rows.op} ${rows.map.name} ${texts.join(' ')}`);
      this.onRow();
    }
  };
  statement: BinlogHandler['statement'] = ({ verb, truncates, inGroup }) => {
    const table = truncates === undefined ? '' : ` ${truncates.schema}.${truncates.name}`;
    this.lines.push(`${inGroup ? 'inner ' : ''}${verb}${table}`);
  };
  savepoint: BinlogHandler['savepoint'] = (name) => this.lines.push(`savepoint ${name}`);
  rollbackTo: BinlogHandler['rollbackTo'] = (name) => this.lines.push(`rollback to ${name}`);
  end: BinlogHandler['end'] = (end) => {
    this.groups += 1;
    this.lines.push('xid' in end ? `end ${end.kind} ${end.xid}` : `end ${end.kind}`);
    this.onEnd();
  };
  rotate: BinlogHandler['rotate'] = () => undefined;
  heartbeat: BinlogHandler['heartbeat'] = () => (this.heartbeats += 1);

  #image(rows: RowReader, image: Image): string {
    this.#writer.reset();
    const from = this.#writer.bytes;
    rows.write(this.#writer, image);
    return this.#writer.textFrom(from);
  }
}

export interface Source {
  readonly flavour: 'mysql' | 'mariadb';
  readonly host: string;
  readonly port: number;
}

export function emptySet(flavour: Source['flavour']): GtidSet {
  return flavour === 'mysql' ? MysqlGtidSet.EMPTY : MariadbGtidSet.EMPTY;
}

/** A stream over the source's log that ends where it ends, unless `options` say otherwise. */
export function openStream(
  source: Source,
  handler: BinlogHandler,
  options: Partial<BinlogStreamOptions> = {},
): BinlogStream {
  return new BinlogStream({
    flavour: source.flavour,
    connection: { host: source.host, port: source.port, user: 'root' },
    serverId: randomInt(2 ** 31, 2 ** 32 - 1),
    replicaUuid: randomUUID(),
    start: emptySet(source.flavour),
    heartbeatMs: 1000,
    stopAtEnd: true,
    handler,
    onActivity: () => undefined,
    ...options,
  });
}

/** What the log holds after `start`. */
export async function readLog(source: Source, start: GtidSet = emptySet(source.flavour)): Promise<Recorder> {
  const recorder = new Recorder(start);
  await openStream(source, recorder, { start }).run();
  return recorder;
}
