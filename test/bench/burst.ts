/**
 * Bad rows in a burst: what a change of a good row takes to be seen in the target while ten thousand rows that break a
 * rule go to the quarantine, beside what it takes otherwise. Commits wait for their log, unlike in the other benchmarks: a
 * server sends what is in its log, and else writes it up to 400 ms later.
 */
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Program, scalar, sql, until, withClient } from './contenders.ts';
import { lines, nats, say, source, target } from './setting.ts';

const BAD = 10_000;
const PROBES = 60;
const WAITS = 'set synchronous_commit = on';

const MAP = `version: 1
name: burst
entities:
  inventory_position:
    from: stock
    fields:
      sku: sku
      location: { const: WH }
      lot: { const: '' }
      owner: { const: '' }
      uom: { const: EA }
      on_hand: quantity
`;

export async function benchBurst(): Promise<void> {
  const url = await source.createDatabase('burst_source');
  const storeUrl = await target.createDatabase('burst_store');
  const folder = await mkdtemp(join(tmpdir(), 'waybill-bench-'));
  const config = join(folder, 'waybill.yaml');
  await writeFile(join(folder, 'map.yaml'), MAP);
  await writeFile(
    config,
    JSON.stringify({
      version: 1,
      nats: { servers: [nats.url], prefix: 'burst', stream: { sync_interval: '0s', max_bytes: '1GB' } },
      sources: { bench: { kind: 'postgres', url, tables: ['public.stock'] } },
      targets: { store: { kind: 'postgres', url: storeUrl } },
      flows: { stock: { canonical: 'inventory_position', from: { bench: { map: './map.yaml' } }, to: 'store' } },
    }),
  );
  await sql(
    url,
    'create table stock (id int primary key, sku text not null, quantity numeric not null)',
    `insert into stock select i, 'SKU-' || i, 0 from generate_series(0, ${BAD}) i`,
  );
  const program = Program.start(config, 'capture:bench,transform:stock,apply:stock');
  const shown = (what: string): Promise<string> => scalar(storeUrl, what).catch(() => '0');
  await until('the first load', performance.now(), async () => {
    program.alive();
    return (await shown('select count(*) from canonical.inventory_position')) === String(BAD + 1);
  });
  let value = 0;
  /** Milliseconds from the commit of a change of the good row until the target shows it, the longest of several. */
  const longest = (probes: number): Promise<number> =>
    withClient(url, (writer) =>
      withClient(storeUrl, async (reader) => {
        await writer.query(WAITS);
        let most = 0;
        for (let probe = 0; probe < probes; probe++) {
          await writer.query('update stock set quantity = $1 where id = 0', [++value]);
          const committed = performance.now();
          for (;;) {
            const { rows } = await reader.query<{ on_hand: string }>(
              `select on_hand from canonical.inventory_position where tenant = 'default' and sku = 'SKU-0'`,
            );
            if (rows[0]?.on_hand === String(value)) break;
            await delay(2);
          }
          most = Math.max(most, performance.now() - committed);
        }
        return most;
      }),
    );
  await longest(PROBES);
  const quiet = await longest(PROBES);
  const delays: number[] = [];
  for (const [bad, held] of [
    [`'NaN'`, BAD],
    ['1', 0],
  ] as const) {
    await sql(url, WAITS, `update stock set quantity = ${bad} where id > 0`);
    delays.push(await longest(1));
    const count = `select count(*) from waybill.quarantine where flow = 'stock'`;
    await until(`${held} rows that are held`, performance.now(), async () => (await shown(count)) === String(held));
  }
  const usage = program.usage();
  await program.stop();
  await sql(url, `select pg_drop_replication_slot('burst_bench')`);
  const ms = (milliseconds: number): string => `${milliseconds.toFixed(0)} ms`;
  say(`burst: quiet ${ms(quiet)}, behind the burst ${ms(delays[0]!)}, behind its repair ${ms(delays[1]!)}`);
  lines.push({
    what: `a change behind ${BAD} bad rows of one transaction, and behind their repair, beside the longest of ${PROBES}`,
    native: ms(quiet),
    waybill: `${ms(delays[0]!)}, ${ms(delays[1]!)} (${usage.peakRssMb.toFixed(0)} MB)`,
    ratio: (Math.max(...delays) / quiet).toFixed(1),
  });
}
