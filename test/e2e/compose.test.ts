/**
 * What docker-compose.yml runs, without containers: its commands with its environment and its configuration, on servers of
 * this machine in place of those that it names.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parse } from 'yaml';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openPostgres } from '../../sandbox/demo/observer.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { waitFor } from '../support/wait.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const TIMEOUT_MS = 480_000;

interface Service {
  readonly command?: readonly string[];
  readonly entrypoint?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

let source: PostgresServer;
let target: PostgresServer;
let mysql: MysqlServer;
let nats: NatsServer;
let folder: string;
let services: readonly (readonly [name: string, service: Service])[];
const running: ChildProcess[] = [];
const output: string[] = [];

beforeAll(async () => {
  [source, target, mysql, nats] = await Promise.all([
    startPostgres(),
    startPostgres(),
    startMysql({ flavour: 'mysql' }),
    startNats(),
  ]);
  folder = await mkdtemp(join(tmpdir(), 'waybill-compose-'));
  // What the images of the servers make by themselves.
  await Promise.all([source.createDatabase('wms'), target.createDatabase('visibility'), mysql.createDatabase('erp')]);
  const compose = parse(await readFile(join(ROOT, 'docker-compose.yml'), 'utf8'), { merge: true }) as {
    services: Record<string, Service>;
  };
  services = Object.entries(compose.services);
}, TIMEOUT_MS);

afterAll(async () => {
  for (const child of running) child.kill('SIGKILL');
  await Promise.all([source?.dispose(), target?.dispose(), mysql?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

/** A variable as it is here: databases by their names are on the servers of this machine. */
function here(value: string): string {
  const plain = value.replaceAll(/\$\{\w+:-([^}]*)\}/g, '$1');
  const [, host, database = ''] = /^\w+:\/\/(?:[^@]*@)?([\w-]+):\d+(?:\/(\w+))?$/.exec(plain) ?? [];
  switch (host) {
    case 'source-postgres':
      return source.urlFor(database);
    case 'target-postgres':
      return target.urlFor(database);
    case 'source-mysql':
      return mysql.urlFor(database);
    case 'nats':
      return nats.url;
    default:
      return plain;
  }
}

function start(script: readonly string[], environment: Readonly<Record<string, string>>): ChildProcess {
  const env = Object.fromEntries(Object.entries(environment).map(([name, value]) => [name, here(value)]));
  const child = spawn(process.execPath, script, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => output.push(data.toString()));
  running.push(child);
  return child;
}

const inDist = (part: string): string => part.replace('/app/dist/', `${ROOT}/dist/`);

it(
  'makes the systems, sets them to work, and an order of the shop goes all the way to its customer',
  async () => {
    const systems = services.filter(([, { entrypoint }]) => entrypoint !== undefined);
    for (const again of [false, true])
      for (const [name, { entrypoint, environment }] of systems.filter(
        ([, each]) => each.entrypoint!.at(-1) === 'seed',
      )) {
        const seed = start(entrypoint!.slice(1).map(inDist), environment!);
        const [status] = (await once(seed, 'close')) as [number | null];
        expect(status, `${name}: ${output.join('')}`).toBe(0);
        expect(output.at(-1)).toMatch(again ? /already there/ : /is made/);
      }
    for (const [, { entrypoint, environment }] of systems)
      if (entrypoint!.at(-1) === 'run') start(entrypoint!.slice(1).map(inDist), environment!);

    // All stages in one process: apart they take more of this machine than it has.
    const configFile = join(folder, 'waybill.yaml');
    const config = await readFile(join(ROOT, 'docker/waybill.yaml'), 'utf8');
    await writeFile(configFile, config.replaceAll('/app/dist/', `${ROOT}/dist/`).replaceAll('every: 30s', 'every: 2s'));
    const ours = services.filter(([, { command }]) => command?.[0] === 'run');
    const only = ours.map(([, { command }]) => command!.at(-1)!).join();
    const environment = Object.assign({}, ...ours.map(([, service]) => service.environment)) as Record<string, string>;
    const waybill = start(
      [`${ROOT}/dist/cli/main.js`, 'run', '--only', only, '--listen', '127.0.0.1:0', '--config', configFile],
      environment,
    );
    let ended = false;
    waybill.once('close', () => (ended = true));

    const [shop, visibility] = await Promise.all([
      openPostgres(source.urlFor('shop')),
      openPostgres(target.urlFor('visibility')),
    ]);
    try {
      const number = await waitFor(
        'an order that was delivered',
        async () => {
          if (ended) throw new Error('waybill has ended');
          const { rows } = await shop.query<{ number: string }>(
            `select number from orders where status = 'completed' and tracking_no is not null and delivered_at is not null limit 1`,
          );
          return rows[0]?.number;
        },
        // All stages and systems at once: beside other tests it takes a while.
        300_000,
      ).catch((cause: unknown) => {
        throw new Error(output.join('').slice(-4000), { cause });
      });
      await waitFor('its record in the store', async () => {
        const { rows } = await visibility.query<{ status: string }>(
          'select status from canonical.sales_order where number = $1',
          [number],
        );
        return rows[0]?.status === 'completed';
      });
    } finally {
      await Promise.all([shop.end(), visibility.end()]);
    }
    for (const child of running) child.kill('SIGTERM');
    await waitFor('all to end', async () =>
      running.every((child) => child.exitCode !== null || child.signalCode !== null),
    );
    expect(running.map((child) => child.exitCode)).toEqual(running.map(() => 0));
  },
  TIMEOUT_MS,
);
