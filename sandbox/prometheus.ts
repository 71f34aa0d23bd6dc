import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { firstOf } from './choice.ts';
import type { ServerControl } from './control.ts';
import { cachedPackages, fetchPackage, type DebianPackage, type Unpacked } from './debian.ts';
import { giveToServer } from './identity.ts';
import { NativeServer } from './native-server.ts';
import { compareVersions, findPrograms, programFolders } from './path.ts';

/** The programs of Prometheus. */
export interface PrometheusPrograms {
  readonly prometheus: string;
  readonly promtool: string;
  /** Where they come from, for people: 'Debian bookworm prometheus 2.42.0+ds-5'. */
  readonly origin: string;
}

export interface PrometheusServer extends ServerControl {
  readonly url: string;
  readonly origin: string;
}

// Written in Go, like nats-server: any release runs with the machine's C library.
const wanted: DebianPackage = { name: 'prometheus', suite: 'bookworm' };

/** Prometheus and promtool of this machine, of the cache, or fetched. */
export async function findPrometheus(): Promise<PrometheusPrograms> {
  return await firstOf<PrometheusPrograms>(
    [
      { name: 'programs on PATH', kind: 'native', find: installed },
      { name: 'the cache of Debian packages', kind: 'native', find: cached },
      { name: "Debian's packages", kind: 'native', find: async () => await programsIn(await fetchPackage(wanted)) },
    ],
    'Prometheus',
    'Install prometheus with promtool.',
  );
}

async function installed(): Promise<PrometheusPrograms | undefined> {
  return await programsOf(programFolders(), 'programs on PATH');
}

async function cached(): Promise<PrometheusPrograms | undefined> {
  const newestFirst = (await cachedPackages(wanted)).sort((a, b) => compareVersions(b.version, a.version));
  for (const unpacked of newestFirst) {
    const programs = await programsIn(unpacked);
    if (programs) return programs;
  }
  return undefined;
}

async function programsIn({ root, version }: Unpacked): Promise<PrometheusPrograms | undefined> {
  return await programsOf([join(root, 'usr/bin')], `Debian ${wanted.suite} prometheus ${version}`);
}

async function programsOf(folders: readonly string[], origin: string): Promise<PrometheusPrograms | undefined> {
  const [prometheus] = await findPrograms('prometheus', folders);
  const [promtool] = await findPrograms('promtool', folders);
  if (prometheus === undefined || promtool === undefined) return undefined;
  return { prometheus: prometheus.path, promtool: promtool.path, origin };
}

/** Starts a private Prometheus with this configuration; `files` lie next to it. Resolves when it is ready. */
export async function startPrometheus(
  config: string,
  files: Readonly<Record<string, string>> = {},
): Promise<PrometheusServer> {
  const programs = await findPrometheus();
  const server = await NativeServer.launch({
    name: 'Prometheus',
    async prepare({ folder }) {
      await mkdir(join(folder, 'data'));
      await writeFile(join(folder, 'prometheus.yml'), config);
      for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
      await giveToServer(join(folder, 'data'));
    },
    command: ({ folder, port }) => ({
      file: programs.prometheus,
      args: [
        `--config.file=${join(folder, 'prometheus.yml')}`,
        `--storage.tsdb.path=${join(folder, 'data')}`,
        `--web.listen-address=127.0.0.1:${port}`,
        '--log.level=warn',
      ],
    }),
    async probe({ port }) {
      const response = await fetch(`http://127.0.0.1:${port}/-/ready`);
      if (!response.ok) throw new Error(`it answers ${response.status}`);
    },
    stopSignals: { fast: 'TERM', immediate: 'KILL' },
    orphanSignal: 'TERM',
  });
  return Object.assign(server, { url: `http://127.0.0.1:${server.port}`, origin: programs.origin });
}
