/** The ERP of the demo, live on MySQL and MariaDB, into other databases: the stages are killed, and both sides end equal. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { afterEach, describe, expect, it } from 'vitest';
import { readProgress } from '../../capture/snapshot-request.ts';
import { parseConfig } from '../../core/config.ts';
import { openBucket } from '../../core/lease.ts';
import { connectNats } from '../../core/nats.ts';
import { compareErp } from '../../sandbox/demo/erp-equality.ts';
import { createErp, ERP_TABLES } from '../../sandbox/demo/erp-schema.ts';
import { runErpWorkload } from '../../sandbox/demo/erp-workload.ts';
import { startMysql } from '../../sandbox/mysql.ts';
import { startNats } from '../../sandbox/nats.ts';
import { startPostgres } from '../../sandbox/postgres.ts';
import { ErpTarget } from '../support/erp-target.ts';
import { Stage } from '../support/stage.ts';
import { waitFor } from '../support/wait.ts';

const timeoutMs = 600_000;
const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
}, timeoutMs);

async function executed(url: string, flavour: 'mysql' | 'mariadb'): Promise<string> {
  const connection = await createConnection({ uri: url });
  try {
    const variable = flavour === 'mysql' ? 'gtid_executed' : 'gtid_binlog_pos';
    const [[row]] = await connection.query<RowDataPacket[]>(`select @@global.${variable} as gtids`);
    return String(row!['gtids']);
  } finally {
    connection.destroy();
  }
}

/** Waits until every table has been read once. */
async function firstLoad(natsUrl: string): Promise<void> {
  const config = parseConfig(JSON.stringify({ version: 1, nats: { servers: [natsUrl] } }), {}).nats;
  const nats = await connectNats(config, 'test');
  try {
    const bucket = await openBucket(nats, config);
    await waitFor('the first load', async () => {
      const tables = (await readProgress(bucket, 'erp'))?.tables;
      return tables?.length === ERP_TABLES.length && tables.every(({ state }) => state === 'done');
    });
  } finally {
    await nats.close();
  }
}

describe.each([
  ['mysql', 'postgres'],
  ['mariadb', 'mariadb'],
] as const)('from %s into %s', (from, to) => {
  it(
    'both sides end equal, however the stages are killed',
    async () => {
      const folder = await mkdtemp(join(tmpdir(), 'waybill-e2e-'));
      cleanups.push(async () => await rm(folder, { recursive: true, force: true }));
      const [source, target, nats] = await Promise.all([
        startMysql({ flavour: from }),
        to === 'postgres' ? startPostgres() : startMysql({ flavour: to }),
        startNats(),
      ]);
      for (const server of [source, target, nats]) cleanups.push(async () => await server.dispose());
      const sourceUrl = await source.createDatabase('erp');
      const targetUrl = await target.createDatabase('visibility');
      await createErp(sourceUrl, 11);
      const configFile = join(folder, 'waybill.yaml');
      await writeFile(
        configFile,
        JSON.stringify({
          version: 1,
          nats: { servers: [nats.url], stream: { max_bytes: '1GB' } },
          sources: { erp: { kind: from, url: sourceUrl, tables: ['erp.*'], heartbeat: '1s', snapshot_chunk_rows: 50 } },
          targets: { visibility: { kind: to, url: targetUrl } },
          flows: { erp_replica: { mirror: 'erp', to: 'visibility', schema: 'mirror', zero_dates: 'null' } },
        }),
      );
      const stage = (only: string): Stage =>
        new Stage({ configFile, only, logFile: join(folder, `${only.replace(':', '-')}.log`), leaseTtlMs: 1000 });
      const stages = [stage('capture:erp'), stage('apply:erp_replica')];
      for (const each of stages) cleanups.push(async () => void (await each.end('SIGKILL')));

      const stop = new AbortController();
      let committed = 0;
      const workload = runErpWorkload({
        url: sourceUrl,
        signal: stop.signal,
        ratePerSecond: 100,
        seed: 11,
        onTransaction: (outcome) => {
          if (outcome.committed) committed += 1;
        },
      });
      workload.catch(() => undefined);
      cleanups.push(async () => stop.abort());

      const store = await ErpTarget.open({ kind: to, url: targetUrl, schema: 'mirror' });
      cleanups.push(store.close);
      let watching: ReturnType<ErpTarget['watch']> | undefined;
      for (const each of stages) each.start();
      // Kills fall into the first load as well as into streaming.
      for (let kill = 0; kill < 8; kill++) {
        const before = committed;
        await waitFor('more transactions', async () => committed > before + 60);
        if (kill === 3) {
          // Before its end the first load shows tables that do not fit each other yet.
          await firstLoad(nats.url).catch((cause: unknown) => {
            throw new Error(stages.map((each) => each.log()).join('\n'), { cause });
          });
          const loaded = committed;
          await waitFor('a transaction behind it', async () => committed > loaded + 3);
          const gtids = await executed(sourceUrl, from);
          await waitFor('the target at its end', async () => await store.reflects(from, gtids));
          watching = store.watch(stop.signal);
          watching.catch(() => undefined);
        }
        const victim = stages[kill % 2]!;
        await victim.end('SIGKILL');
        victim.start();
      }
      stop.abort();
      await workload;

      await waitFor(
        'both sides to be equal',
        async () => (await compareErp(sourceUrl, store.mirror)).length === 0,
      ).catch(async () => expect(await compareErp(sourceUrl, store.mirror)).toEqual([]));
      expect(committed).toBeGreaterThan(480);
      const { looks, broken } = await watching!;
      expect(broken).toEqual([]);
      expect(looks).toBeGreaterThan(5);
    },
    timeoutMs,
  );
});
