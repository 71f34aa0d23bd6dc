import { describe, expect, it } from 'vitest';
import {
  requireLog,
  requireUsableSlot,
  slotState,
  type SlotInfo,
  type SlotState,
} from '../../capture/postgres/slot.ts';
import { pgPosition, type Position } from '../../core/position.ts';

const slot = (some: Partial<SlotInfo> = {}): SlotInfo => ({
  active: false,
  activePid: undefined,
  plugin: 'pgoutput',
  database: 'app',
  walStatus: 'reserved',
  confirmedLsn: 100n,
  retainedBytes: 0,
  safeBytes: undefined,
  logEnd: 100n,
  standby: false,
  twoPhase: false,
  ...some,
});

const TABLE: readonly [what: string, slot: SlotInfo | undefined, streamEnd: Position | undefined, state: SlotState][] =
  [
    ['no slot, no frames', undefined, undefined, 'create'],
    ['no slot, but frames', undefined, pgPosition(100n), 'missing'],
    ['no slot, but a frame at the origin', undefined, pgPosition(0n), 'missing'],
    ['a slot, no frames', slot(), undefined, 'ready'],
    ['a slot behind the stream', slot(), pgPosition(101n), 'ready'],
    ['a slot at the end of the stream', slot(), pgPosition(100n), 'ready'],
    ['a slot at the commit inside of which the stream ends', slot(), pgPosition(100n, 7), 'ready'],
    ['a slot one byte ahead', slot({ confirmedLsn: 101n }), pgPosition(100n), 'ahead'],
    [
      'a slot ahead of a stream that ends inside a transaction',
      slot({ confirmedLsn: 101n }),
      pgPosition(100n, 7),
      'ahead',
    ],
    ['a slot in use', slot({ active: true, activePid: 7 }), pgPosition(100n), 'ready'],
    ['a slot whose log grows', slot({ walStatus: 'extended' }), pgPosition(100n), 'ready'],
    ['a slot about to be lost', slot({ walStatus: 'unreserved' }), pgPosition(100n), 'ready'],
    ['a lost slot', slot({ walStatus: 'lost' }), pgPosition(100n), 'lost'],
    ['a lost slot, no frames', slot({ walStatus: 'lost' }), undefined, 'lost'],
    ['a lost slot ahead', slot({ walStatus: 'lost', confirmedLsn: 101n }), pgPosition(100n), 'lost'],
    ['a slot of another plugin', slot({ plugin: 'test_decoding' }), pgPosition(100n), 'foreign'],
    ['a physical slot', slot({ plugin: '', database: '' }), undefined, 'foreign'],
    ['a slot that sends prepared transactions', slot({ twoPhase: true }), pgPosition(100n), 'two_phase'],
    ['a slot of another database', slot({ database: 'App' }), pgPosition(100n), 'foreign'],
    ['a lost slot of another database', slot({ database: 'other', walStatus: 'lost' }), undefined, 'foreign'],
  ];

const ERRORS = {
  missing: 'source_slot_missing',
  lost: 'source_slot_lost',
  foreign: 'config_invalid',
  two_phase: 'config_invalid',
  ahead: 'source_slot_ahead',
} as const;

describe.each(TABLE)('%s', (_, info, streamEnd, state) => {
  it(`is ${state}`, () => {
    expect(slotState(info, 'app', streamEnd)).toBe(state);
  });

  const code = state === 'create' || state === 'ready' ? undefined : ERRORS[state];
  it(code === undefined ? 'can be used' : `throws ${code} and names the slot`, () => {
    const use = (): void => requireUsableSlot(state, 'my_slot', info, streamEnd);
    if (code === undefined) expect(use).not.toThrow();
    else
      expect(use).toThrow(
        expect.objectContaining({
          code,
          message: expect.stringContaining('my_slot') as string,
          context: { slot: 'my_slot' },
        }) as Error,
      );
  });
});

describe('a log that ends before what was captured of it', () => {
  it('is not followed', () => {
    expect(() => requireLog(slot({ logEnd: 100n }), 100n)).not.toThrow();
    const code = (code: string): unknown => expect.objectContaining({ code });
    expect(() => requireLog(slot({ logEnd: 99n }), 100n)).toThrow(code('source_diverged') as Error);
    expect(() => requireLog(slot({ logEnd: 99n, standby: true }), 100n)).toThrow(code('source_behind') as Error);
  });
});
