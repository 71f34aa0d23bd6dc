/** A broker and one server of each kind, for the tests of a file that go from any of them to any other. */
import { afterAll, afterEach, beforeAll } from 'vitest';
import type { Dialect } from '../../core/frame.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CrossPipeline } from './cross-pipeline.ts';

const TIMEOUT_MS = 240_000;

export class EveryServer {
  nats!: NatsServer;
  postgres!: PostgresServer;
  mysql!: MysqlServer;
  mariadb!: MysqlServer;
  readonly #open: { close(): Promise<void> }[] = [];

  /** To be called where hooks may be registered: starts the servers before the tests, and ends them afterwards. */
  static forThisFile(): EveryServer {
    const servers = new EveryServer();
    beforeAll(async () => {
      [servers.nats, servers.postgres, servers.mysql, servers.mariadb] = await Promise.all([
        startNats(),
        startPostgres(),
        startMysql({ flavour: 'mysql' }),
        startMysql({ flavour: 'mariadb' }),
      ]);
    }, TIMEOUT_MS);
    afterEach(async () => {
      for (const one of servers.#open.splice(0)) await one.close();
    }, TIMEOUT_MS);
    afterAll(async () => {
      const { nats, postgres, mysql, mariadb } = servers;
      await Promise.all([nats, postgres, mysql, mariadb].map(async (server) => await server?.dispose()));
    }, TIMEOUT_MS);
    return servers;
  }

  /** Closes something at the end of the test. */
  closing<T extends { close(): Promise<void> }>(one: T): T {
    this.#open.push(one);
    return one;
  }

  /** A pipeline from a database of one kind to one of another; not started. It is closed at the end of the test. */
  async pipeline(from: Dialect, to: Dialect, flow?: Record<string, unknown>): Promise<CrossPipeline> {
    return this.closing(await this.openPipeline(from, to, flow));
  }

  /** One that whoever opens it closes. */
  async openPipeline(from: Dialect, to: Dialect, flow: Record<string, unknown> = {}): Promise<CrossPipeline> {
    const side = (dialect: Dialect) => ({ dialect, server: this[dialect] });
    return await CrossPipeline.open({ from: side(from), to: side(to), nats: this.nats, flow });
  }
}
