/** A Postgres database as the target of a flow that is fed by hand. */
import { randomUUID } from 'node:crypto';
import { Client } from 'pg';
import { readPositions } from '../../apply/postgres/position.ts';
import { createPostgresStore } from '../../apply/postgres/store.ts';
import type { PostgresServer } from '../../sandbox/postgres.ts';
import { FrameFeed } from './frame-feed.ts';

export class PostgresTarget {
  readonly client: Client;
  readonly feed: FrameFeed;

  private constructor(client: Client, feed: FrameFeed) {
    this.client = client;
    this.feed = feed;
  }

  /** A database of its own, and a stream. `user`: of the flow, in place of the superuser. */
  static async open(
    server: PostgresServer,
    natsUrl: string,
    flow: Record<string, unknown> = {},
    user?: string,
  ): Promise<PostgresTarget> {
    const url = await server.createDatabase(`apply_${randomUUID().slice(0, 8)}`);
    const client = new Client({ connectionString: url });
    client.on('error', () => undefined);
    await client.connect();
    const feed = await FrameFeed.open({
      natsUrl,
      target: {
        kind: 'postgres',
        url: user === undefined ? url : Object.assign(new URL(url), { username: user }).href,
      },
      flow,
      createStore: createPostgresStore,
      readPosition: async () => (await readPositions(client))[0]?.position,
    });
    return new PostgresTarget(client, feed);
  }

  async rows(sql: string): Promise<unknown[]> {
    const { rows } = await this.client.query({ text: sql, rowMode: 'array' });
    return rows;
  }

  async close(): Promise<void> {
    await this.feed.close();
    await this.client.end().catch(() => undefined);
  }
}
