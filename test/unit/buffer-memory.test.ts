import { describe, expect, it } from 'vitest';
import { giveUp, giveUpMessage, ownCopy } from '../../core/buffer-memory.ts';

const LONG = 100_000;

describe('memory of buffers', () => {
  it('gives up a buffer that a view owns', () => {
    const copy = ownCopy(Buffer.alloc(LONG, 1), Buffer.alloc(LONG, 2));
    expect([copy.length, copy[0], copy.at(-1)]).toEqual([2 * LONG, 1, 2]);
    giveUp(copy);
    expect(copy.length).toBe(0);
  });

  it('leaves a buffer alone of which a view is a part', () => {
    const whole = ownCopy(Buffer.alloc(2 * LONG, 1));
    giveUp(whole.subarray(0, LONG));
    expect(whole.length).toBe(2 * LONG);
  });

  it('gives up the whole buffer that the client grew for a long message', () => {
    const grown = new Uint8Array(new ArrayBuffer(2 * LONG));
    giveUpMessage(grown.subarray(200, LONG));
    expect(grown.length).toBe(0);
  });

  it('leaves a short message alone, which lies beside others', () => {
    const packet = new Uint8Array(new ArrayBuffer(64 * 1024)).fill(7);
    giveUpMessage(packet.subarray(0, 1000));
    giveUpMessage(packet);
    expect([packet.length, packet[2000]]).toEqual([64 * 1024, 7]);
  });
});
