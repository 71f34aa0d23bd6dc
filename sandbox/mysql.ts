import { randomInt } from 'node:crypto';
import { mkdir, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { firstOf } from './choice.ts';
import { foreignControl, type ServerControl } from './control.ts';
import { findContainers, type Containers } from './docker.ts';
import { giveToServer } from './identity.ts';
import { queryRow, quoteName } from './mysql-client.ts';
import { startMysqlContainer } from './mysql-container.ts';
import { createDataFolder } from './mysql-data.ts';
import * as programs from './mysql-program.ts';
import type { MysqlFlavour, MysqlKind, MysqlProgram, MysqlSeries } from './mysql-program.ts';
import { mysqlSettings, settingArguments, type MysqlSettings } from './mysql-settings.ts';
import { NativeServer, type ServerRecipe } from './native-server.ts';
import { Fatal } from './process.ts';

/** What a MySQL or MariaDB server shall be. */
export interface MysqlOptions {
  readonly flavour: MysqlFlavour;
  /** The release series; 9.7 of MySQL and 11.8 of MariaDB if left out. */
  readonly version?: MysqlSeries;
  /** Server variables, over those of the sandbox (row-based binary log with full metadata, GTIDs, …). */
  readonly settings?: MysqlSettings;
  /** The port to use, a free one if left out. */
  readonly port?: number;
  /** The environment variable that may hold the URL of a server to use instead: `WAYBILL_TEST_MYSQL_URL`. */
  readonly env?: string;
  /** Is told, in one line, where the server came from. */
  readonly log?: (line: string) => void;
  /** The server's number among those that replicate; a random one if left out. */
  readonly serverId?: number;
}

/**
 * A running MySQL or MariaDB server. `root` is let in from everywhere without a password; users made as `name@'%'` get
 * in over TCP with theirs.
 */
export interface MysqlServer extends ServerControl {
  /** Of the superuser `root`, without a database. */
  readonly url: string;
  readonly flavour: MysqlFlavour;
  /** '9.7.4', '11.8.9' */
  readonly version: string;
  /** Where the server came from, for people: 'Debian sid mysql-server-core 9.7.4-2'. */
  readonly origin: string;
  /** The variable `server_id`. */
  readonly serverId: number;
  /** The data folder; undefined for a server that runs elsewhere. */
  readonly dataDir?: string;
  /** Creates a database and gives its URL. One in a server that is not ours is dropped on `dispose`. */
  createDatabase(name: string): Promise<string>;
  /** The URL of a database, whether it exists or not. */
  urlFor(database: string): string;
}

/**
 * Starts a private MySQL or MariaDB server with its binary log on; resolves when it answers queries.
 *
 * @throws ServerUnavailableError if none can be had on this machine
 * @throws PortTakenError if the port asked for is in use
 */
export async function startMysql(options: MysqlOptions): Promise<MysqlServer> {
  const given = options.env === undefined ? undefined : process.env[options.env];
  const server = given ? await useForeign(given, options) : await startOwn(options);
  const name = programs.mysqlName(options.flavour);
  options.log?.(`${name} ${server.version} on ${server.host}:${server.port}: ${server.origin}`);
  return server;
}

async function startOwn(options: MysqlOptions): Promise<MysqlServer> {
  const { flavour, port, serverId = randomInt(100_000, 2 ** 31) } = options;
  const kind = programs.mysqlKind(flavour, options.version);
  const settings = mysqlSettings(flavour, serverId, options.settings ?? {});
  const found = await findServer(kind);
  if ('command' in found) return await startNative(found, settings, port);
  const container = await startMysqlContainer(found, {
    kind,
    settings,
    port,
    probe: async (address) => await queryRow(urlOf(address), 'select 1'),
  });
  const about = await describe(urlOf(container.control));
  if (about.flavour !== flavour || !programs.isOfSeries(about.version, kind)) {
    await container.control.dispose();
    throw new Error(`image ${container.image} holds ${about.flavour} ${about.version}, not ${flavour} ${kind.series}`);
  }
  return createServer(container.control, { ...about, origin: `Docker image ${container.image}` });
}

async function findServer(kind: MysqlKind): Promise<MysqlProgram | Containers> {
  const name = `${programs.mysqlName(kind.flavour)} ${kind.series}`;
  return await firstOf<MysqlProgram | Containers>(
    [
      { name: 'server on PATH', kind: 'native', find: async () => await programs.installedMysql(kind) },
      { name: 'cache of Debian packages', kind: 'native', find: async () => await programs.cachedMysql(kind) },
      { name: 'Docker', kind: 'docker', find: findContainers },
      { name: 'fetching the Debian package', kind: 'native', find: async () => await programs.fetchedMysql(kind) },
    ],
    name,
    `Install ${name} on PATH, or Docker, or run on a Debian that reaches its mirror.`,
  );
}

async function startNative(
  program: MysqlProgram,
  settings: MysqlSettings,
  port: number | undefined,
): Promise<MysqlServer> {
  const dataOf = (folder: string): string => join(folder, 'data');
  const temporaryOf = (folder: string): string => join(folder, 'tmp');
  const { file, args } = program.command;
  const recipe: ServerRecipe = {
    name: `${programs.mysqlName(program.flavour)} ${program.version}`,
    async prepare({ folder }) {
      await giveToServer(folder);
      await mkdir(temporaryOf(folder));
      await giveToServer(temporaryOf(folder));
      await createDataFolder(program, dataOf(folder), settings);
    },
    command: ({ folder, port: ownPort }) => ({
      file,
      args: [
        [...args, '--no-defaults', ...program.placeOptions],
        [`--datadir=${dataOf(folder)}`, `--tmpdir=${temporaryOf(folder)}`, `--port=${ownPort}`],
        // Relative to the data folder, because the path of a socket may have no more than about a hundred bytes.
        ['--bind-address=127.0.0.1', '--socket=mysql.sock', '--pid-file=mysqld.pid'],
        settingArguments(settings),
      ].flat(),
    }),
    async probe({ folder, port: ownPort }) {
      const [answer] = await queryRow(urlOf({ host: '127.0.0.1', port: ownPort }), 'select @@datadir');
      const [theirs, ours] = await Promise.all([realpath(answer ?? '').catch(() => answer), realpath(dataOf(folder))]);
      if (theirs !== ours) throw new Fatal(new Error(`port ${ownPort} answers for another server: ${theirs}`));
    },
    stopSignals: { fast: 'TERM', immediate: 'KILL' },
    orphanSignal: 'KILL',
  };
  const control = await NativeServer.launch(recipe, port);
  const { flavour, version, origin } = program;
  const serverId = Number(settings['server_id']);
  return createServer(control, { flavour, version, origin, serverId, dataDir: dataOf(control.folder) });
}

async function useForeign(given: string, options: MysqlOptions): Promise<MysqlServer> {
  const variable = options.env ?? '';
  const about = await describe(given);
  if (about.flavour !== options.flavour)
    throw new Error(`${variable} names a ${about.flavour}, not a ${options.flavour}`);
  const control = foreignControl(new URL(given), 3306, variable);
  const server = createServer(control, { ...about, origin: variable }, given);
  const created: string[] = [];
  return {
    ...server,
    async createDatabase(name) {
      const url = await server.createDatabase(name);
      created.push(name);
      return url;
    },
    async dispose() {
      for (const name of created.splice(0)) await queryRow(given, `drop database if exists ${quoteName(name)}`);
    },
  };
}

interface Description {
  readonly flavour: MysqlFlavour;
  readonly version: string;
  readonly origin: string;
  readonly serverId: number;
  readonly dataDir?: string;
}

function createServer(control: ServerControl, about: Description, given?: string): MysqlServer {
  const urlFor = (database: string): string => {
    const url = new URL(given ?? urlOf(control));
    url.pathname = `/${encodeURIComponent(database)}`;
    return url.href;
  };
  return {
    ...about,
    // A container's port may be another one after a restart: these are looked up each time.
    get url() {
      return given ?? urlOf(control);
    },
    get host() {
      return control.host;
    },
    get port() {
      return control.port;
    },
    get pid() {
      return control.pid;
    },
    urlFor,
    async createDatabase(name) {
      await queryRow(given ?? urlOf(control), `create database ${quoteName(name)}`);
      return urlFor(name);
    },
    stop: async (mode) => await control.stop(mode),
    kill: async () => await control.kill(),
    start: async () => await control.start(),
    dispose: async () => await control.dispose(),
  };
}

function urlOf({ host, port }: { readonly host: string; readonly port: number }): string {
  return `mysql://root@${host}:${port}/`;
}

async function describe(url: string): Promise<Omit<Description, 'origin'>> {
  // '9.7.4', '11.8.9-MariaDB-0+deb13u1'
  const [text, serverId] = await queryRow(url, 'select version(), @@server_id');
  const flavour = /mariadb/i.test(text ?? '') ? 'mariadb' : 'mysql';
  return { flavour, version: (text ?? '').split('-')[0] ?? '', serverId: Number(serverId) };
}
