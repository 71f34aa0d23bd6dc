import { headers, TimeoutError } from '@nats-io/transport-node';
import { describe, expect, it } from 'vitest';
import { runFlow } from '../../apply/flow-run.ts';
import type { BatchSink } from '../../apply/target-store.ts';
import { HEADER } from '../../core/frame.ts';
import { createLogger } from '../../core/logger.ts';
import { NO_FLOW_REPORT } from '../../core/metrics.ts';
import type { Nats } from '../../core/nats.ts';
import { formatPosition, pgPosition } from '../../core/position.ts';

/** A stream of one frame, from 100 to 300, whose broker does not answer the `failing`-th question for a message. */
function broker(failing: number): { nats: Nats; asked: () => number } {
  const header = headers();
  header.set(HEADER.format, '1');
  header.set(HEADER.start, formatPosition(pgPosition(100n)));
  header.set(HEADER.end, formatPosition(pgPosition(300n)));
  let asked = 0;
  const streams = {
    info: async () => ({ config: {}, state: { messages: 1, first_seq: 1, last_seq: 1 } }),
    getMessage: async () => {
      asked += 1;
      if (asked === failing) throw new TimeoutError();
      return { header };
    },
  };
  return { nats: { manager: { streams }, connection: {} } as unknown as Nats, asked: () => asked };
}

async function codeOf(nats: Nats): Promise<unknown> {
  // The target stands between two transactions of the frame.
  const sink = { position: pgPosition(200n), seq: 1, open: false } as unknown as BatchSink;
  const lost = new AbortController().signal;
  const unlessSilent = <T>(asked: Promise<T>): Promise<T> => asked;
  const shared = {
    report: NO_FLOW_REPORT,
    log: createLogger('silent'),
    signal: AbortSignal.timeout(5000),
    lost,
    unlessSilent,
  };
  return await runFlow({
    nats,
    stream: 's',
    sink,
    batchBytes: 1,
    tail: { seq: undefined },
    progressed: () => undefined,
    ...shared,
  }).then(
    () => undefined,
    (thrown: unknown) => (thrown as { code?: unknown }).code,
  );
}

describe('a flow that begins', () => {
  it('takes no silence of the broker for a frame that is gone', async () => {
    const { nats, asked } = broker(0);
    // What stands in for the broker gives no frames.
    expect(String(await codeOf(nats))).not.toMatch(/^stream_/);
    const questions = asked();
    expect(questions).toBeGreaterThan(2);
    for (let n = 1; n <= questions; n++) expect(await codeOf(broker(n).nats), `question ${n}`).toBe('nats_timeout');
  });
});
