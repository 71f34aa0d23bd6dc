/**
 * Benchmarks against what the databases themselves offer, side by side in one run: the same log, equal servers, the order of
 * the contenders alternating, medians of paired ratios.
 * `npm run bench -- [capture] [catchup] [drain | small insert update] [snapshot] [manytables] [spread] [canonical] [burst] [latency] [memory] [mysql | mysqlcapture mysqldrain
 * mysqlsnapshot mysqlmemory] [mariadb | mariadbcapture …] [--scale 0.1] [--rounds 4]`.
 * `large`, a transaction of 10,000,000 rows received either way, takes minutes and some 10 GB of disk, and `rules`, a burst of bad
 * rows for every rule, some minutes: they are run when they are named.
 */
import { benchBurst } from './burst.ts';
import { benchCanonical } from './canonical.ts';
import { benchCapture } from './capture.ts';
import { benchCatchUp } from './catch-up.ts';
import { benchDrain } from './drain.ts';
import { benchLatency } from './latency.ts';
import { benchMemory, benchVeryLarge } from './memory.ts';
import { benchMysqlCapture, benchMysqlDrain, benchMysqlMemory } from './mysql.ts';
import { benchMysqlSnapshot } from './mysql-snapshot.ts';
import { benchRules } from './rules.ts';
import { benchManyTables, benchSnapshot } from './snapshot.ts';
import { benchSpread } from './spread.ts';
import { lines, named, nats, rounds, say, source, target, wanted } from './setting.ts';

try {
  if (wanted('capture')) {
    await benchCapture('small');
    await benchCapture('insert');
  }
  if (wanted('catchup')) await benchCatchUp();
  for (const kind of ['small', 'insert', 'update'] as const)
    if (wanted('drain') || wanted(kind)) await benchDrain(kind);
  if (wanted('snapshot')) await benchSnapshot();
  if (wanted('manytables')) await benchManyTables();
  if (wanted('spread')) await benchSpread();
  if (wanted('canonical')) await benchCanonical();
  if (wanted('burst')) await benchBurst();
  if (wanted('latency')) await benchLatency();
  if (wanted('memory')) await benchMemory();
  if (named('large')) await benchVeryLarge();
  if (named('rules')) await benchRules();
  for (const flavour of ['mysql', 'mariadb'] as const) {
    if (wanted(flavour) || wanted(`${flavour}capture`)) await benchMysqlCapture(flavour);
    if (wanted(flavour) || wanted(`${flavour}drain`)) await benchMysqlDrain(flavour);
    if (wanted(flavour) || wanted(`${flavour}snapshot`)) await benchMysqlSnapshot(flavour);
    if (wanted(flavour) || wanted(`${flavour}memory`)) await benchMysqlMemory(flavour);
  }
} finally {
  await Promise.all([source.dispose(), target.dispose(), nats.dispose()]);
}
say(
  `\nservers: ${source.origin}, ${nats.origin}; fsync off and synchronous_commit off for all; ${rounds} rounds, medians of paired ratios`,
);
const width = Math.max(...lines.map((line) => line.what.length));
say(`${'measure'.padEnd(width)}  ${'native'.padStart(10)}  ${'Waybill'.padStart(18)}  ratio`);
for (const line of lines)
  say(`${line.what.padEnd(width)}  ${line.native.padStart(10)}  ${line.waybill.padStart(18)}  ${line.ratio}`);
