import type { ServerControl } from './control.ts';
import { ContainerServer, type Containers } from './docker.ts';
import { settingsText } from './postgres-data.ts';
import type { PostgresMajor } from './postgres-programs.ts';

/** What a PostgreSQL server in a container shall be. */
export interface PostgresContainerOptions {
  readonly major: PostgresMajor;
  readonly settings: Readonly<Record<string, string>>;
  readonly port: number | undefined;
  /** Throws unless a server answers there. */
  probe(address: { readonly host: string; readonly port: number }): Promise<unknown>;
}

/**
 * Starts PostgreSQL in a container. The image is that of `WAYBILL_POSTGRES_IMAGE` for version 18, of
 * `WAYBILL_POSTGRES_15_IMAGE` for 15 and so on, else the official one.
 */
export async function startPostgresContainer(
  containers: Containers,
  options: PostgresContainerOptions,
): Promise<{ readonly control: ServerControl; readonly image: string }> {
  const { major, settings, port } = options;
  const { GenericContainer, Wait } = containers.kit;
  const variable = major === 18 ? 'WAYBILL_POSTGRES_IMAGE' : `WAYBILL_POSTGRES_${major}_IMAGE`;
  const image = process.env[variable] || `postgres:${major}`;
  // Read by the image's entry point after initdb, before the real start. The socket it uses until then stays.
  const text = settingsText({ ...settings, listen_addresses: '*' }, ['unix_socket_directories', 'port']);
  const script = `cat >>"$PGDATA/postgresql.conf" <<'WAYBILL'\n${text}WAYBILL\n`;
  const control = await ContainerServer.launch(
    containers,
    {
      name: `PostgreSQL of ${image}`,
      innerPort: 5432,
      create: () =>
        new GenericContainer(image)
          .withEnvironment({ POSTGRES_HOST_AUTH_METHOD: 'trust', POSTGRES_INITDB_ARGS: '--no-sync --wal-segsize=1' })
          .withCopyContentToContainer([{ content: script, target: '/docker-entrypoint-initdb.d/waybill.sh' }])
          .withSharedMemorySize(256 * 1024 * 1024)
          .withWaitStrategy(Wait.forLogMessage(/PostgreSQL init process complete/)),
      async probe(address) {
        await options.probe(address);
      },
      stopSignals: { fast: 'SIGINT', immediate: 'SIGQUIT' },
    },
    port,
  );
  return { control, image };
}
