/**
 * Random changes of rows and definitions, transactions, reads of tables and restarts, on Postgres: what streaming built
 * equals what a fresh copy builds, in content and in definitions. `WAYBILL_FUZZ_SECONDS=600 WAYBILL_FUZZ_SEED=7` runs
 * it for longer, or again, with a capture that is killed and with more kinds of statements; `WAYBILL_FUZZ_STREAMING=on` has every transaction received while it is
 * in progress.
 */
import { expect, test, beforeAll, afterAll } from 'vitest';
import { createRandom } from '../../sandbox/demo/random.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { FuzzedTables } from '../support/fuzzed-tables.ts';
import { SchemaCase } from '../support/schema-case.ts';
import { SchemaFuzz } from '../support/schema-fuzz.ts';

const SECONDS = Number(process.env['WAYBILL_FUZZ_SECONDS'] ?? 25);
const MOST_SEQUENCES = Number(process.env['WAYBILL_FUZZ_SEQUENCES'] ?? 24);
/** With a capture that is killed, and statements about whole tables. A process takes a second to start: not in every test. */
const THOROUGH = process.env['WAYBILL_FUZZ_SECONDS'] !== undefined;
/** An ordinary run does the same each time; a thorough one looks for what nobody has seen yet. */
const SEED = 20261201;
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
    const seed = Number(process.env['WAYBILL_FUZZ_SEED'] ?? (THOROUGH ? Math.floor(Math.random() * 1e6) : SEED));
    process.stdout.write(`schema fuzz: seed ${seed}\n`);
    const untilMs = performance.now() + SECONDS * 1000;
    const random = createRandom(seed);
    const it = await SchemaCase.open(
      postgres,
      natsServer,
      FuzzedTables.ddl,
      {
        dropped_columns: 'drop',
        dropped_tables: 'drop',
        renamed_tables: 'rename',
        // A schema of the same name, and of another one.
        ...(seed % 2 === 0 ? {} : { schema: 'mirrored' }),
      },
      // Tables take several chunks, by several connections.
      { tables: ['public.*'], snapshot_chunk_rows: 100, ...(STREAMING ? { streaming: 'on' } : {}) },
    );
    let sequences = 0;
    const fuzz = await SchemaFuzz.open(it, random, { thorough: THOROUGH });
    try {
      do {
        try {
          await fuzz.sequence();
          await fuzz.equal();
        } catch (cause) {
          throw new Error(`seed ${seed}, sequence ${sequences}`, { cause });
        }
        sequences += 1;
      } while (performance.now() < untilMs && sequences < MOST_SEQUENCES);
      if (STREAMING) await expectStreamed(it);
    } finally {
      await fuzz.close();
      await it.close();
    }
    const { log, restarts, kills } = fuzz;
    process.stdout.write(
      `schema fuzz: ${sequences} sequences, ${log.length} steps, ${restarts} restarts, ${kills} kills\n`,
    );
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
