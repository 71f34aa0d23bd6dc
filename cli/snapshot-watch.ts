/** Waits for a snapshot that was asked for, and shows how far it is. */
import { setTimeout as delay } from 'node:timers/promises';
import { describeSnapshot, shareDone, SnapshotMeter } from '../capture/snapshot-progress.ts';
import { readProgress, readRequest } from '../capture/snapshot-request.ts';
import type { NatsConfig } from '../core/config.ts';
import { openBucket } from '../core/lease.ts';
import { connectNats } from '../core/nats.ts';
import { EXIT } from './exit-status.ts';

const LOOK_MS = 500;
const BAR_CELLS = 30;
/** Where nobody looks at a terminal, a line is printed this often. */
const LINE_MS = 10_000;

/**
 * Resolves with the exit status once the snapshot `id` of a source has been read whole; `no` when it was cancelled or
 * another one has taken its place. The request stays what it is when this process ends before.
 */
export async function watchSnapshot(config: NatsConfig, source: string, id: string): Promise<number> {
  const nats = await connectNats(config, 'waybill snapshot');
  const screen = process.stdout.isTTY;
  const meter = new SnapshotMeter();
  let printedMs = -Infinity;
  const say = (text: string, last = false): void => {
    if (screen) process.stdout.write(`\r\u001b[K${text}${last ? '\n' : ''}`);
    else if (last || performance.now() - printedMs >= LINE_MS) {
      printedMs = performance.now();
      process.stdout.write(`${text}\n`);
    }
  };
  try {
    const bucket = await openBucket(nats, config);
    let took = false;
    for (;;) {
      const progress = await readProgress(bucket, source);
      const tables = progress?.tables.filter(({ request }) => request === id) ?? [];
      if (progress?.id === id) {
        took = true;
        const facts = meter.observe(performance.now(), tables);
        const done = facts.tablesDone === facts.tables;
        say(`${bar(done ? 1 : shareDone(facts))}${describeSnapshot(facts)}`, done);
        if (done) return EXIT.good;
      } else if (took) {
        say(`snapshot ${id} ended early: another one was asked for`, true);
        return EXIT.no;
      } else if ((await readRequest(bucket, source))?.id === id) say(`waiting for the capture of ${source}`);
      await delay(LOOK_MS);
    }
  } finally {
    await nats.close();
  }
}

function bar(share: number | undefined): string {
  if (share === undefined) return '';
  const full = Math.round(share * BAR_CELLS);
  return `[${'#'.repeat(full)}${'.'.repeat(BAR_CELLS - full)}] `;
}
