/**
 * Watches a source of the demo and its mirror in the target from outside: positions, row counts, the invariant. Knows
 * nothing of Waybill but the position table that it keeps in the target.
 */
import { Client } from 'pg';
import { parsePosition, type Position } from '../../core/position.ts';
import type { Difference } from './equality.ts';

export interface Observation {
  /** How far the source's log has grown, and how much of it the target reflects; for people. */
  readonly sourceAt: string;
  readonly targetAt: string;
  /** What lies between the two ('12 KB of log'); undefined while the target has no position. */
  readonly behind: string | undefined;
  /** Age of the oldest change of the source that the target does not reflect; 0 for none, undefined while unknown. */
  readonly lagMs: number | undefined;
  /** Row changes that have reached the target so far. */
  readonly replicatedRows: number;
  /** Rows of each table; undefined where the target has no such table yet. */
  readonly counts: readonly TableCount[];
}

export interface TableCount {
  readonly table: string;
  readonly source: number;
  readonly target: number | undefined;
}

export interface Observer {
  observe(): Promise<Observation>;
  /** What is wrong in the target at this moment. */
  checkTarget(): Promise<string[]>;
  /** Waits until the target reflects every transaction that has committed on the source until now. */
  waitUntilCaughtUp(signal: AbortSignal): Promise<void>;
  /** Every difference between the content of the source and that of the target. */
  compare(): Promise<Difference[]>;
  close(): Promise<void>;
}

const SAMPLE_MS = 100;
const KEPT_MARKS = 6000;
const UNDEFINED_TABLE = '42P01';

/** When the source's log had grown to where: tells how old a position is. */
export class GrowthLog {
  readonly #marks: { readonly at: bigint; readonly whenMs: number }[] = [];
  readonly #timer: NodeJS.Timeout;
  #sampling: Promise<void> | undefined;

  /** @param read how far the log has grown: a number that only grows */
  constructor(read: () => Promise<bigint>) {
    const sample = async (): Promise<void> => {
      this.#marks.push({ at: await read(), whenMs: performance.now() });
      if (this.#marks.length > KEPT_MARKS) this.#marks.splice(0, KEPT_MARKS / 6);
    };
    this.#timer = setInterval(() => {
      this.#sampling ??= sample()
        .catch(() => undefined)
        .finally(() => (this.#sampling = undefined));
    }, SAMPLE_MS);
  }

  /** Age of the oldest noted growth that `at` does not cover; 0 when it covers all. */
  ageMs(at: bigint): number {
    const oldest = this.#marks.find((mark) => mark.at > at);
    return oldest === undefined ? 0 : performance.now() - oldest.whenMs;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#sampling;
  }
}

export async function openPostgres(url: string): Promise<Client> {
  const client = new Client({ connectionString: url, application_name: 'demo observer' });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** The position of a flow; undefined while it has none. */
export async function readFlowPosition(target: Client, flow: string): Promise<Position | undefined> {
  const result = await orIfNoTable(
    target.query<{ position: string }>('select position from waybill.position where flow = $1', [flow]),
  );
  const text = result?.rows[0]?.position;
  return text === undefined ? undefined : parsePosition(text);
}

/** Rows inserted, updated and deleted in a schema of the target, by its own statistics. */
export async function readWrittenRows(target: Client, schema: string): Promise<number> {
  const { rows } = await target.query<{ rows: string }>(
    `select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::text as rows
       from pg_stat_user_tables where schemaname = $1`,
    [schema],
  );
  return Number(rows[0]!.rows);
}

/** Rows of a table of Postgres; undefined where there is no such table. */
export async function countRows(client: Client, schema: string, table: string): Promise<number | undefined> {
  const result = await orIfNoTable(
    client.query<{ rows: string }>(`select count(*)::text as rows from "${schema}".${table}`),
  );
  return result === undefined ? undefined : Number(result.rows[0]!.rows);
}

export async function orIfNoTable<T>(query: Promise<T>): Promise<T | undefined> {
  try {
    return await query;
  } catch (thrown) {
    if ((thrown as { code?: unknown }).code === UNDEFINED_TABLE) return undefined;
    throw thrown;
  }
}
