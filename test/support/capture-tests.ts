/** What tests of Postgres captures share: a broker, and servers, sources and writers that end when they are not needed. */
import { afterAll, afterEach, beforeAll } from 'vitest';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresOptions, type PostgresServer } from '../../sandbox/postgres.ts';
import { repeat, Source, timeoutMs, type Loop } from './postgres-source.ts';

export class CaptureTests {
  nats!: NatsServer;
  readonly #servers: { dispose(): Promise<void> }[] = [];
  readonly #sources: Source[] = [];
  readonly #loops: Loop[] = [];

  /** To be called where hooks may be registered. */
  static forThisFile(): CaptureTests {
    const tests = new CaptureTests();
    beforeAll(async () => {
      tests.nats = await tests.broker();
    }, timeoutMs);
    afterEach(async () => {
      for (const one of tests.#loops.splice(0)) await one.stop().catch(() => {});
      for (const source of tests.#sources.splice(0)) await source.close();
    }, timeoutMs);
    afterAll(async () => {
      await Promise.all(tests.#servers.splice(0).map((server) => server.dispose()));
    }, timeoutMs);
    return tests;
  }

  /** A broker of its own until the end of the file, for a test that does something to it. */
  async broker(): Promise<NatsServer> {
    const broker = await startNats();
    this.#servers.push(broker);
    return broker;
  }

  /** A server until the end of the file. */
  async server(options: PostgresOptions): Promise<PostgresServer> {
    const server = await startPostgres(options);
    this.#servers.push(server);
    return server;
  }

  /** A source in a database of its own, until the end of the test. */
  async open(
    server: PostgresServer,
    name: string,
    settings: Record<string, unknown> = {},
    broker = this.nats,
  ): Promise<Source> {
    const source = await Source.open(name, await server.createDatabase(name), broker, settings);
    this.#sources.push(source);
    return source;
  }

  /** Closes a source when the test ends. */
  async adopt(source: Source): Promise<Source> {
    this.#sources.push(source);
    return source;
  }

  /** Repeats `step` until it is stopped, at the latest when the test ends. */
  loop(step: (n: number) => Promise<void>): Loop {
    const made = repeat(step);
    this.#loops.push(made);
    return made;
  }
}
