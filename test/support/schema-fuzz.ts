/** Random changes of rows and definitions at a Postgres source, with reads of tables, restarts and kills in between. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import type { Random } from '../../sandbox/demo/random.ts';
import { FuzzedTables } from './fuzzed-tables.ts';
import { killAtRandom } from './random-kill.ts';
import type { SchemaCase } from './schema-case.ts';
import { Stage } from './stage.ts';

/** Processes start slowly on a machine that is busy. */
const DEADLINE_MS = 90_000;
const POINTS = [
  undefined,
  'capture.published-before-ack',
  'capture.acked',
  'capture.mid-snapshot',
  'capture.mid-transaction',
] as const;

export class SchemaFuzz {
  readonly #it: SchemaCase;
  readonly #random: Random;
  readonly #tables: FuzzedTables;
  /** With all statements that there are, and a capture that is killed. */
  readonly #thorough: boolean;
  readonly log: string[] = [];
  restarts = 0;
  kills = 0;
  /** The capture, where it is a process of its own, which can be killed. */
  #capture: Stage | undefined;
  #folder: string | undefined;

  private constructor(it: SchemaCase, random: Random, thorough: boolean) {
    this.#it = it;
    this.#random = random;
    this.#tables = new FuzzedTables(random, thorough);
    this.#thorough = thorough;
  }

  /** `it` was opened with `FuzzedTables.ddl`. */
  static async open(it: SchemaCase, random: Random, how: { readonly thorough: boolean }): Promise<SchemaFuzz> {
    const fuzz = new SchemaFuzz(it, random, how.thorough);
    // What statements take from `random()` is the same for the same seed.
    await it.pipe.source.query('select setseed($1)', [random.next()]);
    if (how.thorough) await fuzz.#startProcess();
    return fuzz;
  }

  async #startProcess(): Promise<void> {
    const { pipe } = this.#it;
    this.#folder = await mkdtemp(join(tmpdir(), 'waybill-fuzz-'));
    const configFile = join(this.#folder, 'waybill.json');
    await writeFile(configFile, pipe.yaml);
    await pipe.stop(['capture']);
    const logFile = join(this.#folder, 'log');
    this.#capture = new Stage({ configFile, only: 'capture:wms', logFile, leaseTtlMs: 1000 });
    this.#capture.start();
  }

  async close(): Promise<void> {
    await this.#capture?.end('SIGKILL');
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true });
  }

  /** A dozen steps, some of them together in a transaction, some while a stage is away. */
  async sequence(): Promise<void> {
    await this.#told(() => this.#sequence());
  }

  async #sequence(): Promise<void> {
    const random = this.#random;
    const away = random.pick(['', '', '', 'capture', 'apply']) as '' | 'capture' | 'apply';
    if (away !== '') await this.#restart(away, false);
    for (let step = random.between(4, 12); step > 0; step--) {
      const together = random.between(0, 3) === 0;
      await this.#run(together ? this.#tables.transaction() : this.#tables.statement());
      if (random.between(0, 9) === 0) await this.#reread(this.#tables.any);
      // All rows are written anew, and none is another one.
      if (this.#thorough && random.between(0, 19) === 0) await this.#run(`vacuum full ${this.#tables.any}`);
      const narrowed = this.#thorough && random.between(0, 19) === 0 ? this.#tables.narrow() : undefined;
      if (narrowed !== undefined) await this.#run(narrowed);
      if (this.#capture !== undefined && away !== 'capture' && random.between(0, 7) === 0) await this.#kill();
    }
    for (const sql of this.#tables.tidy()) await this.#run(sql);
    for (const name of this.#tables.stopped()) await this.#reread(name);
    if (away !== '') await this.#restart(away, true);
    else if (random.between(0, 3) === 0) {
      const stage = random.pick(['capture', 'apply'] as const);
      await this.#restart(stage, false);
      await this.#restart(stage, true);
    }
  }

  /** Waits until both sides are equal. */
  async equal(): Promise<void> {
    await this.#told(() =>
      this.#it.equal({
        look: () => {
          // One that killed itself where it was told to.
          if (this.#capture?.running === false) this.#capture.start();
        },
        deadlineMs: DEADLINE_MS,
        mayBeLeft: (name) => this.#tables.mayBeLeft(name),
      }),
    );
  }

  /** What fails tells the last steps, and what the capture said. */
  async #told(act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (thrown) {
      const output = this.#capture?.log() ?? '';
      throw new Error(`${this.log.slice(-60).join('\n')}\n${output}`, { cause: thrown });
    }
  }

  async #run(sql: string): Promise<void> {
    this.log.push(sql);
    await this.#it.run(sql);
  }

  async #restart(stage: 'capture' | 'apply', start: boolean): Promise<void> {
    this.log.push(`-- ${start ? 'start' : 'stop'} ${stage}`);
    const { pipe } = this.#it;
    if (stage === 'capture' && this.#capture !== undefined) {
      if (start) this.#capture.start();
      else await this.#capture.end('SIGTERM');
    } else if (start) pipe.start([stage]);
    else await pipe.stop([stage]);
    this.restarts += start ? 1 : 0;
  }

  async #kill(): Promise<void> {
    this.log.push(`-- kill capture ${await killAtRandom(this.#random, this.#capture!, POINTS)}`);
    this.kills += 1;
  }

  async #reread(name: string): Promise<void> {
    this.log.push(`-- read ${name} again`);
    await requestSnapshot(this.#it.pipe.config.nats, 'wms', { tables: [`public.${name}`] });
  }
}
