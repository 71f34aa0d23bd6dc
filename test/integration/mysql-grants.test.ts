/** What `waybill grants` prints for MySQL and MariaDB is enough for everything that a flow does, and `check` agrees. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { createConnection } from 'mysql2/promise';
import { afterEach, describe, expect, it } from 'vitest';
import { compareErp } from '../../sandbox/demo/erp-equality.ts';
import { createErp } from '../../sandbox/demo/erp-schema.ts';
import { runErpWorkload } from '../../sandbox/demo/erp-workload.ts';
import { startMysql } from '../../sandbox/mysql.ts';
import { startNats } from '../../sandbox/nats.ts';
import { Stage } from '../support/stage.ts';
import { waitFor } from '../support/wait.ts';

const PROGRAM = resolve(import.meta.dirname, '../../dist/cli/main.js');
const TIMEOUT_MS = 240_000;
const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
}, TIMEOUT_MS);

describe.each(['mysql', 'mariadb'] as const)('the grants for %s', (flavour) => {
  it(
    'let a flow load, follow, change and compare tables, and nothing more',
    async () => {
      const folder = await mkdtemp(join(tmpdir(), 'waybill-grants-'));
      cleanups.push(async () => await rm(folder, { recursive: true, force: true }));
      // One server is both ends, under two users.
      const [server, nats] = await Promise.all([startMysql({ flavour }), startNats()]);
      for (const each of [server, nats]) cleanups.push(async () => await each.dispose());
      const sourceUrl = await server.createDatabase('erp');
      await createErp(sourceUrl, 3);
      const root = await createConnection({ uri: server.url, multipleStatements: true });
      root.on('error', () => undefined);
      cleanups.push(async () => await Promise.resolve(root.destroy()));
      const at = `127.0.0.1:${server.port}`;
      const configFile = join(folder, 'waybill.yaml');
      await writeFile(
        configFile,
        JSON.stringify({
          version: 1,
          nats: { servers: [nats.url], stream: { max_bytes: '1GB' } },
          sources: {
            erp: { kind: flavour, url: `mysql://reader:one@${at}/erp`, tables: ['erp.*'], heartbeat: '1s' },
          },
          targets: { store: { kind: flavour, url: `mysql://writer:two@${at}/` } },
          flows: { replica: { mirror: 'erp', to: 'store', schema: 'mirror' } },
        }),
      );
      const waybill = async (...args: string[]): Promise<string> =>
        (await promisify(execFile)(PROGRAM, [...args, '--config', configFile])).stdout;

      for (const [name, user, password] of [
        ['erp', 'reader', 'one'],
        ['store', 'writer', 'two'],
      ] as const) {
        const sql = await waybill('grants', name);
        expect(sql).not.toContain(password);
        await root.query(`create user ${user}@'%' identified by '${password}'`);
        await root.query(sql);
      }
      const checked = async (): Promise<{ severity: string; subject: string; message: string }[]> =>
        JSON.parse(await waybill('check', '--json')) as { severity: string; subject: string; message: string }[];
      expect((await checked()).filter(({ severity }) => severity === 'error')).toEqual([]);

      const stages: Stage[] = [];
      for (const only of ['capture:erp', 'apply:replica']) {
        const logFile = join(folder, `${only.replace(':', '-')}.log`);
        const stage = new Stage({ configFile, only, logFile, leaseTtlMs: 1000 });
        stages.push(stage);
        cleanups.push(async () => await stage.end('SIGKILL'));
        stage.start();
      }
      const mirror = { kind: flavour, url: server.url, schema: 'mirror' };
      const equal = async (what: string): Promise<void> => {
        await waitFor(what, async () => (await compareErp(sourceUrl, mirror)).length === 0).catch(
          async (cause: unknown) => {
            const differences = await compareErp(sourceUrl, mirror);
            const states = await Promise.all(stages.map(async (stage) => await stage.status().catch(String)));
            const logs = stages.map((stage) => stage.log());
            throw new Error(`${JSON.stringify({ differences, states })}\n${logs.join('\n')}`, { cause });
          },
        );
      };
      await equal('the first load');
      const stop = new AbortController();
      let committed = 0;
      const workload = runErpWorkload({
        url: sourceUrl,
        signal: stop.signal,
        ratePerSecond: 200,
        seed: 3,
        onTransaction: (outcome) => {
          committed += outcome.committed ? 1 : 0;
        },
      });
      workload.catch(() => undefined);
      cleanups.push(async () => await Promise.resolve(stop.abort()));
      await waitFor('200 transactions', async () => committed >= 200);
      stop.abort();
      await workload;
      await equal('the workload to have arrived');
      await root.query(
        `alter table erp.suppliers add column since date; update erp.suppliers set since = '2020-02-29'`,
      );
      await root.query('truncate table erp.receipts');
      await equal('a new column and a truncate to have arrived');
      expect(await waybill('verify')).toContain('replica');
      expect((await checked()).filter(({ severity }) => severity === 'error')).toEqual([]);
    },
    TIMEOUT_MS,
  );
});
