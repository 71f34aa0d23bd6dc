/**
 * The source is a primary with a replica; the primary is killed while the ERP writes, and the capture goes on with the
 * replica by GTID: nothing is lost, nothing comes twice, and nothing that the replica never had is kept.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import type { Difference } from '../../sandbox/demo/equality.ts';
import { compareErp, type ErpMirror } from '../../sandbox/demo/erp-equality.ts';
import { createErp } from '../../sandbox/demo/erp-schema.ts';
import { runErpWorkload } from '../../sandbox/demo/erp-workload.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats } from '../../sandbox/nats.ts';
import { startPostgres } from '../../sandbox/postgres.ts';
import { ErpTarget } from '../support/erp-target.ts';
import { ReplicaPair } from '../support/replica-pair.ts';
import { Stage } from '../support/stage.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';
import { waitFor } from '../support/wait.ts';

const TIMEOUT_MS = 240_000;
const PROGRAM = resolve(import.meta.dirname, '../../dist/cli/main.js');
const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
}, TIMEOUT_MS);

/** The whole setting: the pair, the broker, the target, Waybill's two stages, and a workload. */
class Scene {
  readonly pair: ReplicaPair;
  /** What Waybill sees of the primary. */
  readonly network: TcpProxy;
  readonly target: ErpTarget;
  readonly capture: Stage;
  readonly apply: Stage;
  readonly configFile: string;
  readonly #stop = new AbortController();
  /** The server that the application writes to. */
  writesTo: string;
  committed = 0;

  private constructor(of: Pick<Scene, 'pair' | 'network' | 'target' | 'capture' | 'apply' | 'configFile'>) {
    ({ pair: this.pair, network: this.network, target: this.target } = of);
    ({ capture: this.capture, apply: this.apply, configFile: this.configFile } = of);
    this.writesTo = this.pair.primary.urlFor('erp');
  }

  static async open(from: 'mysql' | 'mariadb', to: ErpMirror['kind']): Promise<Scene> {
    const folder = await mkdtemp(join(tmpdir(), 'waybill-e2e-'));
    cleanups.push(async () => await rm(folder, { recursive: true, force: true }));
    const [pair, target, nats] = await Promise.all([
      ReplicaPair.start(from),
      to === 'postgres' ? startPostgres() : startMysql({ flavour: to }),
      startNats(),
    ]);
    for (const server of [pair, target, nats]) cleanups.push(async () => await server.dispose());
    const network = await TcpProxy.start(pair.primary);
    cleanups.push(async () => await network.close());
    const targetUrl = await target.createDatabase('visibility');
    await createErp(await pair.primary.createDatabase('erp'), 11);
    const configFile = join(folder, 'waybill.yaml');
    const servers = [network, pair.replica].map(({ port }) => `127.0.0.1:${port}`);
    await writeFile(
      configFile,
      JSON.stringify({
        version: 1,
        nats: { servers: [nats.url], stream: { max_bytes: '1GB' } },
        sources: {
          erp: { kind: from, url: `mysql://root@${servers.join(',')}/erp`, tables: ['erp.*'], heartbeat: '1s' },
        },
        targets: { visibility: { kind: to, url: targetUrl } },
        flows: { erp_replica: { mirror: 'erp', to: 'visibility', schema: 'mirror' } },
      }),
    );
    const [capture, apply] = ['capture:erp', 'apply:erp_replica'].map((only) => {
      const logFile = join(folder, `${only.replace(':', '-')}.log`);
      const stage = new Stage({ configFile, only, logFile, leaseTtlMs: 1000 });
      cleanups.push(async () => await stage.end('SIGKILL'));
      stage.start();
      return stage;
    }) as [Stage, Stage];
    const seen = await ErpTarget.open({ kind: to, url: targetUrl, schema: 'mirror' });
    cleanups.push(seen.close);
    return new Scene({ pair, network, target: seen, capture, apply, configFile });
  }

  /** Starts the workload, and a reader that looks at the target again and again. */
  begin(): { readonly ended: Promise<unknown>; readonly watching: ReturnType<ErpTarget['watch']> } {
    const { signal } = this.#stop;
    const workload = runErpWorkload({
      url: () => this.writesTo,
      signal,
      ratePerSecond: 150,
      seed: 11,
      onTransaction: (outcome) => {
        if (outcome.committed) this.committed += 1;
      },
    });
    const watching = this.target.watch(signal);
    const ended = Promise.all([workload, watching]);
    ended.catch(() => undefined);
    cleanups.push(async () => await Promise.resolve(this.#stop.abort()));
    return { ended, watching };
  }

  stop(): void {
    this.#stop.abort();
  }

  async moreCommitted(count: number): Promise<void> {
    const before = this.committed;
    await waitFor(`${count} more transactions`, async () => this.committed >= before + count);
  }

  /** Waits until the target reflects a set of transactions. */
  async reflects(gtids: string): Promise<void> {
    const { flavour } = this.pair.primary;
    await waitFor(`the target at ${gtids}`, async () => await this.target.reflects(flavour, gtids)).catch(
      (cause: unknown) => {
        throw new Error(`the target does not get there; the capture says\n${this.capture.log()}`, { cause });
      },
    );
  }

  /** Waits until the target has every row and column of a server as it is there. */
  async equals(server: MysqlServer): Promise<void> {
    const compare = async (): Promise<Difference[]> => await compareErp(server.urlFor('erp'), this.target.mirror);
    await waitFor('both sides to be equal', async () => (await compare()).length === 0).catch(async () => {
      expect(await compare(), this.capture.log()).toEqual([]);
    });
  }

  async waybill(...args: string[]): Promise<string> {
    const { stdout } = await promisify(execFile)(PROGRAM, [...args, '--config', this.configFile]);
    return stdout;
  }
}

describe.each([
  ['mysql', 'postgres'],
  ['mariadb', 'mariadb'],
] as const)('a failover of %s, into %s', (from, to) => {
  it(
    'loses nothing, repeats nothing, and takes no side while two servers accept writes',
    async () => {
      const scene = await Scene.open(from, to);
      const { pair, network, capture } = scene;
      await scene.equals(pair.primary);
      const { ended, watching } = scene.begin();
      await scene.moreCommitted(150);

      // What Waybill has read has reached the replica, too; what is written from now on may be lost with the primary.
      network.cut();
      await pair.replicated(await pair.executed(pair.primary));
      await scene.moreCommitted(30);
      await pair.failOver();
      scene.writesTo = pair.replica.urlFor('erp');
      await scene.moreCommitted(150);
      await scene.reflects(await pair.executed(pair.replica));

      // The old primary comes back as if nothing had happened, with a transaction that the replica never had.
      await pair.primary.start();
      await pair.run(pair.primary, 'create table if not exists erp.stray (id int primary key)');
      network.mend();
      await waitFor(
        'the capture to refuse',
        async () => (await capture.status()).detail?.startsWith('source_ambiguous') === true,
      );
      await pair.run(pair.primary, 'set global read_only = 1');
      await scene.moreCommitted(50);
      scene.stop();
      await ended;

      await scene.reflects(await pair.executed(pair.replica));
      expect(await compareErp(pair.replica.urlFor('erp'), scene.target.mirror)).toEqual([]);
      const { looks, broken } = await watching;
      expect(broken).toEqual([]);
      expect(looks).toBeGreaterThan(5);
      const began = performance.now();
      await capture.end('SIGTERM');
      expect(performance.now() - began).toBeLessThan(20_000);
    },
    TIMEOUT_MS,
  );

  it(
    'refuses a replica that lacks what was captured, and gives up the invented rows when told to follow it',
    async () => {
      const scene = await Scene.open(from, to);
      const { pair, capture } = scene;
      await pair.replicated(await pair.executed(pair.primary));
      await scene.equals(pair.primary);
      await pair.isolate();
      await pair.run(
        pair.primary,
        `insert into erp.suppliers (code, name, country, currency, lead_time_days) values ('GHOST', 'Never was', 'DE', 'EUR', 1)`,
        `update erp.suppliers set rating = 1.11 where id = 1`,
        `delete from erp.item_suppliers limit 3`,
      );
      await scene.reflects(await pair.executed(pair.primary));
      const ghosts = async (): Promise<number> =>
        (await scene.target.query(`select 1 from mirror.suppliers where code = 'GHOST'`)).length;
      expect(await ghosts()).toBe(1);

      await pair.failOver();
      await pair.run(pair.replica, `update erp.suppliers set rating = 2.22 where id = 2`);
      const refusal = await waitFor('the capture to refuse', async () => {
        const { state, detail } = await capture.status();
        return state === 'blocked' && detail;
      });
      expect(refusal).toMatch(/^source_diverged: .*has not executed/);
      expect(await ghosts()).toBe(1);

      await scene.waybill('snapshot', 'erp', '--reset');
      await scene.reflects(await pair.executed(pair.replica));
      await scene.equals(pair.replica);
      expect(await ghosts()).toBe(0);
    },
    TIMEOUT_MS,
  );
});
