import type { KV } from '@nats-io/kv';
import { expect, it } from 'vitest';
import { MAX_ENTRIES, Outbox, type OutboxEntry } from '../../monitoring/alerts/outbox.ts';

const bucket = { get: async () => null, create: async () => 1, update: async () => 2 } as unknown as KV;
const entry = (id: number, outcome?: string): OutboxEntry => ({
  id: `msg_${id}`,
  webhook: 'ops',
  body: '{}',
  alert: 'WaybillLagHigh',
  state: 'firing',
  labels: { flow: String(id) },
  attempts: 0,
  nextMs: 0,
  ...(outcome === undefined ? {} : { outcome }),
});

it('makes room by what was sent and only waits for the audit log, and else by the oldest', async () => {
  const outbox = await Outbox.open(bucket);
  for (let id = 0; id < MAX_ENTRIES; id++)
    expect(outbox.add(entry(id, id === 5 || id === 9 ? 'delivered (200)' : undefined))).toBeUndefined();
  const next = [5, 9, 0, 1].map((_, index) => outbox.add(entry(1000 + index))?.id);
  expect(next).toEqual(['msg_5', 'msg_9', 'msg_0', 'msg_1']);
  // The newest is always there.
  expect(outbox.entries.at(-1)!.id).toBe('msg_1003');
  expect(outbox.entries).toHaveLength(MAX_ENTRIES);
});

it('keeps a new alert where all others were sent', async () => {
  const outbox = await Outbox.open(bucket);
  for (let id = 0; id < MAX_ENTRIES; id++) outbox.add(entry(id, 'given up: 410'));
  expect(outbox.add(entry(1000))?.id).toBe('msg_0');
  expect(outbox.entries.at(-1)!.id).toBe('msg_1000');
});
