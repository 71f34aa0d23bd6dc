/** The end of the demo: whether the retailer's systems agree, and the records equal those of a run that begins now. */
import { join } from 'node:path';
import type { PostgresServer } from '../../postgres.ts';
import { openPostgres } from '../observer.ts';
import { startWaybill } from '../waybill-process.ts';
import { writeFreshConfig, type Retailer } from './retailer.ts';

const DEADLINE_MS = 120_000;

export interface Proof {
  readonly retailer: Retailer;
  readonly targetServer: PostgresServer;
  readonly natsUrl: string;
  /** Where the files of the demo are, and the configuration that has run so far. */
  readonly folder: string;
  readonly configFile: string;
  /** `sources` of the configuration, as far as they are the ERP. */
  readonly erp: Readonly<Record<string, unknown>>;
  readonly signal: AbortSignal;
}

/** Says what is wrong, or that nothing is. Nobody may work on the systems any more. */
export async function proveRetailer(proof: Proof): Promise<boolean> {
  const { retailer, targetServer, natsUrl, folder, configFile, erp, signal } = proof;
  console.log('\nretailer: the workload has ended; a second installation makes all records anew.');
  const visibility = await targetServer.createDatabase('fresh');
  const freshFile = join(folder, 'fresh.yaml');
  await writeFreshConfig(freshFile, retailer, { natsUrl, visibility, erp });
  const run = startWaybill(freshFile, join(folder, 'fresh.log'));
  const [target, fresh] = [await openPostgres(retailer.urls.visibility), await openPostgres(visibility)];
  try {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(DEADLINE_MS)]);
    const { problems, orders, records, changed, sent } = await Promise.race([
      retailer.verdict(configFile, target, fresh, deadline),
      run.failed,
    ]);
    signal.throwIfAborted();
    for (const problem of problems) console.log(`  ${problem}`);
    if (problems.length > 0) return false;
    console.log(
      `retailer: shop and warehouse agree on ${orders} orders; ${records} records equal those of a fresh run; the arithmetic of stock holds.`,
    );
    console.log(`retailer: ${changed} changes of customers and staff gave ${sent} records: nothing went round.`);
    return true;
  } finally {
    await run.stop();
    await Promise.allSettled([target.end(), fresh.end()]);
  }
}
