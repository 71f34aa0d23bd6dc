import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { aptSources, mirrorLines } from './apt-sources.ts';
import { cached, cachedNames, cacheFolder } from './cache.ts';
import { messageOf } from './errors.ts';
import { run } from './process.ts';

/** A package of Debian to unpack. */
export interface DebianPackage {
  readonly name: string;
  /** 'sid', 'trixie', … */
  readonly suite: string;
  /** Whether to unpack all it depends on with it, down to the C library; false if left out. */
  readonly dependencies?: boolean;
}

/** An unpacked package. */
export interface Unpacked {
  /** The folder that stands for `/`. */
  readonly root: string;
  /** The package's version in Debian's way of writing: '2.15.1-1'. */
  readonly version: string;
}

/** The versions of a package that the cache holds already. */
export async function cachedPackages(wanted: DebianPackage): Promise<Unpacked[]> {
  const folder = folderOf(wanted);
  const versions = await cachedNames(folder);
  const base = await cacheFolder();
  return versions.map((version) => ({ root: join(base, folder, version), version: decodeURIComponent(version) }));
}

/**
 * Fetches a package from the Debian mirror that this machine's apt uses, checks its signature and unpacks it into the
 * cache. Needs apt-get and dpkg, and no root: apt gets folders of its own and knows of nothing installed.
 *
 * @throws Error where the machine is not a Debian or no mirror of it has the suite
 */
export async function fetchPackage(wanted: DebianPackage): Promise<Unpacked> {
  const release = await debianRelease();
  const lines = mirrorLines(await aptSources(), release, wanted.suite);
  const failures: string[] = [];
  for (const line of lines) {
    const folder = await mkdtemp(join(tmpdir(), 'waybill-apt-'));
    try {
      return await fetchWith(folder, line, wanted);
    } catch (error) {
      failures.push(messageOf(error));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  if (lines.length === 0) failures.push(`no apt source of this machine carries ${release} main`);
  throw new Error(`Debian's ${wanted.name} of ${wanted.suite} cannot be fetched: ${failures.join('; ')}`);
}

async function fetchWith(folder: string, line: string, wanted: DebianPackage): Promise<Unpacked> {
  const options = await privateApt(folder, line);
  await run('apt-get', [...options, 'update', '-qq', '--error-on=any']);
  const shown = await run('apt-cache', [...options, 'show', '--no-all-versions', wanted.name]);
  const version = /^Version: (\S+)$/m.exec(shown)?.[1];
  if (version === undefined) throw new Error(`apt shows no version of ${wanted.name}`);
  const root = await cached(`${folderOf(wanted)}/${folderName(version)}`, async (target) => {
    const archives = join(folder, 'cache', 'archives');
    if (wanted.dependencies) {
      await run('apt-get', [...options, 'install', '-qq', '-d', '-y', '--no-install-recommends', wanted.name]);
    } else {
      await run('apt-get', [...options, 'download', '-qq', wanted.name], { cwd: archives });
    }
    const files = (await readdir(archives)).filter((name) => name.endsWith('.deb')).sort();
    for (const file of files) await run('dpkg', ['-x', join(archives, file), target]);
    // sid moves: what it had on that day is written down.
    await writeFile(join(target, 'packages.txt'), `${files.join('\n')}\n`);
  });
  return { root, version };
}

/** Makes the folders of an apt of our own and gives the options that point to them. */
async function privateApt(folder: string, line: string): Promise<string[]> {
  for (const name of ['state/lists/partial', 'cache/archives/partial']) {
    await mkdir(join(folder, name), { recursive: true });
  }
  await writeFile(join(folder, 'status'), '');
  await writeFile(join(folder, 'sources.list'), `${line}\n`);
  const settings = {
    'Dir::State': join(folder, 'state'),
    'Dir::State::Lists': join(folder, 'state/lists'),
    'Dir::State::status': join(folder, 'status'),
    'Dir::Cache': join(folder, 'cache'),
    'Dir::Cache::Archives': join(folder, 'cache/archives'),
    'Dir::Etc::SourceList': join(folder, 'sources.list'),
    'Dir::Etc::SourceParts': '-',
    'APT::Sandbox::User': userInfo().username,
    'Acquire::Languages': 'none',
    'Acquire::Retries': '3',
  };
  return Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
}

async function debianRelease(): Promise<string> {
  const text = await readFile('/etc/os-release', 'utf8').catch(() => '');
  const codename = /^VERSION_CODENAME="?(\w+)"?$/m.exec(text)?.[1];
  if (!/^ID="?debian"?$/m.test(text) || codename === undefined) throw new Error('this machine is not a Debian');
  return codename;
}

/** As apt writes versions in file names: a colon would break a path in a list of paths. */
function folderName(version: string): string {
  return version.replaceAll(':', '%3a');
}

function folderOf({ name, suite, dependencies }: DebianPackage): string {
  return `debian/${suite}-${process.arch}/${name}${dependencies ? '+dependencies' : ''}`;
}
