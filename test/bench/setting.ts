/** The setting of all benchmarks: servers with equal settings, the workload and its sizes, the lines of the result. */
import { parseConfig } from '../../core/config.ts';
import { connectNats } from '../../core/nats.ts';
import { startNats } from '../../sandbox/nats.ts';
import { startPostgres } from '../../sandbox/postgres.ts';
import { Program, scalar, sql, until, withClient } from './contenders.ts';

const SETTINGS = {
  shared_buffers: '512MB',
  max_wal_size: '4GB',
  synchronous_commit: 'off',
  autovacuum: 'off',
  checkpoint_timeout: '30min',
  logical_decoding_work_mem: '64MB',
};

const args = process.argv.slice(2);
export const option = (name: string, otherwise: number): number =>
  args.includes(name) ? Number(args[args.indexOf(name) + 1]) : otherwise;
const chosen = args.filter((arg) => /^[a-z]+$/.test(arg));

/** Whether the command line asks for a benchmark; without a name it asks for all. */
export const wanted = (name: string): boolean => chosen.length === 0 || chosen.includes(name);
/** Whether the command line names a benchmark that takes too long to be among all. */
export const named = (name: string): boolean => chosen.includes(name);
export const scale = option('--scale', 1);
/** Rounds of each comparison: an even number, so that what the order of the contenders does cancels out. */
export const rounds = 2 * Math.ceil(option('--rounds', 4) / 2);
export const SMALL = Math.round(200_000 * scale);
export const LARGE = Math.round(1_000_000 * scale);
export const KEYS = 50_000;

/** To be followed by a table with the alias `t`: number and sum of its rows, for a comparison of databases. */
export const DIGEST =
  "select count(*) || ' ' || coalesce(sum(('x' || left(md5(t::text), 15))::bit(60)::bigint), 0) from";

export interface Line {
  readonly what: string;
  readonly native: string;
  readonly waybill: string;
  readonly ratio: string;
}
export const lines: Line[] = [];
export const say = (text: string): void => console.log(text);

export const source = await startPostgres({ version: 15, settings: SETTINGS });
export const target = await startPostgres({ version: 15, settings: SETTINGS });
export const nats = await startNats();
let serial = 0;

export type Kind = 'small' | 'insert' | 'update';
export const NAMES: Readonly<Record<Kind, string>> = {
  small: `${SMALL} one-row update transactions`,
  insert: `one transaction inserting ${LARGE} rows`,
  update: `one transaction updating ${LARGE} rows`,
};

/** A database of the source, and what names the slots, streams and databases that go with it. */
export interface Prepared {
  readonly serial: number;
  readonly name: string;
  readonly url: string;
  /** Prefix of what Waybill makes. */
  readonly prefix: string;
}

/** A source database with a table, its rows before the backlog, and the slots that the contenders read. */
export async function prepare(kind: Kind, large = LARGE): Promise<Prepared> {
  serial += 1;
  const name = `bench${serial}`;
  const url = await source.createDatabase(name);
  await sql(
    url,
    'create table items (id int primary key, sku text not null, qty numeric(12,2), note text, updated_at timestamptz)',
    'create publication native for table items',
    `create procedure small(n int) language plpgsql as $$ begin for i in 1..n loop update items set qty = i, updated_at = now() where id = 1 + (i::bigint * 7919) % ${KEYS}; commit; end loop; end $$`,
  );
  const rows = kind === 'small' ? KEYS : kind === 'update' ? large : 0;
  await sql(
    url,
    `insert into items select g, 'SKU-' || g, g % 100, repeat('n', 60), now() from generate_series(1, ${rows}) g`,
  );
  return { serial, name, url, prefix: `p${serial}` };
}

/** Writes the backlog, and a last small transaction behind it. Gives the position between the two. */
export async function backlog(url: string, kind: Kind, large = LARGE): Promise<string> {
  if (kind === 'small') await sql(url, `call small(${SMALL})`);
  else if (kind === 'insert')
    await sql(
      url,
      `insert into items select g, 'SKU-' || g, g % 100, repeat('n', 60), now() from generate_series(1, ${large}) g`,
    );
  else await sql(url, 'update items set qty = qty + 1, updated_at = now()');
  const end = await scalar(url, 'select pg_current_wal_insert_lsn()');
  await sql(url, 'update items set note = note where id = 1');
  return end;
}

/** Starts the stages once, so that slot, stream and position exist before the backlog, and stops them again. */
export async function primeWaybill(
  config: string,
  url: string,
  prefix: string,
  targetUrl: string | undefined,
): Promise<void> {
  const capture = Program.start(config, 'capture:bench');
  await until(
    'the slot',
    performance.now(),
    async () =>
      (await scalar(
        url,
        `select count(*) from pg_replication_slots where slot_name = '${prefix}_bench' and active`,
      )) === '1',
  );
  if (targetUrl !== undefined) {
    const apply = Program.start(config, 'apply:replica');
    await until(
      'the position',
      performance.now(),
      async () => (await scalar(targetUrl, `select to_regclass('waybill.position') is not null`)) === 'true',
    );
    await apply.stop();
  }
  await capture.stop();
}

/** Drops what Waybill made for one measurement: its slot, and its stream, which has disk reserved. */
export async function dropWaybill({ url, prefix }: Prepared): Promise<void> {
  const slot = `${prefix}_bench`;
  // The walsender lives on for a moment behind the process that it served.
  await until('the slot to be free', performance.now(), async () => {
    await sql(url, `select pg_drop_replication_slot('${slot}')`).catch((thrown: unknown) => {
      if ((thrown as { code?: string }).code !== '55006') throw thrown;
    });
    return (await scalar(url, `select count(*) from pg_replication_slots where slot_name = '${slot}'`)) === '0';
  });
  const connection = await connectNats(parseConfig(`version: 1\nnats: { servers: ["${nats.url}"] }`, {}).nats, 'bench');
  await connection.manager.streams.delete(`${prefix}_cdc_bench`);
  await connection.close();
}

/** Makes the table of the workload in a target, with the rows that the source has now. */
export async function copyTable(from: string, to: string, schema: string): Promise<void> {
  await sql(
    to,
    `create schema if not exists ${schema}`,
    `create table ${schema}.items (id int primary key, sku text not null, qty numeric(12,2), note text, updated_at timestamptz)`,
  );
  await copyRows(from, to, `${schema}.items`);
}

/** `COPY … TO STDOUT` of the source's rows, piped into `COPY … FROM STDIN`. */
export async function copyRows(from: string, to: string, table: string, of = 'items'): Promise<void> {
  const { to: copyTo, from: copyFrom } = await import('pg-copy-streams');
  const { pipeline } = await import('node:stream/promises');
  await withClient(from, (reader) =>
    withClient(to, (writer) =>
      pipeline(reader.query(copyTo(`copy ${of} to stdout`)), writer.query(copyFrom(`copy ${table} from stdin`))),
    ),
  );
}
