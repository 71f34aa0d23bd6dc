/** A Postgres source under test: its capture, its stream, and both compared. */
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { expect } from 'vitest';
import { runPostgresCapture } from '../../capture/postgres/capture.ts';
import { connectSource } from '../../capture/postgres/connection.ts';
import type { CaptureOptions } from '../../capture/capture-loop.ts';
import type { SpoolSwitch } from '../../capture/postgres/spool-switch.ts';
import { qualifiedName } from '../../capture/postgres/publication.ts';
import { cdcStreamName, readFrames, readTail, type ReceivedFrame } from '../../core/cdc-stream.ts';
import { parseConfig, type NatsConfig, type PostgresSourceConfig } from '../../core/config.ts';
import { decodeFrame, type FramePayload, type RowChange, type TableSchema, type Value } from '../../core/frame.ts';
import { createLogger } from '../../core/logger.ts';
import { NO_CAPTURE_REPORT } from '../../core/metrics.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { asPgPosition, ORIGIN, parseLsn, type Position } from '../../core/position.ts';
import { type NatsServer } from '../../sandbox/nats.ts';
import { waitFor } from './wait.ts';

export const timeoutMs = 240_000;
export const DEADLINE_MS = 100_000;
export const log = createLogger('silent');

export interface Frame {
  readonly headers: ReceivedFrame;
  readonly payload: FramePayload;
}
export interface Place {
  readonly seq: number;
  readonly end: Position;
}
/** A row change with its table, out of its frame. */
export interface Change {
  readonly table: TableSchema | undefined;
  readonly row: RowChange;
}

/** One source with its capture, in this process. */
export class Source {
  readonly name: string;
  readonly url: string;
  readonly settings: PostgresSourceConfig;
  readonly config: NatsConfig;
  readonly client: pg.Client;
  readonly nats: Nats;
  readonly states: string[] = [];
  /** Why transactions in progress were no longer kept, each time. */
  readonly givenUp: string[] = [];
  /** Tables that cannot be captured, as said last. */
  leftOut: readonly { schema: string; name: string; reason: string }[] = [];
  #stop = new AbortController();
  #running: Promise<void> | undefined;
  failure: unknown;

  private constructor(
    name: string,
    url: string,
    of: { settings: PostgresSourceConfig; config: NatsConfig; client: pg.Client; nats: Nats },
  ) {
    this.name = name;
    this.url = url;
    this.settings = of.settings;
    this.config = of.config;
    this.client = of.client;
    this.nats = of.nats;
  }

  static async open(name: string, url: string, nats: NatsServer, yaml: Record<string, unknown> = {}): Promise<Source> {
    const { settings, config } = configFor(name, url, nats.url, yaml);
    const client = await connectSource(settings, 'test');
    return new Source(name, url, { settings, config, client, nats: await connectNats(config, 'test') });
  }

  get stream(): string {
    return cdcStreamName(this.config.prefix, this.name);
  }

  get slot(): string {
    return `waybill_${this.name}`;
  }

  start(holder = 'test', spooling?: SpoolSwitch): void {
    this.#stop = new AbortController();
    this.failure = undefined;
    const options = {
      name: this.name,
      settings: this.settings,
      nats: this.config,
      holder,
      leaseTtlMs: 10_000,
      log,
      signal: this.#stop.signal,
      report: {
        ...NO_CAPTURE_REPORT,
        state: (state, detail) => void this.states.push(detail === undefined ? state : `${state} ${detail}`),
        spoolGivenUp: (reason) => void this.givenUp.push(reason),
        tables: (leftOut) => void (this.leftOut = leftOut),
      },
    } satisfies CaptureOptions<PostgresSourceConfig>;
    this.#running = runPostgresCapture(options, spooling).catch((thrown: unknown) => void (this.failure = thrown));
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    if (this.failure !== undefined) throw this.failure;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    await this.client.end();
    await this.nats.close();
  }

  async query(sql: string, values: unknown[] = []): Promise<string[][]> {
    const types = { getTypeParser: () => (text: string) => text };
    const result = await this.client.query({ text: sql, values, rowMode: 'array', types: types as never });
    return result.rows as string[][];
  }

  async tail(): Promise<Place> {
    return readTail(this.nats, this.stream);
  }

  /** Waits for something that this capture brings about; fails at once when it has ended with an error. */
  async wait<T>(what: string, probe: () => Promise<T | undefined | false>, deadlineMs = DEADLINE_MS): Promise<T> {
    const found = await waitFor(
      `${what}; last states ${JSON.stringify(this.states.slice(-4))}`,
      async () => {
        if (this.failure !== undefined) return { value: undefined };
        const value = await probe();
        return value === undefined || value === false ? undefined : { value };
      },
      deadlineMs,
    );
    if (this.failure !== undefined) throw this.failure;
    return found.value as T;
  }

  /** Waits until the stream holds all that is committed now. A message of ours makes it move even where nothing else does. */
  async caughtUp(deadlineMs = DEADLINE_MS): Promise<Place> {
    const [[lsn]] = (await this.query("select pg_logical_emit_message(true, 'test', 'here')::text")) as [[string]];
    const written = parseLsn(lsn)!;
    return this.wait(
      `the stream passing ${lsn}`,
      async () => {
        const tail = await this.tail();
        return asPgPosition(tail.end).lsn >= written && tail;
      },
      deadlineMs,
    );
  }

  /** Waits until every table was read. */
  async loaded(tables: number, deadlineMs = DEADLINE_MS): Promise<void> {
    const read = new Set<string | undefined>();
    let from: Place | undefined;
    await this.wait(
      'the end of the snapshot',
      async () => {
        const frames = await this.frames(from);
        for (const { row, table } of changesOf(frames))
          if (row[0] === 's' && row[2]?.[1] === 'end') read.add(table?.name);
        from = frames.at(-1)?.headers ?? from;
        return read.size >= tables;
      },
      deadlineMs,
    );
  }

  /** The frames of the stream after a place, up to where it ends now; readFrames checks that none is missing. */
  async frames(from: Place = { seq: 0, end: ORIGIN }): Promise<Frame[]> {
    const last = await this.tail();
    if (last.seq <= from.seq) return [];
    const stop = new AbortController();
    const frames: Frame[] = [];
    const options = { startSeq: from.seq + 1, position: from.end, signal: stop.signal };
    for await (const headers of readFrames(this.nats, this.stream, options)) {
      frames.push({ headers, payload: decodeFrame(headers.payload, headers.place) });
      if (headers.seq >= last.seq) break;
    }
    stop.abort();
    checkOrder(frames);
    return frames;
  }

  /** Changes after a place, of rows and tables; messages and marks left out. */
  async changes(from?: Place): Promise<Change[]> {
    return changesOf(await this.frames(from)).filter(({ row }) => row[0] !== 'm' && row[0] !== 's');
  }

  /** The rows of a table as frames carry them, sorted. */
  async table(schema: string, name: string): Promise<string[]> {
    const result = await this.client.query({
      text: `select * from ${qualifiedName({ schema, name })}`,
      rowMode: 'array',
      types: { getTypeParser: (oid: number) => (text: string) => (oid === 17 ? base64(text) : text) } as never,
    });
    return result.rows.map((row) => JSON.stringify(row)).sort();
  }

  /** The same rows as the stream leaves them. */
  async folded(schema: string, name: string): Promise<string[]> {
    return [
      ...(fold(await this.frames())
        .get(`${schema}.${name}`)
        ?.values() ?? []),
    ]
      .map((row) => JSON.stringify(row))
      .sort();
  }
}

function base64(hex: string): string {
  return Buffer.from(hex.slice(2), 'hex').toString('base64');
}

export function configFor(
  name: string,
  url: string,
  natsUrl: string,
  yaml: Record<string, unknown> = {},
): { settings: PostgresSourceConfig; config: NatsConfig } {
  const config = parseConfig(
    JSON.stringify({
      version: 1,
      nats: { servers: [natsUrl], stream: { sync_interval: '0s', max_bytes: '1GB' } },
      sources: { [name]: { kind: 'postgres', url, heartbeat: '1s', ...yaml } },
    }),
    {},
  );
  return { settings: config.sources[name] as PostgresSourceConfig, config: config.nats };
}

export function changesOf(frames: readonly Frame[]): Change[] {
  return frames.flatMap(({ payload }) => payload.rows.map((row) => ({ table: payload.tables[row[1]], row })));
}

/** Every change stands behind the one before it, by commit and ordinal, and parts of transactions join. */
export function checkOrder(frames: readonly Frame[]): void {
  let last: { commit: string; next: number; open: boolean } | undefined;
  for (const { payload, headers } of frames) {
    expect(headers.rows, headers.place).toBe(payload.rows.length);
    for (const [, commit, end, , rows, part, ordinal] of payload.tx) {
      const place = `${headers.place}, transaction at ${commit}, ordinal ${ordinal}, ${part}`;
      expect(end >= commit, place).toBe(true);
      const continues = part === 'middle' || part === 'last';
      if (last !== undefined) {
        if (continues) expect({ commit, ordinal }, place).toEqual({ commit: last.commit, ordinal: last.next });
        else expect(commit > last.commit, place).toBe(true);
        expect(last.open, place).toBe(continues);
      }
      if (!continues) expect(ordinal, place).toBe(0);
      last = { commit, next: ordinal + rows, open: part === 'first' || part === 'middle' };
    }
  }
}

export type Row = Value[];

/** What a target would hold after the frames: rows by key, by table. */
export function fold(frames: readonly Frame[]): Map<string, Map<string, Row>> {
  const tables = new Map<string, Map<string, Row>>();
  const seen = new Map<string, Set<string>>();
  for (const { table, row } of changesOf(frames)) {
    if (table === undefined) continue;
    const name = `${table.schema}.${table.name}`;
    const rows = tables.get(name) ?? new Map<string, Row>();
    tables.set(name, rows);
    const indexes =
      table.key.length === 0
        ? [...table.columns.keys()]
        : table.key.map((k) => table.columns.findIndex((c) => c.name === k));
    const keyOf = (image: readonly Value[]): string => JSON.stringify(indexes.map((i) => image[i]));
    const [op, , after, , before] = row;
    if (op === 't') rows.clear();
    else if (op === 's') {
      if (after?.[1] === 'begin') seen.set(name, new Set());
      else for (const key of rows.keys()) if (seen.get(name)?.has(key) === false) rows.delete(key);
    } else if (op === 'd') rows.delete(keyOf(before!));
    else {
      const key = keyOf(after!);
      const oldKey = before === undefined ? key : keyOf(before);
      const old = rows.get(oldKey);
      if (oldKey !== key) rows.delete(oldKey);
      rows.set(
        key,
        after!.map((value, i) => (value === 0 ? (old?.[i] ?? 0) : value)),
      );
      seen.get(name)?.add(key);
    }
  }
  return tables;
}

export interface Loop {
  readonly steps: number;
  stop(): Promise<number>;
}

/** Repeats `step` until it is stopped, with pauses, so that what is tested keeps up with what is written. */
export function repeat(step: (n: number) => Promise<void>): Loop {
  const state = { going: true, steps: 0 };
  const running = (async () => {
    for (; state.going; state.steps++) {
      await step(state.steps);
      await delay(2);
    }
    return state.steps;
  })();
  // A failure is met by whoever stops it.
  running.catch(() => {});
  const made: Loop = {
    get steps() {
      return state.steps;
    },
    async stop() {
      state.going = false;
      return running;
    },
  };
  return made;
}
