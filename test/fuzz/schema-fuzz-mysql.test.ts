/**
 * As test/fault/schema-fuzz.test.ts, on MySQL and MariaDB, with stages that are killed: what streaming built equals what a fresh
 * copy builds, in content and in definitions.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createRandom } from '../../sandbox/demo/random.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { MysqlSchemaFuzz } from '../support/schema-fuzz-mysql.ts';

const SECONDS = Number(process.env['WAYBILL_FUZZ_SECONDS'] ?? 8);
const MOST_SEQUENCES = Number(process.env['WAYBILL_FUZZ_SEQUENCES'] ?? 4);

let natsServer: NatsServer;
let servers: MysqlServer[] = [];

beforeAll(async () => {
  [natsServer, ...servers] = await Promise.all([
    startNats(),
    startMysql({ flavour: 'mysql', version: '9.7' }),
    startMysql({ flavour: 'mariadb', version: '10.11' }),
  ]);
}, 180_000);
afterAll(async () => {
  await Promise.all([natsServer?.dispose(), ...servers.map((server) => server.dispose())]);
});

test(
  'what streaming built equals what a fresh copy builds, on both servers',
  async () => {
    const given = Number(process.env['WAYBILL_FUZZ_SEED'] ?? Math.floor(Math.random() * 1e6));
    const outcomes = await Promise.allSettled(servers.map((server) => run(server, given)));
    const reasons = outcomes
      .filter(({ status }) => status === 'rejected')
      .map((each) => (each as PromiseRejectedResult).reason as unknown);
    if (reasons.length > 1) throw new AggregateError(reasons, 'both servers');
    if (reasons.length > 0) throw reasons[0];
  },
  SECONDS * 1000 + 180_000,
);

async function run(server: MysqlServer, seed: number): Promise<void> {
  process.stdout.write(`schema fuzz on ${server.flavour}: seed ${seed}\n`);
  const untilMs = performance.now() + SECONDS * 1000;
  const fuzz = await MysqlSchemaFuzz.open(server, natsServer, createRandom(seed));
  let sequences = 0;
  try {
    do {
      await fuzz.sequence();
      try {
        await fuzz.equal();
      } catch (thrown) {
        const steps = fuzz.log.slice(-40).join('\n');
        throw new Error(`${server.flavour}, seed ${seed}, sequence ${sequences}:\n${steps}`, { cause: thrown });
      }
      sequences += 1;
    } while (performance.now() < untilMs && sequences < MOST_SEQUENCES);
  } finally {
    await fuzz.close();
    process.stdout.write(
      `schema fuzz on ${server.flavour}: ${sequences} sequences, ${fuzz.log.length} steps, ${fuzz.kills} kills\n`,
    );
  }
  expect(sequences).toBeGreaterThan(0);
}
