/** A target that the ERP is mirrored into, as a reader sees it. */
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import pg from 'pg';
import { parseGtidSet } from '../../core/gtid-position.ts';
import { compareGtidSets } from '../../core/gtid-set.ts';
import { parsePosition } from '../../core/position.ts';
import { checkErpInvariant } from '../../sandbox/demo/erp-invariant.ts';
import type { ErpMirror } from '../../sandbox/demo/erp-equality.ts';

type Row = Readonly<Record<string, unknown>>;

export class ErpTarget {
  readonly mirror: ErpMirror;
  readonly query: (sql: string) => Promise<Row[]>;
  readonly close: () => Promise<void>;

  private constructor(mirror: ErpMirror, query: ErpTarget['query'], close: () => Promise<void>) {
    this.mirror = mirror;
    this.query = query;
    this.close = close;
  }

  static async open(mirror: ErpMirror): Promise<ErpTarget> {
    if (mirror.kind === 'postgres') {
      const client = new pg.Client({ connectionString: mirror.url });
      client.on('error', () => undefined);
      await client.connect();
      const query = async (sql: string): Promise<Row[]> => (await client.query<Record<string, unknown>>(sql)).rows;
      return new ErpTarget(mirror, query, async () => await client.end());
    }
    const connection = await createConnection({ uri: mirror.url });
    connection.on('error', () => undefined);
    const query = async (sql: string): Promise<Row[]> => (await connection.query<RowDataPacket[]>(sql))[0];
    return new ErpTarget(mirror, query, async () => await Promise.resolve(connection.destroy()));
  }

  async invariant(): Promise<string[]> {
    const run = async (sql: string): Promise<{ problem: string }[]> => (await this.query(sql)) as { problem: string }[];
    return await checkErpInvariant(run, `${this.mirror.schema}.`);
  }

  /** Whether the target reflects a set of transactions. */
  async reflects(flavour: 'mysql' | 'mariadb', gtids: string): Promise<boolean> {
    const wanted = parseGtidSet(gtids, flavour)!;
    const [row] = await this.query('select position from waybill.position');
    const position = parsePosition(String(row?.['position']));
    if (position?.kind !== wanted.kind) return false;
    return ['equal', 'superset'].includes(compareGtidSets(position.gtids, wanted));
  }

  /** Looks at the invariant again and again until the signal aborts; gives how often, and what was wrong. */
  async watch(signal: AbortSignal): Promise<{ readonly looks: number; readonly broken: readonly string[] }> {
    const broken: string[] = [];
    let looks = 0;
    while (!signal.aborted) {
      broken.push(...(await this.invariant()));
      looks += 1;
      await new Promise((done) => setTimeout(done, 50));
    }
    return { looks, broken };
  }
}
