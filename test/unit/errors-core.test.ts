import { JetStreamApiError } from '@nats-io/jetstream';
import { errors } from '@nats-io/transport-node';
import { describe, expect, it } from 'vitest';
import {
  asReplicationError,
  ERROR_CODES,
  isAbort,
  messageOf,
  policyFor,
  ReplicationError,
  type Action,
  type ErrorCode,
} from '../../core/errors.ts';
import { natsError } from '../../core/nats.ts';
import { backoffMs, runService } from '../../core/run-service.ts';
import { createLogger } from '../../core/logger.ts';

const log = createLogger('silent');

describe('policyFor', () => {
  it('is total', () => {
    expect(ERROR_CODES.length).toBeGreaterThan(30);
    expect(new Set(ERROR_CODES).size).toBe(ERROR_CODES.length);
    const actions: Action[] = ['retry', 'halt', 'quarantine', 'resnapshot'];
    for (const code of ERROR_CODES) {
      const policy = policyFor(code);
      expect(actions, code).toContain(policy.action);
      // A sentence for an operator: something to do, ended by a stop.
      expect(policy.remedy, code).toMatch(/^[A-Z].{15,}\.$/s);
      expect(new ReplicationError(code, 'x').remedy).toBe(policy.remedy);
    }
  });

  it.each<[ErrorCode, Action]>([
    ['internal', 'halt'],
    ['source_protocol', 'halt'],
    ['frame_unreadable', 'halt'],
    ['frame_version', 'halt'],
    ['source_unreachable', 'retry'],
    ['stream_conflict', 'retry'],
    ['lease_lost', 'retry'],
    ['source_slot_missing', 'resnapshot'],
    ['source_slot_lost', 'resnapshot'],
    ['source_slot_ahead', 'resnapshot'],
    ['stream_gap', 'resnapshot'],
    ['target_row', 'quarantine'],
  ])('%s: %s', (code, action) => {
    expect(policyFor(code).action).toBe(action);
  });
});

describe('asReplicationError', () => {
  it('keeps one that is one already', () => {
    const error = new ReplicationError('config_invalid', 'x', { context: { a: 1 } });
    expect(asReplicationError(error)).toBe(error);
    expect(error.context).toEqual({ a: 1 });
    expect(error.cause).toBeUndefined();
  });

  it.each<[Error, ErrorCode]>([
    [new errors.TimeoutError(), 'nats_timeout'],
    [new errors.NoRespondersError('waybill.x'), 'nats_timeout'],
    [new errors.ClosedConnectionError(), 'nats_unreachable'],
    [new JetStreamApiError({ code: 404, err_code: 10059, description: 'stream not found' }), 'stream_missing'],
  ])('knows %o as one of NATS, though nobody said what was asked', (thrown, code) => {
    expect(asReplicationError(thrown)).toMatchObject({ code, cause: thrown });
    expect(natsError(thrown, 'reading x').message).toBe(`reading x: ${thrown.message}`);
    expect(policyFor(code).action).toBe('retry');
  });

  it.each([new TypeError('oops'), 'oops', { toString: () => 'oops' }])('calls %o internal', (thrown) => {
    expect(asReplicationError(thrown)).toMatchObject({ code: 'internal', message: 'oops', cause: thrown });
  });
});

describe('messageOf', () => {
  it.each([
    [new Error('a'), 'a'],
    [new AggregateError([new Error('a'), Object.assign(new Error(''), { code: 'ECONNREFUSED' })]), 'a; ECONNREFUSED'],
    [new AggregateError([new Error('a')], 'all failed'), 'all failed'],
    [Object.assign(new Error(''), { code: 'EPIPE' }), 'EPIPE'],
    [new RangeError(''), 'RangeError'],
    ['text', 'text'],
    [undefined, 'undefined'],
    [null, 'null'],
  ])('%o: %s', (thrown, message) => {
    expect(messageOf(thrown)).toBe(message);
  });
});

describe('isAbort', () => {
  it('is the echo of an aborted signal only', () => {
    const controller = new AbortController();
    const echo = Object.assign(new Error('aborted'), { name: 'AbortError' });
    expect(isAbort(echo, controller.signal)).toBe(false);
    controller.abort();
    expect(isAbort(echo, controller.signal)).toBe(true);
    expect(isAbort(controller.signal.reason, controller.signal)).toBe(true);
    expect(isAbort(new Error('other'), controller.signal)).toBe(false);
  });
});

describe('runService', () => {
  const backoff = { minMs: 1, maxMs: 2 };

  it('tries again what the table calls retry, and throws the rest', async () => {
    const codes: ErrorCode[] = ['source_unreachable', 'nats_timeout', 'config_invalid'];
    const seen: [ErrorCode, boolean][] = [];
    const running = runService(
      async () => {
        throw new ReplicationError(codes.shift()!, 'x');
      },
      {
        name: 'test',
        signal: new AbortController().signal,
        log,
        backoff,
        onError: (error, again) => seen.push([error.code, again]),
      },
    );
    await expect(running).rejects.toMatchObject({ code: 'config_invalid' });
    expect(seen).toEqual([
      ['source_unreachable', true],
      ['nats_timeout', true],
      ['config_invalid', false],
    ]);
  });

  it('throws a defect as internal, and returns when aborted', async () => {
    const controller = new AbortController();
    const options = { name: 'test', signal: controller.signal, log, backoff };
    const broken = runService(async () => {
      throw new TypeError('x');
    }, options);
    await expect(broken).rejects.toMatchObject({ code: 'internal' });
    const aborted = runService(async () => {
      controller.abort();
      throw controller.signal.reason;
    }, options);
    await expect(aborted).resolves.toBeUndefined();
  });

  it('waits longer with every try, up to the limit, with jitter below', () => {
    const waits = [1, 2, 3, 4, 8, 2000].map((attempt) => backoffMs({ minMs: 100, maxMs: 1000 }, attempt, 1));
    expect(waits).toEqual([100, 200, 400, 800, 1000, 1000]);
    expect(backoffMs({ minMs: 100, maxMs: 1000 }, 1, 0)).toBe(80);
  });
});
