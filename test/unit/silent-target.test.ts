/** When a target that has not answered for long counts as silent: what it says to somebody who connects decides. */
import { DatabaseError } from 'pg';
import { expect, it } from 'vitest';
import { targetError as mysqlError } from '../../apply/mysql/target-error.ts';
import { targetError as postgresError } from '../../apply/postgres/target-error.ts';
import { unlessSilent } from '../../apply/silent-target.ts';
import type { TargetStore } from '../../apply/target-store.ts';

const UNANSWERED_MS = 1;

/** A store that lets nobody connect; `seen` is told how often somebody tried. */
function refusing(refusal: Error, seen: (times: number) => void): TargetStore {
  let times = 0;
  return {
    open: () => {
      seen(++times);
      return Promise.reject(refusal);
    },
  } as unknown as TargetStore;
}

function postgresRefusal(code: string): Error {
  const error = new DatabaseError('refused', 0, 'error');
  error.code = code;
  return postgresError(error, 'connecting');
}

function mysqlRefusal(errno: number, sqlState: string): Error {
  return mysqlError(Object.assign(new Error('refused'), { errno, sqlState }), 'connecting');
}

it.each([
  ['too many connections', postgresRefusal('53300')],
  ['starting up', postgresRefusal('57P03')],
  ['a password that was changed', postgresRefusal('28P01')],
  ['too many connections (MySQL)', mysqlRefusal(1040, '08004')],
  ['too many connections of a user (MySQL)', mysqlRefusal(1203, '42000')],
])('a server that answers is not silent, whatever it answers: %s', async (_, refusal) => {
  // The statement ends when the target was asked for the third time.
  let end = (_answer: string): void => {};
  const asked = new Promise<string>((resolve) => (end = resolve));
  const store = refusing(refusal, (times) => {
    if (times === 3) end('done');
  });
  expect(await unlessSilent(asked, store, 'test', UNANSWERED_MS)).toBe('done');
});

it.each([
  ['Postgres', postgresError],
  ['MySQL', mysqlError],
])('one that is not there is: %s', async (_, targetError) => {
  const refused = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED', errno: -111 });
  const store = refusing(targetError(refused, 'connecting'), () => {});
  const asked = new Promise<string>(() => {});
  await expect(unlessSilent(asked, store, 'test', UNANSWERED_MS)).rejects.toMatchObject({ code: 'target_unreachable' });
});
