/**
 * Random changes of rows and definitions, transactions, reads of tables and restarts, on Postgres: what streaming built
 * equals what a fresh copy builds, in content and in definitions. `WAYBILL_FUZZ_SECONDS=600 WAYBILL_FUZZ_SEED=7` runs
 * it for longer, or again; `WAYBILL_FUZZ_STREAMING=on` has every transaction received while it is in progress.
 */
import { expect, test, beforeAll, afterAll } from 'vitest';
import { createRandom } from '../../sandbox/demo/random.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { SchemaCase } from '../support/schema-case.ts';
import { SchemaFuzz } from '../support/schema-fuzz.ts';

const SECONDS = Number(process.env['WAYBILL_FUZZ_SECONDS'] ?? 25);
const MOST_SEQUENCES = Number(process.env['WAYBILL_FUZZ_SEQUENCES'] ?? 24);

const STREAMING = process.env['WAYBILL_FUZZ_STREAMING'] === 'on';

let postgres: PostgresServer;
let natsServer: NatsServer;

beforeAll(async () => {
  [postgres, natsServer] = await Promise.all([
    // However small it is, a transaction is sent while it is in progress.
    startPostgres(STREAMING ? { settings: { debug_logical_replication_streaming: 'immediate' } } : {}),
    startNats(),
  ]);
}, 180_000);
afterAll(async () => {
  await Promise.all([postgres?.dispose(), natsServer?.dispose()]);
});

test(
  'what streaming built equals what a fresh copy builds',
  async () => {
    const seed = Number(process.env['WAYBILL_FUZZ_SEED'] ?? Math.floor(Math.random() * 1e6));
    process.stdout.write(`schema fuzz: seed ${seed}\n`);
    const untilMs = performance.now() + SECONDS * 1000;
    const random = createRandom(seed);
    const it = await SchemaCase.open(
      postgres,
      natsServer,
      'create table t0 (id int primary key, a text)',
      { dropped_columns: 'drop', dropped_tables: 'drop' },
      STREAMING ? { streaming: 'on' } : {},
    );
    let sequences = 0;
    const fuzz = new SchemaFuzz(it, random);
    try {
      do {
        await fuzz.sequence();
        try {
          await it.equal();
        } catch (thrown) {
          throw new Error(`seed ${seed}, sequence ${sequences}:\n${fuzz.log.slice(-40).join('\n')}`, { cause: thrown });
        }
        sequences += 1;
      } while (performance.now() < untilMs && sequences < MOST_SEQUENCES);
      if (STREAMING) await expectStreamed(it);
    } finally {
      await it.close();
    }
    process.stdout.write(`schema fuzz: ${sequences} sequences, ${fuzz.log.length} steps, ${fuzz.restarts} restarts\n`);
    expect(sequences).toBeGreaterThan(0);
  },
  SECONDS * 1000 + 180_000,
);

/** By the server's own count: the test would show nothing if all transactions were received at their commit. */
async function expectStreamed(it: SchemaCase): Promise<void> {
  const { rows } = await it.pipe.source.query<{ sent: string; all: string }>(
    'select sum(stream_txns)::text as sent, sum(total_txns)::text as all from pg_stat_replication_slots',
  );
  process.stdout.write(`schema fuzz: ${rows[0]!.sent} of ${rows[0]!.all} transactions sent in blocks\n`);
  expect(Number(rows[0]!.sent)).toBeGreaterThan(0);
}
