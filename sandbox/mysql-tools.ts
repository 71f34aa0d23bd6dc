import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { cachedPackages, fetchPackage, type DebianPackage, type Unpacked } from './debian.ts';
import { debianProgram, type ProgramCommand } from './debian-program.ts';
import { debianSuite, mysqlKind, type MysqlFlavour, type MysqlKind, type MysqlSeries } from './mysql-program.ts';
import { compareVersions, findPrograms, programFolders } from './path.ts';
import { run } from './process.ts';

/** A client program, by the name that MySQL has for it. */
export type MysqlTool = 'mysql' | 'mysqldump' | 'mysqlbinlog';

/** How to run a client program. What it is told to do follows `args`. */
export interface MysqlToolCommand extends ProgramCommand {
  /** Where it comes from, for people: 'Debian sid mysql-client-core 9.7.4-2'. */
  readonly origin: string;
}

const namesOf: Readonly<Record<MysqlFlavour, Readonly<Record<MysqlTool, string>>>> = {
  mysql: { mysql: 'mysql', mysqldump: 'mysqldump', mysqlbinlog: 'mysqlbinlog' },
  mariadb: { mysql: 'mariadb', mysqldump: 'mariadb-dump', mysqlbinlog: 'mariadb-binlog' },
};

/**
 * A client program of MySQL or MariaDB: one on PATH that is not older than the series, else that of Debian's packages,
 * which are fetched into the cache if they are not there.
 *
 * @param series of the server that it is for; the newest of the flavour if left out
 * @throws Error if it cannot be had on this machine
 */
export async function findMysqlTool(
  tool: MysqlTool,
  flavour: MysqlFlavour,
  series?: MysqlSeries,
): Promise<MysqlToolCommand> {
  const kind = mysqlKind(flavour, series);
  const name = namesOf[flavour][tool];
  const installed = await installedTool(name, kind);
  if (installed) return installed;
  const wanted = packageOf(tool, kind);
  const [newest] = (await cachedPackages(wanted)).sort((a, b) => compareVersions(b.version, a.version));
  return await toolIn(newest ?? (await fetchPackage(wanted)), wanted, name);
}

function packageOf(tool: MysqlTool, kind: MysqlKind): DebianPackage {
  // MySQL's mysqlbinlog comes with the server.
  const mysql = tool === 'mysqlbinlog' ? 'mysql-server-core' : 'mysql-client-core';
  return { name: kind.flavour === 'mysql' ? mysql : 'mariadb-client', suite: debianSuite(kind), dependencies: true };
}

async function toolIn(unpacked: Unpacked, { name, suite }: DebianPackage, tool: string): Promise<MysqlToolCommand> {
  const command = await debianProgram(unpacked, `usr/bin/${tool}`);
  return { ...command, origin: `Debian ${suite} ${name} ${unpacked.version}` };
}

async function installedTool(name: string, { flavour, series }: MysqlKind): Promise<MysqlToolCommand | undefined> {
  for (const { path } of await findPrograms(name, programFolders())) {
    // Of the family, only the interactive client says which release all of them are of.
    const client = join(dirname(path), namesOf[flavour].mysql);
    if (!existsSync(client)) continue;
    const text = await run(client, ['--no-defaults', '--version']).catch(() => '');
    const isMariadb = /mariadb/i.test(text);
    // 'mysql  Ver 9.7.4 for Linux', 'mariadb  Ver 15.1 Distrib 10.11.18-MariaDB', 'mariadb from 11.8.9-MariaDB'
    const version = /\b(?:Distrib|from) (\d[\d.]*)/.exec(text)?.[1] ?? /\bVer (\d[\d.]*)/.exec(text)?.[1];
    if (version === undefined || isMariadb !== (flavour === 'mariadb')) continue;
    if (compareVersions(version, series) >= 0)
      return { file: path, args: [], origin: `${name} of ${version} at ${path}` };
  }
  return undefined;
}
