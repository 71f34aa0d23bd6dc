import { createHash } from 'node:crypto';
import { chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cached } from './cache.ts';
import { giveToServer, serverIdentity } from './identity.ts';
import type { MysqlProgram } from './mysql-program.ts';
import { run } from './process.ts';

/** Settings that a data folder is made with and that its server must keep to. */
const settingsOfData = ['lower_case_table_names', 'innodb_page_size'];

/**
 * Makes `dataDir`, owned by the servers' user, as a copy of a template data folder of that version: making one takes
 * seconds. It has the superuser `root`, who is let in from everywhere without a password, and nobody else.
 */
export async function createDataFolder(
  program: MysqlProgram,
  dataDir: string,
  settings: Readonly<Record<string, string>>,
): Promise<void> {
  const template = await templateFolder(program, settings);
  await run('cp', [...cloningCopy, join(template, 'data'), dataDir]);
}

// -a keeps the owner and the modes; where the file system can, the copy shares its blocks.
const cloningCopy = process.platform === 'linux' ? ['-a', '--reflink=auto'] : ['-a'];

async function templateFolder(program: MysqlProgram, settings: Readonly<Record<string, string>>): Promise<string> {
  const ofData = settingsOfData.flatMap((name) =>
    settings[name] === undefined ? [] : [`--${name}=${settings[name]}`],
  );
  const builder = createHash('sha256')
    .update([program.origin, ...ofData].join(' '))
    .digest('hex')
    .slice(0, 8);
  const owner = serverIdentity()?.uid ?? process.getuid?.() ?? 0;
  const name = `${program.flavour}-template/${program.version}-${builder}-user${owner}`;
  return await cached(name, async (folder) => {
    const dataDir = join(folder, 'data');
    await mkdir(dataDir, { mode: 0o700 });
    await giveToServer(dataDir);
    // A server that starts removes the temporary tables that it finds there, those of another one, too.
    const temporary = join(folder, 'tmp');
    await mkdir(temporary, { mode: 0o700 });
    await giveToServer(temporary);
    const places = [`--datadir=${dataDir}`, `--tmpdir=${temporary}`];
    const options = [...program.placeOptions, ...places, ...ofData, '--innodb-flush-method=nosync'];
    if (program.flavour === 'mysql') await initializeMysql(program, folder, options);
    else await bootstrapMariadb(program, options);
    // It holds the server's UUID: each copy makes its own at its first start.
    await rm(join(dataDir, 'auto.cnf'), { force: true });
  });
}

async function initializeMysql(program: MysqlProgram, folder: string, options: readonly string[]): Promise<void> {
  const { file, args } = program.command;
  const initFile = join(folder, 'accounts.sql');
  await writeFile(initFile, `${accounts.join('\n')}\n`);
  await chmod(initFile, 0o644);
  await run(
    file,
    [
      [...args, '--no-defaults', '--initialize-insecure', `--init-file=${initFile}`],
      [...options, '--performance-schema=OFF', '--innodb-redo-log-capacity=8M'],
    ].flat(),
    { identity: serverIdentity() },
  );
}

// Without names to resolve, 'localhost' would not let in who comes from 127.0.0.1.
const accounts = [`CREATE USER root@'%' IDENTIFIED BY '';`, `GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;`];

/** Does what mariadb-install-db does, which is a shell script that looks for its files where they are not. */
async function bootstrapMariadb(program: MysqlProgram, options: readonly string[]): Promise<void> {
  const { file, args } = program.command;
  const scripts = await Promise.all(bootstrapScripts.map(async (name) => await readScript(program.shareDir, name)));
  const input = [
    'create database mysql;',
    'use mysql;',
    // What the scripts take from their caller: root logs in with a password (an empty one), and nobody without a name.
    'set @auth_root_socket=NULL;',
    'set @skip_auth_anonymous=1;',
    ...scripts,
    'flush privileges;',
    ...accounts,
    '',
  ].join('\n');
  await run(
    file,
    [
      [...args, '--no-defaults', '--bootstrap', ...options, '--log-warnings=0', '--enforce-storage-engine='],
      ['--max-allowed-packet=8M', '--net-buffer-length=16K', '--innodb-log-file-size=8M'],
    ].flat(),
    { identity: serverIdentity(), input },
  );
}

const bootstrapScripts = [
  'system_tables',
  'performance_tables',
  'system_tables_data',
  'maria_add_gis_sp_bootstrap',
  'sys_schema',
] as const;

async function readScript(shareDir: string, name: (typeof bootstrapScripts)[number]): Promise<string> {
  // Named after MySQL until 10.11.
  const names = name.startsWith('maria_') ? [name] : [`mariadb_${name}`, `mysql_${name}`];
  for (const candidate of names) {
    const text = await readFile(join(shareDir, `${candidate}.sql`), 'utf8').catch(() => undefined);
    // Those lines make accounts for this machine's name, which is of no use here.
    if (text !== undefined) return text.replaceAll(/^.*@current_hostname.*$/gm, '');
  }
  throw new Error(`${shareDir} holds no ${names.join(' or ')}.sql`);
}
