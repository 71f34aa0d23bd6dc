/**
 * Watches source and target of the demo from outside: positions, row counts, the invariant. Knows nothing of Waybill but
 * the position table that it keeps in the target.
 */
import { Client } from 'pg';
import { formatLsn, parseLsn, parsePosition } from '../../core/position.ts';
import { TABLES } from './schema.ts';
import { checkInvariant } from './workload.ts';

export interface Observation {
  readonly sourceLsn: bigint;
  readonly targetLsn: bigint | undefined;
  readonly lagMs: number | undefined;
  readonly replicatedRows: number;
  readonly counts: readonly { readonly table: string; readonly source: number; readonly target: number | undefined }[];
}

export interface Observer {
  observe(): Promise<Observation>;
  /** What is wrong in the target at this moment. */
  checkTarget(): Promise<string[]>;
  /** Waits until the target reflects every transaction that has committed on the source until now. */
  waitUntilCaughtUp(signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

const LSN_SAMPLE_MS = 100;
const UNDEFINED_TABLE = '42P01';

/** Opens the observer's connections and begins to note how fast the source's log grows. */
export async function createObserver(sourceUrl: string, targetUrl: string, targetSchema: string): Promise<Observer> {
  const source = await open(sourceUrl);
  const target = await open(targetUrl);
  const sampler = await open(sourceUrl);
  /** When the source's log had grown to where: tells how old a position is. */
  const marks: { lsn: bigint; atMs: number }[] = [];
  let sampling: Promise<void> | undefined;
  const sample = async (): Promise<void> => {
    marks.push({ lsn: await readSourceLsn(sampler), atMs: performance.now() });
    if (marks.length > 6000) marks.splice(0, 1000);
  };
  const timer = setInterval(() => {
    sampling ??= sample()
      .catch(() => undefined)
      .finally(() => (sampling = undefined));
  }, LSN_SAMPLE_MS);

  /** Age of the oldest noted growth that the position does not cover; 0 when it covers all. */
  const ageMs = (lsn: bigint): number => {
    const oldest = marks.find((mark) => mark.lsn > lsn);
    return oldest === undefined ? 0 : performance.now() - oldest.atMs;
  };

  return {
    async observe() {
      const sourceLsn = await readSourceLsn(source);
      const targetLsn = await readTargetLsn(target);
      const counts = await readCounts(source, target, targetSchema);
      const replicatedRows = await readWrittenRows(target, targetSchema);
      const lagMs = targetLsn === undefined ? undefined : ageMs(targetLsn);
      return { sourceLsn, targetLsn, lagMs, counts, replicatedRows };
    },
    checkTarget: async () => await checkInvariant(target, targetSchema),
    async waitUntilCaughtUp(signal) {
      const marker = await commitMarker(source);
      for (;;) {
        const at = await readTargetLsn(target);
        if (at !== undefined && at > marker.beforeCommit && (await hasMarker(target, targetSchema, marker.text)))
          return;
        signal.throwIfAborted();
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
    async close() {
      clearInterval(timer);
      await sampling;
      await Promise.allSettled([source.end(), target.end(), sampler.end()]);
    },
  };
}

async function open(url: string): Promise<Client> {
  const client = new Client({ connectionString: url, application_name: 'demo observer' });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** Changes a row of its own in the last transaction, and gives a position that lies before its commit. */
async function commitMarker(source: Client): Promise<{ text: string; beforeCommit: bigint }> {
  const text = `marker ${Date.now()}`;
  await source.query('begin');
  await source.query(`update warehouses set address = address || jsonb_build_object('marker', $1::text) where id = 1`, [
    text,
  ]);
  const { rows } = await source.query<{ lsn: string }>('select pg_current_wal_insert_lsn()::text as lsn');
  await source.query('commit');
  return { text, beforeCommit: parseLsn(rows[0]!.lsn)! };
}

async function hasMarker(target: Client, schema: string, text: string): Promise<boolean> {
  const found = await orIfNoTable(
    target.query(`select 1 from "${schema}".warehouses where id = 1 and address::jsonb ->> 'marker' = $1`, [text]),
  );
  return found?.rowCount === 1;
}

async function readSourceLsn(source: Client): Promise<bigint> {
  const { rows } = await source.query<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn');
  return parseLsn(rows[0]!.lsn)!;
}

/** The position of the flow, from whichever column of `waybill.position` holds one. */
async function readTargetLsn(target: Client): Promise<bigint | undefined> {
  const result = await orIfNoTable(target.query<Record<string, unknown>>('select * from waybill.position'));
  for (const row of result?.rows ?? [])
    for (const value of Object.values(row)) {
      const position = typeof value === 'string' ? parsePosition(value) : undefined;
      if (position?.kind === 'pg') return position.lsn;
    }
  return undefined;
}

/** Rows inserted, updated and deleted in the target's tables, by its own statistics. */
async function readWrittenRows(target: Client, schema: string): Promise<number> {
  const { rows } = await target.query<{ rows: string }>(
    `select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::text as rows
       from pg_stat_user_tables where schemaname = $1`,
    [schema],
  );
  return Number(rows[0]!.rows);
}

async function readCounts(source: Client, target: Client, targetSchema: string): Promise<Observation['counts']> {
  const counts = [];
  for (const qualified of TABLES) {
    const table = qualified.slice(qualified.indexOf('.') + 1);
    const count = `select count(*)::text as rows from`;
    const left = await source.query<{ rows: string }>(`${count} ${qualified}`);
    const right = await orIfNoTable(target.query<{ rows: string }>(`${count} "${targetSchema}".${table}`));
    counts.push({
      table,
      source: Number(left.rows[0]!.rows),
      target: right === undefined ? undefined : Number(right.rows[0]!.rows),
    });
  }
  return counts;
}

async function orIfNoTable<T>(query: Promise<T>): Promise<T | undefined> {
  try {
    return await query;
  } catch (thrown) {
    if ((thrown as { code?: unknown }).code === UNDEFINED_TABLE) return undefined;
    throw thrown;
  }
}

/** A position for people; `-` while there is none. */
export function lsnText(lsn: bigint | undefined): string {
  return lsn === undefined ? '-' : formatLsn(lsn);
}
