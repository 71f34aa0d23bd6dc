/** Watches the demo's warehouse on Postgres and its mirror. */
import type { Client } from 'pg';
import { formatLsn, parseLsn } from '../../core/position.ts';
import { compareDatabases } from './equality.ts';
import {
  countRows,
  GrowthLog,
  openPostgres,
  orIfNoTable,
  readFlowPosition,
  readWrittenRows,
  type Observer,
} from './observer.ts';
import { TABLES } from './schema.ts';
import { checkInvariant } from './workload.ts';

/** Opens the observer's connections and begins to note how fast the source's log grows. */
export async function createWmsObserver(
  sourceUrl: string,
  targetUrl: string,
  flow: string,
  schema: string,
): Promise<Observer> {
  const source = await openPostgres(sourceUrl);
  const target = await openPostgres(targetUrl);
  const sampler = await openPostgres(sourceUrl);
  const growth = new GrowthLog(async () => await readSourceLsn(sampler));

  return {
    async observe() {
      const sourceLsn = await readSourceLsn(source);
      const targetLsn = await readTargetLsn(target, flow);
      const counts = [];
      for (const qualified of TABLES) {
        const [, table] = qualified.split('.') as [string, string];
        const ofSource = (await countRows(source, 'public', table)) ?? 0;
        counts.push({ table, source: ofSource, target: await countRows(target, schema, table) });
      }
      const behindBytes = targetLsn === undefined ? undefined : Math.max(0, Number(sourceLsn - targetLsn));
      return {
        sourceAt: formatLsn(sourceLsn),
        targetAt: targetLsn === undefined ? '-' : formatLsn(targetLsn),
        behind: behindBytes === undefined ? undefined : `${(behindBytes / 1024).toFixed(0)} KB of log`,
        lagMs: targetLsn === undefined ? undefined : growth.ageMs(targetLsn),
        replicatedRows: await readWrittenRows(target, schema),
        counts,
      };
    },
    checkTarget: async () => await checkInvariant(target, schema),
    async waitUntilCaughtUp(signal) {
      const marker = await commitMarker(source);
      for (;;) {
        const at = await readTargetLsn(target, flow);
        if (at !== undefined && at > marker.beforeCommit && (await hasMarker(target, schema, marker.text))) return;
        signal.throwIfAborted();
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
    compare: async () => await compareDatabases(sourceUrl, targetUrl, TABLES, schema),
    async close() {
      await growth.close();
      await Promise.allSettled([source.end(), target.end(), sampler.end()]);
    },
  };
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

async function readTargetLsn(target: Client, flow: string): Promise<bigint | undefined> {
  const position = await readFlowPosition(target, flow);
  return position?.kind === 'pg' ? position.lsn : undefined;
}
