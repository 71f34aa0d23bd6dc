/** docker-compose.yml and what it mounts fit together; `docker compose config` says the rest where Docker is. */
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parse } from 'yaml';
import { describe, expect, it } from 'vitest';
import { flowNames, parseConfig } from '../../core/config.ts';
import { retailerConfig } from '../../sandbox/demo/retailer/flows.ts';
import { loadFlowPlan } from '../../transform/flow-plan.ts';
import { loadOutboundPlan } from '../../transform/outbound/outbound-file.ts';

const root = resolve(import.meta.dirname, '../..');
const read = (file: string): string => readFileSync(resolve(root, file), 'utf8');

interface Service {
  readonly image?: string;
  readonly command?: readonly string[];
  readonly entrypoint?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly ports?: readonly string[];
  readonly volumes?: readonly string[];
  readonly healthcheck?: { readonly test?: unknown; readonly disable?: boolean };
  readonly depends_on?: readonly string[] | Readonly<Record<string, { readonly condition: string }>>;
}

const compose = parse(read('docker-compose.yml'), { merge: true }) as {
  readonly services: Readonly<Record<string, Service>>;
  readonly volumes: Readonly<Record<string, unknown>>;
};
const services = Object.entries(compose.services);
/** Services of Waybill itself, whose image brings its health check. */
const stagesOf = ({ command = [] }: Service): string[] =>
  command[0] === 'run' ? command[command.indexOf('--only') + 1]!.split(',') : [];
const given = Object.assign(
  {},
  ...services.filter(([, s]) => stagesOf(s).length > 0).map(([, s]) => s.environment),
) as Record<string, string>;
/** As Docker gives it where nobody sets anything. */
const environment = Object.fromEntries(
  Object.entries(given).map(([name, value]) => [name, value.replaceAll(/\$\{\w+:-([^}]*)\}/g, '$1')]),
);
const { SHOP_URL, THREEPL_URL, VISIBILITY_URL } = environment as Record<
  'SHOP_URL' | 'THREEPL_URL' | 'VISIBILITY_URL',
  string
>;
const config = parseConfig(read('docker/waybill.yaml'), environment);

describe('docker-compose.yml', () => {
  it('has an image for each service that the environment can replace', () => {
    for (const [name, { image }] of services) expect(`${name} ${image}`).toMatch(/^\S+ \$\{WAYBILL_\w*IMAGE:-.+\}$/);
  });

  it('runs every source and flow of docker/waybill.yaml once, each as a service of its own', () => {
    const stages = services.flatMap(([, service]) => stagesOf(service));
    const wanted = [
      ...Object.keys(config.sources).map((name) => `capture:${name}`),
      ...Object.keys(config.canonicalFlows).map((name) => `transform:${name}`),
      ...[...Object.keys(config.flows), ...Object.keys(config.canonicalFlows)].flatMap((name) => [
        `apply:${name}`,
        `verify:${name}`,
      ]),
      ...Object.keys(config.outboundFlows).map((name) => `apply:${name}`),
      ...flowNames(config).map((name) => `heartbeat:${name}`),
    ];
    expect(stages.filter((stage) => stage !== 'console').sort()).toEqual(wanted.sort());
    expect(Object.keys(config.sources)).toEqual(['wms', 'erp', 'shop', 'threepl']);
  });

  it('has the retailer of the demo, with the mappings that the image has', async () => {
    const urls = { shop: SHOP_URL, threepl: THREEPL_URL, visibility: VISIBILITY_URL };
    const { sources, targets, flows } = retailerConfig(urls, { name: 'erp' }, '30s', true);
    const demo = parseConfig(
      JSON.stringify({
        version: 1,
        sources: { ...sources, erp: { kind: 'mysql', url: 'mysql://a/erp', tables: ['erp.*'] } },
        targets: { ...targets, visibility: { kind: 'postgres', url: VISIBILITY_URL } },
        flows,
      }),
      {},
    );
    // The image has below /app/dist what is built here from the root.
    const here = JSON.parse(JSON.stringify(config).replaceAll('/app/dist/', `${root}/`)) as typeof config;
    const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
    expect(here.canonicalFlows).toEqual(plain(demo.canonicalFlows));
    expect(here.outboundFlows).toEqual(plain(demo.outboundFlows));
    for (const name of ['shop', 'threepl']) expect(plain(config.sources[name])).toEqual(plain(demo.sources[name]));
    for (const name of ['shop', 'warehouse']) expect(config.targets[name]).toEqual(demo.targets[name]);
    for (const [name, settings] of Object.entries(here.canonicalFlows)) await loadFlowPlan(name, settings);
    for (const { map, outbound } of Object.values(here.outboundFlows)) loadOutboundPlan(map, outbound);
  });

  it('has room in NATS for the streams of all sources and records', () => {
    const room = Number(/max_file_store: (\d+)GB/.exec(read('docker/nats.conf'))![1]) * 1024 ** 3;
    const streams = Object.keys(config.sources).length + Object.keys(config.canonicalFlows).length;
    expect(streams * config.nats.stream.max_bytes).toBeLessThanOrEqual(room);
  });

  it('has systems at work that the demo knows, each made before it is worked on', () => {
    const systems = services.filter(([, { environment = {} }]) => 'WORKLOAD' in environment);
    const done = systems.map(([, { environment, entrypoint }]) => `${entrypoint!.at(-1)} ${environment!['WORKLOAD']}`);
    const wanted = ['wms', 'erp', 'shop', 'threepl'].flatMap((name) => [`seed ${name}`, `run ${name}`]);
    expect(done.sort()).toEqual(wanted.sort());
    for (const [name, { environment, entrypoint, depends_on: awaited }] of systems) {
      const made = entrypoint!.at(-1) === 'seed' ? [] : Object.keys(awaited as object);
      for (const other of made) expect(compose.services[other]!.environment, name).toEqual(environment);
      expect(made.length, name).toBe(entrypoint!.at(-1) === 'seed' ? 0 : 1);
    }
  });

  it('waits only for services that are there and can tell that they are ready', () => {
    for (const [name, { depends_on: awaited = {} }] of services)
      for (const [other, { condition }] of Object.entries(
        Array.isArray(awaited)
          ? Object.fromEntries(awaited.map((each) => [each, { condition: 'service_started' }]))
          : awaited,
      ) as [string, { condition: string }][]) {
        const service = compose.services[other];
        expect(service, `${name} waits for ${other}`).toBeDefined();
        if (condition === 'service_healthy')
          expect(service!.healthcheck?.test ?? (stagesOf(service!).length > 0 || undefined), other).toBeDefined();
        else if (condition === 'service_completed_successfully') expect(service!.entrypoint?.at(-1)).toBe('seed');
      }
  });

  it('mounts files that exist and volumes that are declared, and publishes each port once', () => {
    const ports: string[] = [];
    for (const [, service] of services) {
      for (const volume of service.volumes ?? []) {
        const [from] = volume.split(':') as [string];
        if (from.startsWith('./')) expect(existsSync(resolve(root, from)), volume).toBe(true);
        else expect(Object.keys(compose.volumes)).toContain(from);
      }
      for (const port of service.ports ?? []) ports.push(/:-(\d+)\}/.exec(port)![1]!);
      const script = service.entrypoint?.find((part) => part.startsWith('/app/dist/'));
      if (script !== undefined)
        expect(existsSync(resolve(root, script.replace('/app/dist/', '').replace(/\.js$/, '.ts'))), script).toBe(true);
    }
    expect(new Set(ports).size).toBe(ports.length);
  });

  it('connects to databases under the names that the services have', () => {
    for (const [name, { environment = {} }] of services)
      for (const [variable, url] of Object.entries(environment)) {
        const host = /^\w+:\/\/(?:[^@]*@)?([\w-]+):\d+/.exec(url)?.[1];
        if (host !== undefined) expect(Object.keys(compose.services), `${name} ${variable}`).toContain(host);
      }
  });

  it('lets Prometheus scrape every service of Waybill', () => {
    const scraped = (parse(read('docker/prometheus.yml')) as { scrape_configs: { static_configs: unknown[] }[] })
      .scrape_configs;
    const targets = scraped.flatMap(({ static_configs: list }) =>
      list.flatMap((item) => (item as { targets: string[] }).targets),
    );
    const ours = services.filter(([, service]) => stagesOf(service).length > 0).map(([name]) => `${name}:9464`);
    expect(targets.filter((target) => target.endsWith(':9464')).sort()).toEqual(ours.sort());
  });
});
