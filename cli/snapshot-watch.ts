/** Waits for a snapshot that was asked for, and shows how far it is. */
import { setTimeout as delay } from 'node:timers/promises';
import { describeSnapshot, shareDone, SnapshotMeter } from '../capture/snapshot-progress.ts';
import { readRequests } from '../capture/request-queue.ts';
import { answers, readProgress, type TableProgress } from '../capture/snapshot-request.ts';
import type { NatsConfig } from '../core/config.ts';
import { openBucket } from '../core/lease.ts';
import { connectNats } from '../core/nats.ts';
import { EXIT } from './exit-status.ts';

const LOOK_MS = 500;
const BAR_CELLS = 30;
/** Where nobody looks at a terminal, a line is printed this often. */
const LINE_MS = 10_000;

/**
 * Resolves with the exit status once the snapshot `id` of a source has been read whole; `no` when it was cancelled, found
 * no table, or is gone. The request stays what it is when this process ends before.
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
      // In this order: what leaves the first is in the second by then.
      const waits = (await readRequests(bucket, source)).some((request) => request.id === id);
      const progress = await readProgress(bucket, source);
      const tables = progress?.tables.filter((table) => answers(table, id)) ?? [];
      if (tables.length > 0) {
        took = true;
        const facts = meter.observe(performance.now(), tables);
        const done = facts.tablesDone === facts.tables;
        const cancelled = done && tables.some((table) => table.cancelled === true);
        if (cancelled) say(`snapshot ${id} was cancelled: ${describeCancelled(tables)}`, true);
        else say(`${bar(done ? 1 : shareDone(facts))}${describeSnapshot(facts)}`, done);
        if (done) return cancelled ? EXIT.no : EXIT.good;
      } else if (waits) say(`waiting for the capture of ${source}`);
      else {
        const why =
          !took && progress?.id === id
            ? `the capture of ${source} has no table to read for it`
            : 'a snapshot that was asked for later has taken its place';
        say(`snapshot ${id} is over: ${why}`, true);
        return EXIT.no;
      }
      await delay(LOOK_MS);
    }
  } finally {
    await nats.close();
  }
}

/** Resolves once the capture has stopped what it read. */
export async function watchCancel(config: NatsConfig, source: string, id: string): Promise<number> {
  const nats = await connectNats(config, 'waybill snapshot');
  try {
    const bucket = await openBucket(nats, config);
    while ((await readRequests(bucket, source)).some((request) => request.id === id)) await delay(LOOK_MS);
    console.log(`the capture of ${source} has stopped its snapshot`);
    return EXIT.good;
  } finally {
    await nats.close();
  }
}

function describeCancelled(tables: readonly TableProgress[]): string {
  const read = tables.filter(({ cancelled }) => cancelled !== true).length;
  return `${read} of ${tables.length} ${tables.length === 1 ? 'table' : 'tables'} read to the end`;
}

function bar(share: number | undefined): string {
  if (share === undefined) return '';
  const full = Math.round(share * BAR_CELLS);
  return `[${'#'.repeat(full)}${'.'.repeat(BAR_CELLS - full)}] `;
}
