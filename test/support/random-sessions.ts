/** Sessions that write in turns at random: large transactions side by side, savepoints, rollbacks, prepared transactions. */
import pg from 'pg';
import type { Random } from '../../sandbox/demo/random.ts';

/** Beyond any id that a session writes. */
const IDS_PER_SESSION = 10_000_000;

class Session {
  readonly #random: Random;
  readonly #name: string;
  readonly #client: pg.Client;
  /** Ids that nobody else touches. */
  #next: number;
  readonly #first: number;
  #savepoints = 0;
  #open = false;

  constructor(random: Random, name: string, client: pg.Client, first: number) {
    this.#random = random;
    this.#name = name;
    this.#client = client;
    this.#first = first;
    this.#next = first;
  }

  /** One statement or two, and what they were. */
  async step(): Promise<string> {
    const sql = this.#choose();
    // One at a time: several in one message would be a transaction.
    for (const statement of sql.split('; ')) await this.#client.query(statement);
    return `${this.#name}: ${sql}`;
  }

  /** Commits what is open. */
  async settle(): Promise<void> {
    if (this.#open) await this.#client.query('commit');
  }

  async close(): Promise<void> {
    await this.#client.end();
  }

  #choose(): string {
    const random = this.#random;
    if (!this.#open) {
      if (random.between(0, 3) === 0) return this.#rows(5);
      this.#open = true;
      this.#savepoints = 0;
      return 'begin';
    }
    const kind = random.between(0, 19);
    if (kind < 10) return this.#rows(900);
    if (kind < 14) return `savepoint s${++this.#savepoints}`;
    if (kind < 16 && this.#savepoints > 0) {
      // The savepoint stays; those inside of it are gone.
      this.#savepoints = random.between(1, this.#savepoints);
      return `rollback to s${this.#savepoints}`;
    }
    if (kind === 16 && this.#savepoints > 0) {
      this.#savepoints = random.between(1, this.#savepoints) - 1;
      return `release s${this.#savepoints + 1}`;
    }
    if (kind < 18) return this.#rows(30);
    this.#open = false;
    if (kind === 18) return random.pick(['commit', 'commit', 'rollback']);
    const gid = `${this.#name} ${this.#next}`;
    return `prepare transaction '${gid}'; ${random.pick(['commit', 'commit', 'rollback'])} prepared '${gid}'`;
  }

  #rows(most: number): string {
    const random = this.#random;
    const count = random.between(1, most);
    const at = random.between(this.#first, this.#next);
    switch (random.between(0, 4)) {
      case 0:
        return `update t set v = v || 'u', id = -id where abs(id) between ${at} and ${at + count}`;
      case 1:
        return `delete from t where abs(id) between ${at} and ${at + Math.ceil(count / 10)}`;
      default:
        this.#next += count;
        return `insert into t select i, repeat(chr(97 + i % 26), i % 150) from generate_series(${this.#next - count}, ${this.#next - 1}) i`;
    }
  }
}

/** Lets sessions write to table `t (id int primary key, v text)` of a database, one step of one of them at a time. */
export async function writeAtRandom(url: string, random: Random, sessions: number, steps: number): Promise<string[]> {
  const all: Session[] = [];
  const log: string[] = [];
  try {
    for (let n = 1; n <= sessions; n++) {
      const client = new pg.Client(url);
      await client.connect();
      all.push(new Session(random, `session ${n}`, client, n * IDS_PER_SESSION));
    }
    for (let step = 0; step < steps; step++) log.push(await random.pick(all).step());
    for (const session of all) await session.settle();
  } finally {
    for (const session of all) await session.close();
  }
  return log;
}
