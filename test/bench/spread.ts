/**
 * The same small transactions on one table and spread over many, against native logical replication: what a batch costs for
 * each table that is in it.
 */
import { drain, report, type Drained } from './drain.ts';
import { copyRows, lines, option, prepare, rounds, say, SMALL, type Prepared } from './setting.ts';
import { median, sql } from './contenders.ts';

const MANY = option('--tables', 1000);
/** Rows of all tables together. */
const ROWS = 50_000;
const COLUMNS = 'id int primary key, sku text not null, qty numeric(12,2), note text, updated_at timestamptz';

export async function benchSpread(): Promise<void> {
  const few: Drained[] = [];
  const many: Drained[] = [];
  for (let round = 0; round < rounds; round++)
    for (const tables of round % 2 === 0 ? [1, MANY] : [MANY, 1]) {
      const prepared = await prepareTables(tables);
      const drained = await drain(round, {
        prepared,
        changes: SMALL,
        tables: 'public.*',
        copyTo: (to, schema) => copyTables(prepared, tables, to, schema),
        backlog: () => sql(prepared.url, `call spread(${SMALL})`, 'update t1 set note = note where id = 1'),
        lastRow: (schema) =>
          `select coalesce((select qty = ${SMALL} from ${schema}.t${tableOf(SMALL, tables)} where id = ${rowOf(SMALL, tables)}), false)`,
        digest,
      });
      say(
        `spread ${prepared.name}: ${tables} tables, native ${drained.native.toFixed(2)} s, waybill ${drained.waybill.toFixed(2)} s`,
      );
      (tables === 1 ? few : many).push(drained);
    }
  report(`drain: ${SMALL} one-row update transactions on one table`, few);
  report(`drain: the same, spread over ${MANY} tables`, many);
  const ratio = (of: 'native' | 'waybill'): number => median(few.map((one, round) => one[of] / many[round]![of]));
  lines.push({
    what: `  one table against ${MANY}, by native replication and by Waybill`,
    native: ratio('native').toFixed(2),
    waybill: ratio('waybill').toFixed(2),
    ratio: '',
  });
}

/** The table of a change, and the row: of every table all rows take their turn. */
function tableOf(change: number, tables: number): number {
  return 1 + (change % tables);
}

function rowOf(change: number, tables: number): number {
  return 1 + (Math.floor(change / tables) % (ROWS / tables));
}

async function prepareTables(tables: number): Promise<Prepared> {
  const prepared = await prepare('insert');
  await sql(
    prepared.url,
    'drop table items',
    'drop publication native',
    `do $$ begin for i in 1..${tables} loop
       execute format('create table t%s (${COLUMNS})', i);
       execute format('insert into t%s select g, ''SKU-'' || g, 0, repeat(''n'', 60), now() from generate_series(1, ${ROWS / tables}) g', i);
     end loop; end $$`,
    'create publication native for all tables',
    `create procedure spread(n int) language plpgsql as $$ begin for i in 1..n loop
       execute format('update t%s set qty = $1, updated_at = now() where id = $2', 1 + i % ${tables}) using i, 1 + (i / ${tables}) % ${ROWS / tables};
       commit;
     end loop; end $$`,
  );
  return prepared;
}

async function copyTables({ url }: Prepared, tables: number, to: string, schema: string): Promise<void> {
  await sql(
    to,
    `create schema if not exists ${schema}`,
    `do $$ begin for i in 1..${tables} loop execute format('create table ${schema}.t%s (${COLUMNS})', i); end loop; end $$`,
  );
  for (let table = 1; table <= tables; table++) await copyRows(url, to, `${schema}.t${table}`, `t${table}`);
}

/** Number and sum of the rows of all tables of a schema. */
function digest(schema: string): string {
  const each = `select count(*) as n, coalesce(sum((''x'' || left(md5(t::text), 15))::bit(60)::bigint), 0) as s from ${schema}.%I t`;
  const value = (name: string): string => `(xpath('/row/${name}/text()', x))[1]::text::numeric`;
  return `select sum(${value('n')}) || ' ' || sum(${value('s')})
            from pg_tables, lateral query_to_xml(format('${each}', tablename), true, true, '') x
           where schemaname = '${schema}' and tablename ~ '^t[0-9]'`;
}
