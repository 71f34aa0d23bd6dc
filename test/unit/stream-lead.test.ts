import { describe, expect, it } from 'vitest';
import { StreamLead } from '../../capture/stream-lead.ts';

const MB = 1 << 20;
/** What a flow writes in the time that may lie ahead of it. */
const LEAD = 0.4;

/** A stream that ends at sequence 10, on a clock of its own. */
function open(): {
  lead: StreamLead;
  pass: (ms: number) => void;
  hear: (flow: string, seq: number, rate?: number) => void;
} {
  let nowMs = 0;
  const lead = new StreamLead(10, () => nowMs);
  return {
    lead,
    pass: (ms) => (nowMs += ms),
    hear: (flow, seq, rate = 10 * MB) => lead.heard({ v: 1, flow, seq, bytesPerSecond: rate }),
  };
}

const never = new AbortController().signal;

/** The flows that a chunk of so many bytes would wait for now. */
async function waitsFor(lead: StreamLead, bytes: number): Promise<string[]> {
  const stop = new AbortController();
  const given = lead.room(bytes, stop.signal);
  const names = lead.waitsFor;
  stop.abort();
  await given;
  lead.done(bytes);
  return names;
}

describe('how far a stream runs ahead of its flows', () => {
  it('is not limited where no flow speaks', async () => {
    const { lead } = open();
    lead.stored(11, 100 * MB);
    expect(await waitsFor(lead, 10 * MB)).toEqual([]);
    expect(lead.mostBytes).toBe(Infinity);
  });

  it('is what the slowest flow writes in a moment, chunks that are being read included', async () => {
    const { lead, hear } = open();
    hear('fast', 10, 100 * MB);
    hear('slow', 10);
    expect(lead.mostBytes).toBe(10 * MB * LEAD);
    await lead.room(2 * MB, never);
    await lead.room(2 * MB, never);
    expect(await waitsFor(lead, MB)).toEqual(['slow']);
    // Both are stored; what is stored lies ahead as what is read did.
    lead.stored(11, 2 * MB);
    lead.done(2 * MB);
    lead.stored(12, 2 * MB);
    lead.done(2 * MB);
    expect(await waitsFor(lead, MB)).toEqual(['slow']);
    const third = lead.room(MB, never);
    hear('slow', 11);
    await third;
    expect(await waitsFor(lead, 2 * MB)).toEqual(['slow']);
  });

  it('feeds flows that have half of what may lie ahead of them', async () => {
    const { lead, hear } = open();
    lead.stored(11, 100 * MB);
    expect(lead.isFed).toBe(false);
    hear('fast', 11, 100 * MB);
    expect(lead.isFed).toBe(false);
    hear('slow', 11);
    lead.stored(12, 10 * MB);
    expect(lead.isFed).toBe(false);
    hear('fast', 12);
    lead.stored(13, 2 * MB);
    expect(lead.isFed).toBe(true);
    hear('slow', 13);
    expect(lead.isFed).toBe(false);
  });

  it('lets one chunk pass where nothing lies ahead, however slow the flow is', async () => {
    const { lead, hear } = open();
    hear('slow', 10, 1);
    await lead.room(100 * MB, never);
    expect(await waitsFor(lead, 1)).toEqual(['slow']);
    lead.done(100 * MB);
    expect(await waitsFor(lead, 1)).toEqual([]);
  });

  it('waits for a flow that is far behind, and no longer than a while for each chunk', async () => {
    const { lead, pass, hear } = open();
    hear('behind', 3);
    const first = lead.room(MB, never);
    expect(lead.waitsFor).toEqual(['behind']);
    pass(2000);
    await first;
    lead.done(MB);
    hear('behind', 4);
    const second = lead.room(1, never);
    expect(lead.waitsFor).toEqual(['behind']);
    hear('behind', 10);
    await second;
  });

  it('waits for a small chunk no longer than its part of a large one, so that tables that grow are read to their ends', async () => {
    const { lead, pass, hear } = open();
    hear('behind', 3);
    const small = lead.room(32 << 10, never);
    pass(499);
    expect(lead.waitsFor).toEqual(['behind']);
    pass(1);
    await small;
    lead.done(32 << 10);
    // Of one of unknown size it is not known that it is small.
    const unknown = lead.room(0, never);
    pass(1999);
    expect(lead.waitsFor).toEqual(['behind']);
    pass(1);
    await unknown;
  });

  it('does not wait for a flow that does not speak though it has work', async () => {
    const { lead, pass, hear } = open();
    hear('away', 10);
    // It had nothing to say.
    pass(60_000);
    lead.stored(11, 100 * MB);
    expect(await waitsFor(lead, 1)).toEqual(['away']);
    pass(5000);
    expect(await waitsFor(lead, 1)).toEqual([]);
    expect(lead.mostBytes).toBe(Infinity);
    // Once it speaks it counts again.
    hear('away', 10);
    expect(await waitsFor(lead, 1)).toEqual(['away']);
    hear('away', 11);
    expect(await waitsFor(lead, 1)).toEqual([]);
  });

  it('knows sizes of thousands of frames, of the older ones about', async () => {
    const { lead, hear } = open();
    for (let n = 1; n <= 20_000; n++) lead.stored(10 + n, 1000);
    hear('flow', 10 + 20_000 - 2000);
    expect(await waitsFor(lead, 2.2 * MB)).toEqual(['flow']);
    hear('flow', 10 + 20_000 - 1500);
    expect(await waitsFor(lead, 2.2 * MB)).toEqual([]);
    hear('flow', 10);
    expect(await waitsFor(lead, 1)).toEqual(['flow']);
  });
});
