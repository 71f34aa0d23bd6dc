/**
 * Drift under load for a long time: comparisons without a pause beside live writes must invent nothing; after a third
 * of the time every kind of difference is planted and must be found, all of it and nothing else; then it is repaired,
 * and the rest of the time nothing may differ. After `npm run build`:
 * `node dist/test/bench/drift-soak.js [ROWS] [MINUTES] [MAX_LOAD]`.
 */
import { isProven, openFindings, type FlowOutcome } from '../../monitoring/drift/outcome.ts';
import { sql } from './contenders.ts';
import { cpuSeconds, openDriftBench, say, Writer } from './drift-setting.ts';

const rows = Number(process.argv[2] ?? 2_000_000);
const minutes = Number(process.argv[3] ?? 30);
const maxLoad = Number(process.argv[4] ?? 0.5);

/** In the half that nobody writes to. */
const at = (n: number): number => Math.floor(rows * 0.6) + n * 1000;
/** For a row that has a note. */
const noted = (n: number): number => at(n) - (at(n) % 3) + 1;
const PLANTS: Readonly<Record<string, readonly [sql: string, expected: readonly string[]]>> = {
  missing: [`delete from stock where id = ${at(1)}`, [`stock missing ${at(1)}`]],
  extra: [
    `insert into stock select ${rows + 7}, sku, warehouse, on_hand, allocated, price, note, counted_at, active, batch from stock where id = 1`,
    [`stock extra ${rows + 7}`],
  ],
  different: [`update stock set warehouse = warehouse + 1 where id = ${at(2)}`, [`stock different ${at(2)}`]],
  'a swapped pair': [
    `update stock s set sku = o.sku from stock o where (s.id = ${at(3)} and o.id = ${at(3) + 1}) or (s.id = ${at(3) + 1} and o.id = ${at(3)})`,
    [`stock different ${at(3)}`, `stock different ${at(3) + 1}`],
  ],
  'NULL against empty': [
    `update stock set note = '' where id = ${at(4) - (at(4) % 3)}`,
    [`stock different ${at(4) - (at(4) % 3)}`],
  ],
  '1e-9 in a numeric': [
    `update stock set allocated = allocated + 0.000000001 where id = ${at(5)}`,
    [`stock different ${at(5)}`],
  ],
  'one microsecond': [
    `update stock set counted_at = counted_at + interval '1 microsecond' where id = ${at(6)}`,
    [`stock different ${at(6)}`],
  ],
  'a trailing space': [`update stock set sku = sku || ' ' where id = ${at(7)}`, [`stock different ${at(7)}`]],
  'another normal form': [
    `update stock set note = normalize(note, NFD) where id = ${noted(8)}`,
    [`stock different ${noted(8)}`],
  ],
  'the same row twice': [`insert into journal select * from journal where line = 'line 77'`, ['journal extra 1']],
};
const EXPECTED = Object.values(PLANTS)
  .flatMap(([, expected]) => expected)
  .sort();

function found(outcome: FlowOutcome): string[] {
  return outcome.tables
    .flatMap((table) =>
      openFindings(table).map(({ kind, key, copies }) => `${table.name} ${kind} ${key === null ? copies : key[0]}`),
    )
    .sort();
}

const bench = await openDriftBench(rows);
const writer = new Writer(bench.sourceUrl, rows, 2);
const cpu = cpuSeconds(bench.source.pid!);
const startedMs = performance.now();
const elapsed = (): number => (performance.now() - startedMs) / 60_000;
let compared = 0;
let runs = 0;

async function expectFound(expected: readonly string[]): Promise<void> {
  const outcome = await bench.verify({ maxLoad });
  runs += 1;
  for (const table of outcome.tables) compared += table.progress.rows;
  const got = found(outcome);
  if (JSON.stringify(got) !== JSON.stringify(expected))
    throw new Error(`found ${JSON.stringify(got)}, where ${JSON.stringify(expected)} was planted`);
}

try {
  while (elapsed() < minutes / 3) await expectFound([]);
  say(
    `${elapsed().toFixed(1)} min: ${runs} comparisons of ${compared} rows beside ${writer.written} transactions invented nothing`,
  );
  for (const [statement] of Object.values(PLANTS)) await sql(bench.targetUrl, statement);
  const plantedMs = performance.now();
  await expectFound(EXPECTED);
  say(
    `all ${EXPECTED.length} differences of ${Object.keys(PLANTS).length} kinds found, and nothing else, in ${((performance.now() - plantedMs) / 1000).toFixed(1)} s`,
  );
  while (elapsed() < (minutes * 2) / 3) await expectFound(EXPECTED);
  const repaired = await bench.verify({ maxLoad, repair: true });
  if (!isProven(repaired)) throw new Error(`after the repair: ${JSON.stringify(found(repaired))}`);
  do await expectFound([]);
  while (elapsed() < minutes);
  const seconds = (performance.now() - startedMs) / 1000;
  say(
    `repaired and proven equal; in all ${runs} comparisons, ${compared} rows, ${Math.round(compared / seconds)} rows/s, ${writer.written} transactions` +
      ` in ${seconds.toFixed(0)} s; source CPU ${((100 * (cpuSeconds(bench.source.pid!) - cpu)) / seconds).toFixed(0)} % of a core, capture and writes included`,
  );
} finally {
  await writer.stop();
  await bench.close();
}
