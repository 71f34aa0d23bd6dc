/** A transaction whose end does not come: what is written of it is rolled back, and not written again before more came. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Batch } from '../../apply/batch.ts';
import type { BatchSink, TargetStore } from '../../apply/target-store.ts';
import type { FlowReport } from '../../core/metrics.ts';
import { formatPosition, ORIGIN, type Position } from '../../core/position.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { FrameFeed, ins, tableOf } from '../support/frame-feed.ts';
import { waitFor } from '../support/wait.ts';

let nats: NatsServer;

beforeAll(async () => {
  nats = await startNats();
});
afterAll(async () => await nats?.dispose());

/** A target that keeps no rows, and tells what it was asked. */
class TellingTarget implements TargetStore {
  position: Position = ORIGIN;
  seq = 0;
  /** Rows of each batch; whether its transaction ended with it. */
  readonly written: (readonly [rows: number, ended: boolean])[] = [];
  opened = 0;
  idled = 0;

  open(): ReturnType<TargetStore['open']> {
    this.opened += 1;
    let open = false;
    const write = (report: FlowReport, batch: Batch): Promise<void> => {
      const { rows, transactions, commitTimeUs } = batch;
      open = batch.next === undefined;
      this.written.push([rows, !open]);
      if (batch.next !== undefined) {
        this.position = batch.next;
        this.seq = batch.seq;
      }
      report.applied({ rows, transactions, seconds: 0, commitTimeUs, position: formatPosition(this.position) });
      return Promise.resolve();
    };
    const idle = (): Promise<void> => Promise.resolve(void (this.idled += 1));
    const { position, seq } = this;
    const sinkOf = (report: FlowReport): BatchSink => ({
      position,
      seq,
      write: (batch) => write(report, batch),
      idle,
      get open() {
        return open;
      },
    });
    const close = (): Promise<void> => Promise.resolve();
    return Promise.resolve({
      lost: new AbortController().signal,
      openSink: ({ report }) => Promise.resolve(sinkOf(report)),
      close,
    });
  }
}

it('is not written again and again while nothing more comes', async () => {
  const target = new TellingTarget();
  const feed = await FrameFeed.open({
    natsUrl: nats.url,
    target: { kind: 'postgres', url: 'postgresql://nowhere/none' } as never,
    flow: { batch_bytes: '16KB' },
    createStore: () => target,
    readPosition: () => Promise.resolve(formatPosition(target.position)),
  });
  try {
    const table = tableOf('items', ['id integer', 'note text']);
    const rows = (from: number, count: number) =>
      Array.from({ length: count }, (_, i) => ins(String(from + i), 'x'.repeat(1000)));
    feed.start();
    await feed.frame([table], [rows(0, 1)]);
    await feed.frame([table], [rows(1, 40)], 'first');
    await waitFor('the part to be given up', () => Promise.resolve(target.opened === 2));
    expect(target.written).toEqual([
      [1, true],
      [40, false],
    ]);
    // So often it looked for something to do while there was nothing; to write the part would have left no time for it.
    await waitFor('the flow to have nothing to do', () => Promise.resolve(target.idled >= 3));
    expect([target.opened, target.written.length]).toEqual([2, 2]);
    await feed.frame([table], [rows(41, 2)], 'last', 40);
    await feed.caughtUp();
    expect(target.written.slice(2).reduce((sum, [count]) => sum + count, 0)).toBe(42);
    expect(target.opened).toBe(2);
  } finally {
    await feed.close();
  }
});
