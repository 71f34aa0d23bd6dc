import { expect, it } from 'vitest';
import { endsInCommit } from '../../capture/mysql/commit-lookup.ts';
import type { SqlClient } from '../../capture/mysql/connection.ts';
import { EVENT, HEADER_BYTES } from '../../capture/mysql/event-types.ts';
import { TransactionPayload } from '../../capture/mysql/transaction-payload.ts';

/** A TRANSACTION_PAYLOAD event's body that holds events of these types uncompressed. */
function payload(types: readonly number[]): TransactionPayload {
  const events = types.map((type) => {
    const event = Buffer.alloc(HEADER_BYTES + 3, type);
    event.writeUInt32LE(event.length, 9);
    return event;
  });
  // Field 2, of three bytes: the algorithm 255, which is none. Field 0 ends the list.
  const bytes = Buffer.concat([Buffer.of(2, 3, 0xfc, 255, 0, 0), ...events]);
  return TransactionPayload.read(bytes, 0, bytes.length);
}

const group = {
  serverId: 1,
  commitTimeUs: 0,
  transactionBytes: 999,
  transactional: false,
  file: 'binlog.1',
  offset: 4,
};
const nobody = {} as SqlClient;

it('a compressed transaction tells itself whether it ends in its commit, wherever its events have come to', async () => {
  const rows = Array.from({ length: 500 }, () => EVENT.writeRows);
  const committed = payload([EVENT.query, ...rows, EVENT.xid]);
  expect(committed.next()?.[4]).toBe(EVENT.query);
  expect(await endsInCommit(nobody, { ...group, payload: committed })).toBe(true);
  expect(committed.next()?.[4]).toBe(EVENT.writeRows);
  for (const types of [[EVENT.query, ...rows, EVENT.query], [EVENT.xid, ...rows], [EVENT.xaPrepare], []])
    expect(await endsInCommit(nobody, { ...group, payload: payload(types) })).toBe(false);
});
