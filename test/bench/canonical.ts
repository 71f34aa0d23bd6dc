/**
 * Records against a mirror of the same rows: the backlog stands in the stream of the source, and what is timed is the
 * transform and the apply of positions of stock, and the apply of the table as it is. Both write every change: a row changes
 * again only when all others have, and the mirror has batches as small as those of records, so that none holds a row twice.
 * The clock runs from the first change that a target shows: a transform that starts reads its state back, which takes as
 * long however much there is to do.
 */
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '../../core/config.ts';
import { connectNats } from '../../core/nats.ts';
import { median, Program, scalar, sql, until, untilTrue } from './contenders.ts';
import { lines, nats, rounds, say, scale, source, target } from './setting.ts';

const ROWS = Math.round(100_000 * scale);
const PASSES = 3;
const BLOCK = 500;
/** A position takes 1.9 KB of what a transform keeps, or a larger scale is refused. */
const STATE_MB = Math.max(256, Math.ceil(ROWS / 400));

const MAP = `version: 1
name: bench
entities:
  inventory_position:
    from: stock
    fields:
      sku: sku
      location: place
      lot: { const: '' }
      owner: { const: '' }
      uom: { const: EA }
      on_hand: quantity
      allocated: reserved
`;

export async function benchCanonical(): Promise<void> {
  const ratios: number[] = [];
  const mirrored: number[] = [];
  const mapped: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const prefix = `canon${round}`;
    const url = await source.createDatabase(`${prefix}_source`);
    const storeUrl = await target.createDatabase(`${prefix}_store`);
    const folder = await mkdtemp(join(tmpdir(), 'waybill-bench-'));
    const config = join(folder, 'waybill.yaml');
    await writeFile(join(folder, 'map.yaml'), MAP);
    await writeFile(
      config,
      JSON.stringify({
        version: 1,
        nats: { servers: [nats.url], prefix, stream: { sync_interval: '0s', max_bytes: '2GB' } },
        sources: { bench: { kind: 'postgres', url, tables: ['public.stock'] } },
        targets: { store: { kind: 'postgres', url: storeUrl } },
        flows: {
          replica: { mirror: 'bench', to: 'store', schema: 'replica', batch_bytes: '4MB' },
          stock: {
            canonical: 'inventory_position',
            from: { bench: { map: './map.yaml' } },
            to: 'store',
            state_bytes: `${STATE_MB}MB`,
          },
        },
      }),
    );
    await sql(
      url,
      'create table stock (id int primary key, sku text not null, place text not null, quantity numeric(12,3) not null, reserved numeric(12,3) not null)',
      `insert into stock select i, 'SKU-' || i, 'WH/' || i % 20, i % 100, 0 from generate_series(1, ${ROWS}) i`,
      `create procedure churn() language plpgsql as $$ begin for turn in 1..${PASSES} loop for block in 0..${ROWS - 1} by ${BLOCK} loop
         update stock set quantity = quantity + turn, reserved = turn where id > block and id <= block + ${BLOCK}; commit;
       end loop; end loop; end $$`,
    );
    // The first load is in both targets before anything is timed.
    const all = 'capture:bench,apply:replica,transform:stock,apply:stock';
    const first = Program.start(config, all);
    const count = (table: string, where = 'true'): Promise<string> =>
      scalar(storeUrl, `select count(*) from ${table} where ${where}`).catch(() => '0');
    for (const table of ['replica.stock', 'canonical.inventory_position'])
      await until(table, performance.now(), async () => {
        // One that has ended says why, and nothing is to be waited for.
        first.alive();
        return (await count(table)) === String(ROWS);
      });
    await first.stop();
    const capture = Program.start(config, 'capture:bench');
    await sql(url, 'call churn()');
    await captured(url, prefix);
    await capture.stop();

    const used: string[] = [];
    // The row that was changed last is looked up by its key, since counting all of them takes a good part of a core.
    const timed = async (
      stages: string[],
      table: string,
      keyOf: (id: number) => string,
      changed: string,
    ): Promise<number> => {
      const started = performance.now();
      const programs = stages.map((stage) => Program.start(config, stage));
      const shows = (id: number, turn: number): string =>
        `select (select ${changed} >= ${turn} from ${table} where ${keyOf(id)})`;
      const startup = await untilTrue(table, started, storeUrl, shows(1, 1));
      const seconds = (await untilTrue(table, started, storeUrl, shows(ROWS, PASSES))) - startup;
      const usage = programs
        .map((program) => program.usage())
        .map(({ cpuSeconds, peakRssMb }) => `${cpuSeconds.toFixed(1)} s of CPU, ${peakRssMb.toFixed(0)} MB`)
        .join(' + ');
      used.push(`${startup.toFixed(2)} s to begin, ${usage}`);
      for (const program of programs) await program.stop();
      const done = await count(table, `${changed} = ${PASSES}`);
      if (done !== String(ROWS)) throw new Error(`${table} has ${done} of ${ROWS} rows as they are to be`);
      return seconds;
    };
    const mirror = (): Promise<number> => timed(['apply:replica'], 'replica.stock', (id) => `id = ${id}`, 'reserved');
    const records = (): Promise<number> =>
      timed(
        ['transform:stock', 'apply:stock'],
        'canonical.inventory_position',
        (id) => `tenant = 'default' and sku = 'SKU-${id}'`,
        'allocated',
      );
    let m: number;
    let r: number;
    if (round % 2 === 0) {
      m = await mirror();
      r = await records();
    } else {
      r = await records();
      m = await mirror();
    }
    say(`canonical ${prefix}: mirror ${m.toFixed(2)} s, records ${r.toFixed(2)} s (${used.join('; ')})`);
    ratios.push(m / r);
    mirrored.push(m);
    mapped.push(r);
    await drop(url, prefix);
  }
  const changes = ROWS * PASSES;
  lines.push({
    what: `records: ${changes} changes of stock, mirror beside transform and apply`,
    native: `${median(mirrored).toFixed(2)} s`,
    waybill: `${median(mapped).toFixed(2)} s, ${Math.round(changes / median(mapped))}/s`,
    ratio: median(ratios).toFixed(2),
  });
}

/** Waits until the slot has confirmed everything that was written. */
async function captured(url: string, prefix: string): Promise<void> {
  const end = await scalar(url, 'select pg_current_wal_insert_lsn()');
  await until(
    'the capture',
    performance.now(),
    async () =>
      (await scalar(
        url,
        `select confirmed_flush_lsn >= '${end}' from pg_replication_slots where slot_name = '${prefix}_bench'`,
      )) === 'true',
  );
}

async function drop(url: string, prefix: string): Promise<void> {
  await sql(url, `select pg_drop_replication_slot('${prefix}_bench')`);
  const connection = await connectNats(parseConfig(`version: 1\nnats: { servers: ["${nats.url}"] }`, {}).nats, 'bench');
  for (const stream of ['cdc_bench', 'canonical_inventory_position'])
    await connection.manager.streams.delete(`${prefix}_${stream}`);
  await connection.close();
}
