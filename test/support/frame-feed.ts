/** Frames made by hand, published as the stream of one source, and the flow that applies them. */
import { createHash, randomUUID } from 'node:crypto';
import { jetstream } from '@nats-io/jetstream';
import { headers } from '@nats-io/transport-node';
import { expect } from 'vitest';
import { runMirrorFlow } from '../../apply/mirror-flow.ts';
import type { TargetStore } from '../../apply/target-store.ts';
import { cdcSubject, ensureCdcStream } from '../../core/cdc-stream.ts';
import { parseConfig, type Config, type FlowConfig, type TargetConfig } from '../../core/config.ts';
import { HEADER, type Dialect, type Part, type RowChange, type TableSchema, type Value } from '../../core/frame.ts';
import { createLogger } from '../../core/logger.ts';
import { NO_FLOW_REPORT, type FlowReport } from '../../core/metrics.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { formatHexLsn, formatPosition, ORIGIN, pgPosition, type Position } from '../../core/position.ts';

/** A table; columns as `name type`, the first `keys` of them its key. */
export function tableOf(
  name: string,
  columns: readonly string[],
  options: { keys?: number; dialect?: Dialect; schema?: string; collation?: string } = {},
): TableSchema {
  const { keys = 1, dialect, schema = 'public', collation } = options;
  const parsed = columns.map((text) => {
    const space = text.indexOf(' ');
    return { name: text.slice(0, space), type: text.slice(space + 1) };
  });
  return {
    ...(dialect === undefined ? {} : { dialect }),
    schema,
    name,
    version: createHash('sha256')
      .update(JSON.stringify([columns, keys, collation]))
      .digest('hex')
      .slice(0, 12),
    identity: keys === 0 ? 'full' : 'default',
    key: parsed.slice(0, keys).map((column) => column.name),
    columns: parsed.map(({ name: column, type }, index) => ({
      name: column,
      type,
      portable: type.startsWith('"') ? 'text' : type,
      notNull: index < keys,
      ...(collation !== undefined && /char|text|enum|set/.test(type) ? { collation } : {}),
    })),
  };
}

export const ins = (...values: Value[]): RowChange => ['i', 0, values];
export const upd = (...values: Value[]): RowChange => ['u', 0, values];
export const del = (...values: Value[]): RowChange => ['d', 0, null, 'k', values];
/** The change, of another table of the frame. */
export const at = (index: number, row: RowChange): RowChange =>
  [row[0], index, ...row.slice(2)] as unknown as RowChange;

export class FrameFeed {
  readonly config: Config;
  readonly nats: Nats;
  readonly #store: TargetStore;
  readonly #readPosition: () => Promise<string | undefined>;
  #lsn = 1000n;
  #end: Position = ORIGIN;
  /** Where a flow last said that it stands. */
  #reported: string | undefined;
  #flows: { stop: AbortController; done: Promise<void> }[] = [];

  private constructor(config: Config, nats: Nats, store: TargetStore, readPosition: () => Promise<string | undefined>) {
    this.config = config;
    this.nats = nats;
    this.#store = store;
    this.#readPosition = readPosition;
  }

  /** `readPosition` gives what the target holds as the flow's position. */
  static async open(options: {
    natsUrl: string;
    target: TargetConfig;
    flow: Record<string, unknown>;
    createStore: (target: TargetConfig) => TargetStore;
    readPosition: () => Promise<string | undefined>;
  }): Promise<FrameFeed> {
    const config = parseConfig(
      JSON.stringify({
        version: 1,
        nats: {
          servers: [options.natsUrl],
          prefix: `p${randomUUID().slice(0, 8).replaceAll('-', '')}`,
          stream: { max_bytes: '256MB' },
        },
        sources: { wms: { kind: 'postgres', url: 'postgresql://nowhere/none' } },
        targets: { vis: options.target },
        flows: { mirror: { mirror: 'wms', to: 'vis', ...options.flow } },
      }),
      {},
    );
    const nats = await connectNats(config.nats, 'test');
    await ensureCdcStream(nats, config.nats, 'wms');
    return new FrameFeed(config, nats, options.createStore(options.target), options.readPosition);
  }

  get settings(): FlowConfig {
    return this.config.flows['mirror']!;
  }

  /** Starts the flow. */
  start(report: Partial<FlowReport> = {}, leaseTtlMs = 1000): { stop: AbortController; done: Promise<void> } {
    const stop = new AbortController();
    const done = runMirrorFlow({
      name: 'mirror',
      settings: this.settings,
      store: this.#store,
      nats: this.config.nats,
      holder: randomUUID(),
      leaseTtlMs,
      log: createLogger(process.env['DEBUG_APPLY'] === undefined ? 'silent' : 'debug'),
      signal: stop.signal,
      report: {
        ...NO_FLOW_REPORT,
        ...report,
        position: (text) => {
          this.#reported = text;
          report.position?.(text);
        },
        applied: (batch) => {
          this.#reported = batch.position;
          report.applied?.(batch);
        },
      },
    });
    done.catch(() => undefined);
    const flow = { stop, done };
    this.#flows.push(flow);
    return flow;
  }

  /** Publishes one frame of whole transactions, or of one part of a transaction. */
  async frame(
    tables: TableSchema[],
    transactions: (readonly RowChange[])[],
    part: Part = 'whole',
    ordinal = 0,
  ): Promise<void> {
    const tx: unknown[] = [];
    if (part === 'whole' || part === 'first') this.#lsn += 100n;
    for (const [index, rows] of transactions.entries()) {
      if (index > 0) this.#lsn += 100n;
      const end = this.#lsn + 50n;
      tx.push([1, formatHexLsn(this.#lsn), formatHexLsn(end), Date.now() * 1000, rows.length, part, ordinal]);
    }
    const rows = transactions.flat();
    const whole = part === 'whole' || part === 'last';
    const end = whole ? pgPosition(this.#lsn + 50n) : pgPosition(this.#lsn, ordinal + rows.length);
    await this.publish({ v: 1, rows, tx, tables }, end);
  }

  async publish(payload: unknown, end: Position): Promise<void> {
    const head = headers();
    head.set(HEADER.format, '1');
    head.set(HEADER.source, 'wms');
    head.set(HEADER.origin, 'test/1');
    head.set(HEADER.start, formatPosition(this.#end));
    head.set(HEADER.end, formatPosition(end));
    head.set(HEADER.epoch, '1');
    head.set(HEADER.rows, '0');
    head.set(HEADER.time, new Date().toISOString());
    await jetstream(this.nats.connection).publish(cdcSubject(this.config.nats.prefix, 'wms'), JSON.stringify(payload), {
      headers: head,
    });
    this.#end = end;
  }

  /** Where the stream ends. */
  get end(): Position {
    return this.#end;
  }

  /**
   * Waits until the target stands where the stream ends, and a flow that runs has said so, with what else it says then;
   * rethrows when a flow halts instead.
   */
  async caughtUp(): Promise<void> {
    const wanted = formatPosition(this.#end);
    const halted: unknown[] = [];
    for (const { done, stop } of this.#flows)
      done.catch((error: unknown) => {
        if (!stop.signal.aborted) halted.push(error);
      });
    await expect
      .poll(
        async () => {
          if (halted.length > 0) return String(halted[0]);
          const position = await this.#readPosition();
          return this.#flows.length > 0 && position === wanted ? this.#reported : position;
        },
        { interval: 10 },
      )
      .toBe(wanted);
  }

  async stopFlows(): Promise<void> {
    for (const flow of this.#flows) flow.stop.abort();
    await Promise.allSettled(this.#flows.map((flow) => flow.done));
    this.#flows = [];
  }

  async close(): Promise<void> {
    await this.stopFlows();
    await this.nats.close();
  }
}
