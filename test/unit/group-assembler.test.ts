/** When a group of the log counts as taken. */
import { describe, expect, it } from 'vitest';
import type { GroupInfo } from '../../capture/mysql/binlog-handler.ts';
import { GroupAssembler } from '../../capture/mysql/group-assembler.ts';
import { containsGtid, gtidPosition } from '../../core/gtid-position.ts';
import type { Gtid } from '../../core/gtid.ts';
import { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';

const GTID: Gtid = { kind: 'mysql', source: '3e11fa47-71ca-11e1-9e33-c80aa9429562', gno: 1 };
const INFO: GroupInfo = {
  serverId: 1,
  commitTimeUs: 0,
  transactionBytes: undefined,
  transactional: false,
  file: 'binlog.000001',
  offset: 4,
};

/** An assembler between its first group, which asks for work to be done twice, and the end of that. */
class Waiting {
  readonly ends: { readonly succeed: () => void; readonly fail: (error: Error) => void }[] = [];
  readonly works: Promise<void>[] = [];
  boundaries = 0;
  readonly assembler: GroupAssembler = new GroupAssembler({
    frameBytes: 65_536,
    resume: gtidPosition(MysqlGtidSet.EMPTY),
    start: MysqlGtidSet.EMPTY,
    tableOf: () => undefined,
    onTableMap: () => undefined,
    truncatedTable: () => undefined,
    onStatement: () => {
      for (let i = 0; i < 2; i++) this.assembler.hold(this.#work());
    },
    endsInCommit: async () => true,
    hold: (work) => void this.works.push(work),
    room: async () => undefined,
    onUnknownXa: () => this.#work(),
    onFrame: () => undefined,
    onBoundary: () => void (this.boundaries += 1),
  });

  #work(): Promise<void> {
    return new Promise((succeed, fail) => void this.ends.push({ succeed, fail }));
  }

  /** Whether a frame that is asked for now says that the group was taken. */
  get taken(): boolean {
    this.assembler.requestProgress();
    const frame = this.assembler.sealAtBoundary();
    return frame !== undefined && containsGtid(frame.end.gtids, GTID);
  }
}

const statement = (): Waiting => {
  const waiting = new Waiting();
  waiting.assembler.gtid(GTID, INFO);
  const sql = 'ALTER TABLE t DROP PARTITION p0';
  waiting.assembler.statement({
    schema: 's',
    sql,
    verb: 'ALTER',
    truncates: undefined,
    movesRows: true,
    inGroup: false,
  });
  waiting.assembler.end({ kind: 'commit' });
  return waiting;
};
const unknownXa = (): Waiting => {
  const waiting = new Waiting();
  waiting.assembler.gtid(GTID, INFO);
  waiting.assembler.end({ kind: 'xa-commit', xid: 'x' });
  return waiting;
};

describe.each([
  ['a statement', statement],
  ['the commit of an XA transaction that nobody knows', unknownXa],
])('%s that asks for tables to be read', (_, begin) => {
  it('counts as taken once all that is stored, not before', async () => {
    const waiting = begin();
    for (const [i, { succeed }] of waiting.ends.entries()) {
      expect(waiting.taken).toBe(false);
      succeed();
      await waiting.works[i];
    }
    expect(waiting.boundaries).toBe(1);
    expect(waiting.taken).toBe(true);
  });

  it('never counts as taken where that failed', async () => {
    const waiting = begin();
    waiting.ends[0]!.fail(new Error('gone'));
    for (const { succeed } of waiting.ends.slice(1)) succeed();
    expect((await Promise.allSettled(waiting.works))[0]).toMatchObject({ status: 'rejected' });
    expect([waiting.taken, waiting.boundaries]).toEqual([false, 0]);
  });
});
