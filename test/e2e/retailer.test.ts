/** The worked example: a shop, its 3PL and an ERP, while every part of Waybill is killed again and again. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { createErp } from '../../sandbox/demo/erp-schema.ts';
import { runErpWorkload } from '../../sandbox/demo/erp-workload.ts';
import { openPostgres } from '../../sandbox/demo/observer.ts';
import { Retailer, writeFreshConfig } from '../../sandbox/demo/retailer/retailer.ts';
import { startMysql } from '../../sandbox/mysql.ts';
import { startNats } from '../../sandbox/nats.ts';
import { startPostgres } from '../../sandbox/postgres.ts';
import { Stage } from '../support/stage.ts';
import { waitFor } from '../support/wait.ts';

const timeoutMs = 600_000;
const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
}, timeoutMs);

it(
  'brings orders to the warehouse and despatch, status, stock and prices back, whatever is killed',
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'waybill-retailer-'));
    cleanups.push(async () => await rm(folder, { recursive: true, force: true }));
    const [server, erpServer, nats] = await Promise.all([
      startPostgres(),
      startMysql({ flavour: 'mysql' }),
      startNats(),
    ]);
    for (const each of [server, erpServer, nats]) cleanups.push(async () => await each.dispose());
    const erpUrl = await erpServer.createDatabase('erp');
    await createErp(erpUrl, 1);
    const [visibility, freshUrl] = [await server.createDatabase('visibility'), await server.createDatabase('fresh')];
    const retailer = await Retailer.create({ server, visibility, erp: { name: 'erp' }, nightly: '2s' });
    cleanups.push(async () => await retailer.close());

    const configFile = join(folder, 'live.yaml');
    const erp = { erp: { kind: 'mysql', url: erpUrl, tables: ['erp.items'], heartbeat: '1s' } };
    const { sources, targets, flows } = retailer.config();
    await writeFile(
      configFile,
      stringify({
        version: 1,
        nats: { servers: [nats.url], stream: { max_bytes: '256MB' } },
        sources: { ...sources, ...erp },
        targets: { ...targets, visibility: { kind: 'postgres', url: visibility } },
        flows,
      }),
    );
    const names = Object.keys(flows);
    const records = names.filter((name) => 'canonical' in flows[name]!);
    const parts = [
      ['capture:shop', 'capture:threepl', 'capture:erp'],
      records.map((name) => `transform:${name}`),
      names.map((name) => `apply:${name}`),
    ].map((only, index) => {
      const part = new Stage({
        configFile,
        only: only.join(','),
        logFile: join(folder, `${index}.log`),
        leaseTtlMs: 2000,
      });
      cleanups.push(async () => void (await part.end('SIGKILL')));
      part.start();
      return part;
    });
    const logs = (of: readonly Stage[]): string => of.map((part) => part.log()).join('\n');

    const stop = new AbortController();
    cleanups.push(async () => stop.abort());
    let failed: unknown;
    const work = { signal: stop.signal, seed: 3 };
    const workloads = Promise.all([
      retailer.work({ ...work, ratePerSecond: 15 }),
      runErpWorkload({ ...work, url: erpUrl, ratePerSecond: 10 }),
    ]).catch((thrown: unknown) => void (failed = thrown));
    const more = async (orders: number): Promise<void> => {
      const wanted = (await retailer.delivered()) + orders;
      await waitFor(
        'orders that have gone all the way',
        async () => failed !== undefined || (await retailer.delivered()) >= wanted,
        120_000,
      ).catch((thrown: unknown) => {
        throw new Error(logs(parts), { cause: thrown });
      });
      if (failed !== undefined) throw failed;
    };
    await more(1);
    for (let kill = 0; kill < 3; kill++) {
      const part = parts[kill % parts.length]!;
      await part.end('SIGKILL');
      part.start();
      await more(2);
    }
    stop.abort();
    await workloads;
    if (failed !== undefined) throw failed;

    const freshFile = join(folder, 'fresh.yaml');
    await writeFreshConfig(freshFile, retailer, { natsUrl: nats.url, visibility: freshUrl, erp });
    const all = records.flatMap((name) => [`transform:${name}`, `apply:${name}`]);
    const fresh = new Stage({
      configFile: freshFile,
      only: ['capture:shop', 'capture:threepl', 'capture:erp', ...all].join(','),
      logFile: join(folder, 'fresh.log'),
      leaseTtlMs: 2000,
    });
    cleanups.push(async () => void (await fresh.end('SIGKILL')));
    fresh.start();
    const [target, freshTarget] = [await openPostgres(visibility), await openPostgres(freshUrl)];
    cleanups.push(async () => void (await Promise.all([target.end(), freshTarget.end()])));
    const verdict = await retailer.verdict(configFile, target, freshTarget, AbortSignal.timeout(120_000));
    expect(verdict.problems, logs([...parts, fresh])).toEqual([]);
    expect(verdict.orders).toBeGreaterThan(10);
    expect(verdict.records).toBeGreaterThan(300);
    const journeys = await retailer.journeys(3);
    expect(journeys.map(({ tracking }) => typeof tracking)).toEqual(['string', 'string', 'string']);
    // Nothing is held, nothing waits, and every flow follows its tables.
    const { rows } = await target.query<{ held: number; stopped: number }>(
      `select (select count(*)::int from waybill.quarantine) as held,
              (select count(*)::int from waybill.tables where state <> 'follows') as stopped`,
    );
    expect(rows).toEqual([{ held: 0, stopped: 0 }]);
  },
  timeoutMs,
);
