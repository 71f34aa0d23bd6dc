/** A primary with a replica, by GTID, and what a DBA does when the primary dies. */
import { createConnection, type Connection, type RowDataPacket } from 'mysql2/promise';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { waitFor } from './wait.ts';

type Row = Readonly<Record<string, unknown>>;

export class ReplicaPair {
  readonly primary: MysqlServer;
  readonly replica: MysqlServer;

  private constructor(primary: MysqlServer, replica: MysqlServer) {
    this.primary = primary;
    this.replica = replica;
  }

  /** Starts both; the replica follows from the first transaction on, and accepts no writes. */
  static async start(flavour: MysqlServer['flavour']): Promise<ReplicaPair> {
    const [primary, replica] = await Promise.all([startMysql({ flavour }), startMysql({ flavour })]);
    const pair = new ReplicaPair(primary, replica);
    const { host, port } = primary;
    await pair.run(
      replica,
      'set global read_only = 1',
      ...(flavour === 'mysql'
        ? [
            `change replication source to source_host = '${host}', source_port = ${port}, source_user = 'root',
               source_auto_position = 1, get_source_public_key = 1, source_connect_retry = 1`,
            'start replica',
          ]
        : [
            `change master to master_host = '${host}', master_port = ${port}, master_user = 'root',
               master_use_gtid = slave_pos, master_connect_retry = 1`,
            'start slave',
          ]),
    );
    return pair;
  }

  get #words(): { readonly replica: string; readonly executed: string; readonly received: string } {
    return this.primary.flavour === 'mysql'
      ? { replica: 'replica', executed: '@@global.gtid_executed', received: 'Retrieved_Gtid_Set' }
      : { replica: 'slave', executed: '@@global.gtid_binlog_pos', received: 'Gtid_IO_Pos' };
  }

  async run(server: MysqlServer, ...statements: string[]): Promise<void> {
    await withConnection(server, async (connection) => {
      for (const statement of statements) await connection.query(statement);
    });
  }

  /** All that a server has in its log. */
  async executed(server: MysqlServer): Promise<string> {
    return await withConnection(server, async (connection) => {
      const [[row]] = await connection.query<RowDataPacket[]>(`select ${this.#words.executed} as gtids`);
      return String(row!['gtids']);
    });
  }

  /** Waits until the replica has executed all of a set. */
  async replicated(gtids: string): Promise<void> {
    await withConnection(this.replica, async (connection) => await this.#awaitExecuted(connection, gtids));
  }

  /** Stops the replica from receiving anything further. */
  async isolate(): Promise<void> {
    await this.run(this.replica, `stop ${this.#words.replica} io_thread`);
  }

  /** Kills the primary, lets the replica execute what had reached it, and makes it the one that accepts writes. */
  async failOver(): Promise<void> {
    await this.primary.kill();
    const { replica, received } = this.#words;
    await withConnection(this.replica, async (connection) => {
      const status = async (): Promise<Row> => {
        const [[row]] = await connection.query<RowDataPacket[]>(`show ${replica} status`);
        return row!;
      };
      // What is on its way is in the relay log once the receiving thread has noticed the end of the connection.
      await waitFor('the replica to notice', async () =>
        ['No', 'Connecting'].includes(
          String((await status())[`${replica === 'slave' ? 'Slave' : 'Replica'}_IO_Running`]),
        ),
      );
      const arrived = String((await status())[received]).replaceAll('\n', '');
      if (arrived !== '') await this.#awaitExecuted(connection, arrived);
      await connection.query(`stop ${replica}`);
      await connection.query(`reset ${replica} all`);
      await connection.query('set global read_only = 0');
    });
  }

  async #awaitExecuted(connection: Connection, gtids: string): Promise<void> {
    const wait = this.primary.flavour === 'mysql' ? 'wait_for_executed_gtid_set' : 'master_gtid_wait';
    const [[row]] = await connection.query<RowDataPacket[]>(`select ${wait}(?, 60) as result`, [gtids]);
    if (Number(row!['result']) !== 0) throw new Error(`the replica did not execute ${gtids} in time`);
  }

  async dispose(): Promise<void> {
    await Promise.all([this.primary.dispose(), this.replica.dispose()]);
  }
}

async function withConnection<T>(server: MysqlServer, work: (connection: Connection) => Promise<T>): Promise<T> {
  const connection = await createConnection({ uri: server.url });
  connection.on('error', () => undefined);
  try {
    return await work(connection);
  } finally {
    connection.destroy();
  }
}
