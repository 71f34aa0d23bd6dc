import type { ServerControl } from './control.ts';
import { ContainerServer, type Containers } from './docker.ts';
import { isDefaultSeries, mysqlName, type MysqlFlavour, type MysqlKind } from './mysql-program.ts';
import { settingArguments, type MysqlSettings } from './mysql-settings.ts';

/** What a MySQL or MariaDB server in a container shall be. */
export interface MysqlContainerOptions {
  readonly kind: MysqlKind;
  readonly settings: MysqlSettings;
  readonly port: number | undefined;
  /** Throws unless a server answers there. */
  probe(address: { readonly host: string; readonly port: number }): Promise<unknown>;
}

/**
 * Starts MySQL or MariaDB in a container. The image is that of `WAYBILL_MYSQL_IMAGE` or `WAYBILL_MARIADB_IMAGE` for the
 * newest series, of `WAYBILL_MYSQL_8_4_IMAGE` or `WAYBILL_MARIADB_10_11_IMAGE` for the older, else the official one.
 */
export async function startMysqlContainer(
  containers: Containers,
  options: MysqlContainerOptions,
): Promise<{ readonly control: ServerControl; readonly image: string }> {
  const { kind, settings, port } = options;
  const { GenericContainer, Wait } = containers.kit;
  const image = imageOf(kind);
  const control = await ContainerServer.launch(
    containers,
    {
      name: `${mysqlName(kind.flavour)} of ${image}`,
      innerPort: 3306,
      create: () =>
        new GenericContainer(image)
          // Both let root in from everywhere then.
          .withEnvironment({ [emptyPassword[kind.flavour]]: '1' })
          .withCommand(settingArguments(settings))
          // The server that runs while the image makes its data folder says 'port: 0'.
          .withWaitStrategy(Wait.forLogMessage(/port: 3306\b/)),
      async probe(address) {
        await options.probe(address);
      },
      stopSignals: { fast: 'SIGTERM', immediate: 'SIGKILL' },
    },
    port,
  );
  return { control, image };
}

const emptyPassword: Readonly<Record<MysqlFlavour, string>> = {
  mysql: 'MYSQL_ALLOW_EMPTY_PASSWORD',
  mariadb: 'MARIADB_ALLOW_EMPTY_ROOT_PASSWORD',
};

function imageOf(kind: MysqlKind): string {
  const { flavour, series } = kind;
  const part = isDefaultSeries(kind) ? '' : `${series.replace('.', '_')}_`;
  const official = flavour === 'mysql' && isDefaultSeries(kind) ? 'mysql:9' : `${flavour}:${series}`;
  return process.env[`WAYBILL_${flavour.toUpperCase()}_${part}IMAGE`] || official;
}
