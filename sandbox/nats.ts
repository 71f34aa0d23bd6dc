import { randomUUID } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { firstOf } from './choice.ts';
import { foreignControl, type ServerControl } from './control.ts';
import { ContainerServer, findContainers, type Containers } from './docker.ts';
import { giveToServer } from './identity.ts';
import { NativeServer } from './native-server.ts';
import { cachedNats, fetchedNats, installedNats, type NatsProgram } from './nats-program.ts';
import { Fatal } from './process.ts';

/** What a NATS server shall be. */
export interface NatsOptions {
  /** Whether JetStream is on; true if left out. */
  readonly jetstream?: boolean;
  /** The port to use, a free one if left out. */
  readonly port?: number;
  readonly config?: NatsConfig;
  /** The environment variable that may hold the URL of a server to use instead: `WAYBILL_TEST_NATS_URL`. */
  readonly env?: string;
  /** Is told, in one line, where the server came from. */
  readonly log?: (line: string) => void;
}

/** Settings of the server; what is left out is as the server has it. */
export interface NatsConfig {
  /** The largest message, in bytes. */
  readonly maxPayload?: number;
  /** How often JetStream syncs its files: 'always', or a duration like '10s'. */
  readonly syncInterval?: 'always' | (string & {});
  /** Bytes that all streams may take; more than anybody has if left out. */
  readonly maxFileStore?: number;
  /** Further lines of the configuration file. */
  readonly lines?: readonly string[];
}

/**
 * By itself a server lets streams reserve three quarters of what its disk has left; a few streams of tests, which never
 * take what they reserve, would be too many where that is a disk in memory.
 */
const ROOM_BYTES = 2 ** 40;

/** A running NATS server. */
export interface NatsServer extends ServerControl {
  readonly url: string;
  /** '2.15.1' */
  readonly version: string;
  /** Where the server came from, for people: 'Debian sid nats-server 2.15.1-1'. */
  readonly origin: string;
  /** JetStream's folder; undefined without it and for a server that runs elsewhere. */
  readonly storeDir?: string;
}

/**
 * Starts a private NATS server; resolves when it, and JetStream if wanted, answers.
 *
 * @throws ServerUnavailableError if none can be had on this machine
 * @throws PortTakenError if the port asked for is in use
 */
export async function startNats(options: NatsOptions = {}): Promise<NatsServer> {
  const given = options.env === undefined ? undefined : process.env[options.env];
  const server = given ? await useForeign(given, options) : await startOwn(options);
  options.log?.(`NATS ${server.version} on ${server.host}:${server.port}: ${server.origin}`);
  return server;
}

async function startOwn(options: NatsOptions): Promise<NatsServer> {
  const found = await firstOf<NatsProgram | Containers>(
    [
      { name: 'nats-server on PATH', kind: 'native', find: installedNats },
      { name: 'cache of Debian packages', kind: 'native', find: cachedNats },
      { name: 'Docker', kind: 'docker', find: findContainers },
      { name: 'fetching the Debian package', kind: 'native', find: fetchedNats },
    ],
    'NATS',
    'Install nats-server 2.14 or later on PATH, or Docker, or run on a Debian that reaches its mirror.',
  );
  return 'path' in found ? await startNative(found, options) : await startContainer(found, options);
}

async function startNative(program: NatsProgram, options: NatsOptions): Promise<NatsServer> {
  const { jetstream = true, config = {}, port } = options;
  const storeOf = (folder: string): string => join(folder, 'store');
  const configOf = (folder: string): string => join(folder, 'nats.conf');
  const name = `waybill-${randomUUID()}`;
  const control = await NativeServer.launch(
    {
      name: `NATS ${program.version}`,
      async prepare({ folder, port }) {
        await giveToServer(folder);
        await mkdir(storeOf(folder));
        await giveToServer(storeOf(folder));
        const store = jetstream ? storeOf(folder) : undefined;
        await writeFile(configOf(folder), configText({ name, listen: `127.0.0.1:${port}`, store, config }));
      },
      command: ({ folder }) => ({ file: program.path, args: ['-c', configOf(folder)] }),
      async probe({ port }) {
        const answer = await probe(urlOf({ host: '127.0.0.1', port }), jetstream);
        if (answer.name !== name) throw new Fatal(new Error(`port ${port} answers for another server: ${answer.name}`));
      },
      stopSignals: { fast: 'TERM', immediate: 'KILL' },
      orphanSignal: 'KILL',
    },
    port,
  );
  const { version, origin } = program;
  return createServer(control, { version, origin, ...(jetstream ? { storeDir: storeOf(control.folder) } : {}) });
}

async function startContainer(containers: Containers, options: NatsOptions): Promise<NatsServer> {
  const { jetstream = true, config = {}, port } = options;
  const { GenericContainer, Wait } = containers.kit;
  const image = process.env['WAYBILL_NATS_IMAGE'] || 'nats:2.15';
  const store = jetstream ? '/data' : undefined;
  const content = configText({ name: `waybill-${randomUUID()}`, listen: '0.0.0.0:4222', store, config });
  const control = await ContainerServer.launch(
    containers,
    {
      name: `NATS of ${image}`,
      innerPort: 4222,
      create: () =>
        new GenericContainer(image)
          .withCopyContentToContainer([{ content, target: '/waybill.conf' }])
          .withCommand(['-c', '/waybill.conf'])
          .withWaitStrategy(Wait.forLogMessage(/Server is ready/)),
      async probe(address) {
        await probe(urlOf(address), jetstream);
      },
      stopSignals: { fast: 'SIGTERM', immediate: 'SIGKILL' },
    },
    port,
  );
  const { version } = await probe(urlOf(control), jetstream);
  return createServer(control, { version, origin: `Docker image ${image}` });
}

async function useForeign(given: string, options: NatsOptions): Promise<NatsServer> {
  const variable = options.env ?? '';
  const { version } = await probe(given, options.jetstream ?? true);
  const control = foreignControl(new URL(given.includes('://') ? given : `nats://${given}`), 4222, variable);
  return { ...control, url: given, version, origin: variable };
}

function createServer(
  control: ServerControl,
  about: { readonly version: string; readonly origin: string; readonly storeDir?: string },
): NatsServer {
  return {
    ...about,
    // A container's port may be another one after a restart: these are looked up each time.
    get url() {
      return urlOf(control);
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
    stop: async (mode) => await control.stop(mode),
    kill: async () => await control.kill(),
    start: async () => await control.start(),
    dispose: async () => await control.dispose(),
  };
}

interface ConfigParts {
  readonly name: string;
  readonly listen: string;
  readonly store: string | undefined;
  readonly config: NatsConfig;
}

function configText({ name, listen, store, config }: ConfigParts): string {
  const lines = [`server_name: ${JSON.stringify(name)}`, `listen: ${JSON.stringify(listen)}`];
  if (config.maxPayload !== undefined) lines.push(`max_payload: ${config.maxPayload}`);
  if (store !== undefined) {
    const sync = config.syncInterval === undefined ? '' : `, sync_interval: ${JSON.stringify(config.syncInterval)}`;
    const room = `, max_file_store: ${config.maxFileStore ?? ROOM_BYTES}`;
    lines.push(`jetstream: { store_dir: ${JSON.stringify(store)}${sync}${room} }`);
  }
  lines.push(...(config.lines ?? []));
  return `${lines.join('\n')}\n`;
}

function urlOf({ host, port }: { readonly host: string; readonly port: number }): string {
  return `nats://${host}:${port}`;
}

/** Who answers; throws if nobody does, or JetStream not yet. */
async function probe(url: string, jetstream: boolean): Promise<{ name: string; version: string }> {
  const { username, password } = url.includes('://') ? new URL(url) : { username: '', password: '' };
  const login = username === '' ? {} : { user: decodeURIComponent(username), pass: decodeURIComponent(password) };
  const connection = await connect({ servers: url, ...login, reconnect: false, timeout: 10_000 });
  try {
    if (jetstream) await (await jetstreamManager(connection)).getAccountInfo();
    return { name: connection.info?.server_name ?? '', version: connection.info?.version ?? '' };
  } finally {
    await connection.close();
  }
}
