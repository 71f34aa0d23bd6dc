import { describe, expect, it } from 'vitest';
import { chooseCandidate, type Candidate, type History } from '../../capture/mysql/choose-server.ts';
import { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';

const ONE = '11111111-1111-1111-1111-111111111111';
const TWO = '22222222-2222-2222-2222-222222222222';
const set = (text: string): History => MysqlGtidSet.parse(text)!;
const mariadb = (...parts: readonly (readonly [string, number])[]): History => new Map(parts);
const server = (writable: boolean, before: History, after = before): Candidate => ({ writable, before, after });

function codeOf(choose: () => unknown): string | undefined {
  try {
    choose();
    return undefined;
  } catch (thrown) {
    return (thrown as { code?: string }).code;
  }
}

describe('the server that a source is read from', () => {
  it('is the one that accepts writes, wherever it stands in the url', () => {
    const primary = server(true, set(`${ONE}:1-10`));
    const replica = server(false, set(`${ONE}:1-9`));
    expect(chooseCandidate([primary, replica])).toBe(0);
    expect(chooseCandidate([replica, primary])).toBe(1);
    expect(chooseCandidate([replica, primary], 0)).toBe(1);
  });

  it('is any replica while none accepts writes, and stays the same', () => {
    const replicas = [server(false, set(`${ONE}:1-9`)), server(false, set(`${ONE}:1-12`))];
    expect(chooseCandidate(replicas)).toBe(0);
    expect(chooseCandidate(replicas, 1)).toBe(1);
  });

  it('is not the primary that was left behind, though it accepts writes again', () => {
    const old = server(true, set(`${ONE}:1-10`));
    const promoted = server(true, set(`${ONE}:1-10,${TWO}:1-5`), set(`${ONE}:1-10,${TWO}:1-9`));
    expect(chooseCandidate([old, promoted])).toBe(1);
    expect(chooseCandidate([old, promoted], 0)).toBe(1);
    const [oldMaria, newMaria] = [mariadb(['0-1', 10]), mariadb(['0-1', 10], ['0-2', 12])];
    expect(chooseCandidate([server(true, oldMaria), server(true, newMaria)])).toBe(1);
  });

  it('is none while two went different ways', () => {
    const [a, b] = [server(true, set(`${ONE}:1-11`)), server(true, set(`${ONE}:1-10,${TWO}:1`))];
    expect(codeOf(() => chooseCandidate([a, b]))).toBe('source_ambiguous');
    const [c, d] = [mariadb(['0-1', 11]), mariadb(['0-1', 10], ['0-2', 11])];
    expect(codeOf(() => chooseCandidate([server(true, c), server(true, d)], 1))).toBe('source_ambiguous');
  });

  it('stays among servers that all accept writes and take in what the others have', () => {
    const busy = [
      server(true, set(`${ONE}:1-10,${TWO}:1-4`), set(`${ONE}:1-13,${TWO}:1-8`)),
      server(true, set(`${ONE}:1-8,${TWO}:1-6`), set(`${ONE}:1-11,${TWO}:1-9`)),
    ];
    expect(chooseCandidate(busy)).toBe(0);
    expect(chooseCandidate(busy, 1)).toBe(1);
  });
});
