import { existsSync } from 'node:fs';
import { realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { cachedPackages, fetchPackage, type DebianPackage, type Unpacked } from './debian.ts';
import { debianProgram, type ProgramCommand } from './debian-program.ts';
import { compareVersions, findPrograms, programFolders } from './path.ts';
import { run } from './process.ts';

/** Two servers that came from one and are two by now: what differs between them is told by this. */
export type MysqlFlavour = 'mysql' | 'mariadb';

/** The release series that a sandbox can have: those with long-term support. */
export type MysqlSeries = '8.4' | '9.7' | '10.11' | '11.8';

/** A flavour and the series wanted of it. */
export interface MysqlKind {
  readonly flavour: MysqlFlavour;
  readonly series: MysqlSeries;
}

/** The server program of MySQL or MariaDB. */
export interface MysqlProgram extends MysqlKind {
  readonly command: ProgramCommand;
  /** '9.7.4' */
  readonly version: string;
  /** Where it comes from, for people: 'Debian sid mysql-server-core 9.7.4-2'. */
  readonly origin: string;
  /** The folder with MariaDB's SQL files that make a data folder, and both servers' texts. */
  readonly shareDir: string;
  /** Options that say where the server's own files are, for one that is not where it was built to be. */
  readonly placeOptions: readonly string[];
}

const defaultSeries: Readonly<Record<MysqlFlavour, MysqlSeries>> = { mysql: '9.7', mariadb: '11.8' };
const seriesOf: Readonly<Record<MysqlFlavour, readonly MysqlSeries[]>> = {
  mysql: ['8.4', '9.7'],
  mariadb: ['10.11', '11.8'],
};

/** The flavour with the series asked for, or its newest. Throws if the series is not one of that flavour. */
export function mysqlKind(flavour: MysqlFlavour, series: MysqlSeries = defaultSeries[flavour]): MysqlKind {
  if (!seriesOf[flavour].includes(series)) {
    throw new Error(`${mysqlName(flavour)} ${series}: the sandbox knows ${seriesOf[flavour].join(' and ')}`);
  }
  return { flavour, series };
}

/** Whether the series is what one gets without asking for one. */
export function isDefaultSeries({ flavour, series }: MysqlKind): boolean {
  return defaultSeries[flavour] === series;
}

/** 'MySQL', 'MariaDB' */
export function mysqlName(flavour: MysqlFlavour): string {
  return flavour === 'mysql' ? 'MySQL' : 'MariaDB';
}

/** Whether a version ('9.7.4', '11.8.9-MariaDB') is one of the series. */
export function isOfSeries(version: string, { series }: MysqlKind): boolean {
  return version.startsWith(`${series}.`);
}

/** The server program of that series as installed on this machine, undefined if there is none. */
export async function installedMysql(kind: MysqlKind): Promise<MysqlProgram | undefined> {
  // MariaDB's package brings a `mysqld` too, which is a link to mariadbd.
  const name = kind.flavour === 'mysql' ? 'mysqld' : 'mariadbd';
  for (const { path } of await findPrograms(name, [...programFolders(), '/usr/libexec'])) {
    const command: ProgramCommand = { file: path, args: [] };
    const version = await versionOf(command, kind);
    const shareDir = shareOf(dirname(dirname(await realpath(path))));
    if (version === undefined || shareDir === undefined) continue;
    return { ...kind, command, version, origin: `${mysqlName(kind.flavour)} at ${path}`, shareDir, placeOptions: [] };
  }
  return undefined;
}

/** The newest server program of that series among the unpacked Debian packages of the cache, undefined if there is none. */
export async function cachedMysql(kind: MysqlKind): Promise<MysqlProgram | undefined> {
  const wanted = serverPackage(kind);
  const newestFirst = (await cachedPackages(wanted)).sort((a, b) => compareVersions(b.version, a.version));
  for (const unpacked of newestFirst) {
    const program = await programIn(unpacked, wanted, kind);
    if (program) return program;
  }
  return undefined;
}

/** The server program of the Debian release that has that series, fetched. */
export async function fetchedMysql(kind: MysqlKind): Promise<MysqlProgram> {
  const wanted = serverPackage(kind);
  const unpacked = await fetchPackage(wanted);
  const program = await programIn(unpacked, wanted, kind);
  if (program) return program;
  throw new Error(
    `Debian's ${wanted.name} ${unpacked.version} of ${wanted.suite} does not run here, or is not of ${kind.series}`,
  );
}

function serverPackage({ flavour, series }: MysqlKind): DebianPackage {
  const name = `${flavour}-server-core`;
  return { name, suite: debianSuite({ flavour, series }), dependencies: true };
}

/** The release of Debian that carries the series, or comes nearest. */
export function debianSuite({ series }: MysqlKind): string {
  return series === '10.11' ? 'bookworm' : series === '11.8' ? 'trixie' : 'sid';
}

async function programIn(
  unpacked: Unpacked,
  { name, suite }: DebianPackage,
  kind: MysqlKind,
): Promise<MysqlProgram | undefined> {
  const command = await debianProgram(unpacked, `usr/sbin/${kind.flavour === 'mysql' ? 'mysqld' : 'mariadbd'}`);
  const version = await versionOf(command, kind);
  const prefix = join(unpacked.root, 'usr');
  const shareDir = shareOf(prefix);
  if (version === undefined || shareDir === undefined) return undefined;
  const placeOptions = [`--basedir=${prefix}`, `--lc-messages-dir=${shareDir}`];
  const plugins = join(prefix, 'lib', 'mysql', 'plugin');
  if (existsSync(plugins)) placeOptions.push(`--plugin-dir=${plugins}`);
  if (kind.flavour === 'mariadb') placeOptions.push(`--character-sets-dir=${join(shareDir, 'charsets')}`);
  return { ...kind, command, version, origin: `Debian ${suite} ${name} ${unpacked.version}`, shareDir, placeOptions };
}

function shareOf(prefix: string): string | undefined {
  return ['mariadb', 'mysql'].map((name) => join(prefix, 'share', name)).find((folder) => existsSync(folder));
}

/** The version that a server program says it has; undefined if it does not run or is none of that kind. */
async function versionOf({ file, args }: ProgramCommand, kind: MysqlKind): Promise<string | undefined> {
  const text = await run(file, [...args, '--no-defaults', '--version']).catch(() => '');
  // "…/mariadbd  Ver 11.8.9-MariaDB-0+deb13u1 from Debian for debian-linux-gnu on x86_64"
  const version = /\bVer (\d+(?:\.\d+)+)/.exec(text)?.[1];
  const flavour = /mariadb/i.test(text) ? 'mariadb' : 'mysql';
  return version !== undefined && flavour === kind.flavour && isOfSeries(version, kind) ? version : undefined;
}
