/** The real command line, with configurations of its own: for tests of what it says when something is wrong. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect } from 'vitest';
import { policyFor, type ErrorCode } from '../../core/errors.ts';

const PROGRAM = resolve(import.meta.dirname, '../../dist/cli/main.js');

/** A command that was not told to end, or did not, is at fault by then: before the test itself is (its `testTimeout`). */
const DEADLINE_MS = 200_000;

export interface Outcome {
  readonly status: number | null;
  readonly output: string;
}

export class CommandLine {
  readonly folder: string;
  readonly #deadlineMs: number;
  readonly #running = new Set<ChildProcess>();
  #count = 0;

  private constructor(folder: string, deadlineMs: number) {
    this.folder = folder;
    this.#deadlineMs = deadlineMs;
  }

  static async open(deadlineMs = DEADLINE_MS): Promise<CommandLine> {
    return new CommandLine(await mkdtemp(join(tmpdir(), 'waybill-cli-')), deadlineMs);
  }

  async close(): Promise<void> {
    for (const child of this.#running) child.kill('SIGKILL');
    await rm(this.folder, { recursive: true, force: true });
  }

  /** A number that no other call gives: for names. */
  next(): number {
    return ++this.#count;
  }

  async writeConfig(config: string): Promise<string> {
    const file = join(this.folder, `${this.next()}.yaml`);
    await writeFile(file, config);
    return file;
  }

  /** Runs a command to its end, or to the moment when `until` holds of its output; then it is told to drain. */
  async waybill(config: string, args: readonly string[], until?: (output: string) => boolean): Promise<Outcome> {
    const file = await this.writeConfig(config);
    const child = spawn(PROGRAM, [...args, '--config', file], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, WAYBILL_LEASE_TTL_MS: '1500' },
    });
    this.#running.add(child);
    let output = '';
    let told = false;
    const read = (data: Buffer): void => {
      output += data.toString();
      // Once: a second signal means something else.
      if (told || until?.(output) !== true) return;
      told = true;
      child.kill('SIGTERM');
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
    const late = setTimeout(() => child.kill('SIGKILL'), this.#deadlineMs);
    const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
    clearTimeout(late);
    this.#running.delete(child);
    if (signal === 'SIGKILL') throw new Error(`waybill ${args.join(' ')} went on and on:\n${output}`);
    return { status, output };
  }

  /** Tells what is running to drain. */
  drain(): void {
    for (const child of this.#running) child.kill('SIGTERM');
  }

  /** Ends what is running as a machine does that loses its power. */
  kill(): void {
    for (const child of this.#running) child.kill('SIGKILL');
  }

  /** Runs stages until the error of this code is in the log; what it says must go with what to do about it. */
  async run(config: string, code: ErrorCode, only?: string): Promise<Outcome> {
    const args = ['run', '--listen', '127.0.0.1:0', ...(only === undefined ? [] : ['--only', only])];
    const outcome = await this.waybill(config, args, (output) => output.includes(`"code":"${code}"`));
    expect(outcome.output).toContain(`"code":"${code}"`);
    if (policyFor(code).action !== 'retry') expect(outcome.output).toContain(JSON.stringify(policyFor(code).remedy));
    return outcome;
  }

  /** Runs `check`, which must find this error and say what to do about it. */
  async check(config: string, code: ErrorCode): Promise<string> {
    const { status, output } = await this.waybill(config, ['check']);
    expect(status, output).toBe(1);
    expect(output).toContain(code);
    expect(output).toContain(policyFor(code).remedy);
    return output;
  }
}
