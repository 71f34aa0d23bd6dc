/** A server whose commits wait for a synchronous standby that there is not. */
import pg from 'pg';
import { waitFor } from './wait.ts';

export class NobodyStandby {
  readonly #url: string;
  readonly #client: pg.Client;
  readonly #writers: { readonly client: pg.Client; readonly written: Promise<unknown> }[] = [];
  #released = false;

  private constructor(url: string, client: pg.Client) {
    this.#url = url;
    this.#client = client;
  }

  /** `url`: of a database of the server, of a superuser. */
  static async name(url: string): Promise<NobodyStandby> {
    const client = await connect(url);
    await client.query(`alter system set synchronous_standby_names = 'nobody'`);
    await client.query('select pg_reload_conf()');
    return new NobodyStandby(url, client);
  }

  /** Runs a statement that may be run twice; resolves when its commit waits, which is in the log by then. */
  async commit(sql: string): Promise<void> {
    const client = await connect(this.#url);
    await client.query('set synchronous_commit = on');
    const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
    let done = true;
    let written: Promise<unknown> = Promise.resolve();
    await waitFor('a commit to wait for a standby', async () => {
      // The server may not know of the standby yet.
      if (done) {
        done = false;
        written = client.query(sql).finally(() => (done = true));
        written.catch(() => undefined);
      }
      const waits = await this.#client.query(
        `select from pg_stat_activity where pid = $1 and wait_event = 'SyncRep' and query = $2`,
        [rows[0]!.pid, sql],
      );
      return waits.rowCount === 1;
    });
    this.#writers.push({ client, written });
  }

  /** Commits that wait. */
  async waiting(): Promise<number> {
    const { rows } = await this.#client.query(`select from pg_stat_activity where wait_event = 'SyncRep'`);
    return rows.length;
  }

  /** Names no standby any more: what waits goes on. For the second time it does nothing. */
  async release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    await this.#client.query('alter system reset synchronous_standby_names');
    await this.#client.query('select pg_reload_conf()');
    for (const { client, written } of this.#writers.splice(0)) {
      await written;
      await client.end();
    }
    await this.#client.end();
  }
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}
