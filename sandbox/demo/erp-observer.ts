/** Watches the demo's ERP on MySQL or MariaDB and its mirror in Postgres. */
import { createConnection, type Connection, type RowDataPacket } from 'mysql2/promise';
import { parseGtidSet } from '../../core/gtid-position.ts';
import { compareGtidSets, type GtidSet } from '../../core/gtid-set.ts';
import { compareErp } from './erp-equality.ts';
import { checkErpInvariant } from './erp-invariant.ts';
import { ERP_TABLES } from './erp-schema.ts';
import { countRows, GrowthLog, openPostgres, readFlowPosition, readWrittenRows, type Observer } from './observer.ts';

/** Opens the observer's connections and begins to note how many transactions the source has executed. */
export async function createErpObserver(
  flavour: 'mysql' | 'mariadb',
  sourceUrl: string,
  targetUrl: string,
  flow: string,
  schema: string,
): Promise<Observer> {
  const source = await open(sourceUrl);
  const sampler = await open(sourceUrl);
  const target = await openPostgres(targetUrl);
  const growth = new GrowthLog(async () => countOf(await readExecuted(sampler, flavour)));
  const readTaken = async (): Promise<GtidSet | undefined> => {
    const position = await readFlowPosition(target, flow);
    return position?.kind === flavour ? position.gtids : undefined;
  };

  return {
    async observe() {
      const executed = await readExecuted(source, flavour);
      const taken = await readTaken();
      const counts = [];
      for (const table of ERP_TABLES) {
        const [[row]] = await source.query<RowDataPacket[]>(`select count(*) as n from ${table}`);
        counts.push({ table, source: Number(row!['n']), target: await countRows(target, schema, table) });
      }
      const behind = taken === undefined ? undefined : Math.max(0, Number(countOf(executed) - countOf(taken)));
      return {
        sourceAt: gtidText(executed),
        targetAt: taken === undefined ? '-' : gtidText(taken),
        behind: behind === undefined ? undefined : `${behind} transactions`,
        lagMs: taken === undefined ? undefined : growth.ageMs(countOf(taken)),
        replicatedRows: await readWrittenRows(target, schema),
        counts,
      };
    },
    checkTarget: async () =>
      await checkErpInvariant(async (sql) => (await target.query<{ problem: string }>(sql)).rows, `${schema}.`),
    async waitUntilCaughtUp(signal) {
      const executed = await readExecuted(source, flavour);
      for (;;) {
        const taken = await readTaken();
        if (taken !== undefined && ['equal', 'superset'].includes(compareGtidSets(taken, executed))) return;
        signal.throwIfAborted();
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
    compare: async () => await compareErp(sourceUrl, { kind: 'postgres', url: targetUrl, schema }),
    async close() {
      await growth.close();
      source.destroy();
      sampler.destroy();
      await target.end();
    },
  };
}

async function open(url: string): Promise<Connection> {
  const connection = await createConnection({ uri: url, connectTimeout: 10_000 });
  // Whatever the connection is asked after it broke rejects, which is enough.
  connection.on('error', () => undefined);
  return connection;
}

async function readExecuted(connection: Connection, flavour: 'mysql' | 'mariadb'): Promise<GtidSet> {
  const variable = flavour === 'mysql' ? 'gtid_executed' : 'gtid_binlog_pos';
  const [[row]] = await connection.query<RowDataPacket[]>(`select @@global.${variable} as gtids`);
  const set = parseGtidSet(String(row!['gtids']), flavour);
  if (set === undefined) throw new Error(`the source gave a GTID set that is none: ${String(row!['gtids'])}`);
  return set;
}

/** How many transactions a set stands for. */
function countOf(set: GtidSet): bigint {
  if (set.kind === 'mysql') return BigInt(set.size);
  return set.domains.reduce((sum, domain) => sum + BigInt(set.last(domain)!.seq), 0n);
}

/** A set with the UUIDs of servers cut to their last digits. */
function gtidText(set: GtidSet): string {
  const text = set.toString().replaceAll(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{8}([0-9a-f]{4})/gi, '…$1');
  return text === '' ? 'nothing' : text;
}
