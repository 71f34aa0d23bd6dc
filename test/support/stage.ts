/** A stage of Waybill as a separate process that tests start, kill and start again. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, readFileSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { suspend } from '../../sandbox/process.ts';
import type { StageFacts } from '../../monitoring/health.ts';

/** Beside this file where that is built itself, as it is for benchmarks. */
const BUILT = resolve(import.meta.dirname, '../../cli/main.js');
const PROGRAM = existsSync(BUILT) ? BUILT : resolve(import.meta.dirname, '../../dist/cli/main.js');

export interface StageOptions {
  readonly configFile: string;
  /** As `run --only` takes it, e.g. `capture:wms`. */
  readonly only: string;
  readonly logFile: string;
  readonly leaseTtlMs: number;
  /** Where it serves HTTP; at a free port if left out. */
  readonly listen?: string;
  readonly env?: Readonly<Record<string, string>>;
}

export class Stage {
  readonly #options: StageOptions;
  #child: ChildProcess | undefined;
  /** Size of the log when the process was started. */
  #logStart = 0;

  constructor(options: StageOptions) {
    this.#options = options;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Starts the process; `failpoint` makes it kill itself there. */
  start(failpoint?: string): void {
    const { configFile, only, logFile, leaseTtlMs, listen = '127.0.0.1:0', env } = this.#options;
    this.#logStart = existsSync(logFile) ? statSync(logFile).size : 0;
    const child = spawn(
      PROGRAM,
      ['run', '--config', configFile, '--only', only, '--listen', listen, '--log-level', 'info'],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: {
          ...process.env,
          ...env,
          WAYBILL_LEASE_TTL_MS: String(leaseTtlMs),
          ...(failpoint === undefined ? {} : { WAYBILL_FAILPOINT: failpoint }),
        },
      },
    );
    const write = (data: Buffer): void => appendFileSync(logFile, data);
    child.stdout.on('data', write);
    child.stderr.on('data', write);
    this.#child = child;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** Makes the process hang; from then on it does nothing until SIGCONT. */
  async suspend(): Promise<void> {
    if (this.#child?.pid !== undefined) await suspend(this.#child.pid);
  }

  /** Sends a signal and waits until the process is gone; gives its exit status, null where the signal ended it. */
  async end(signal: NodeJS.Signals): Promise<number | null> {
    const child = this.#child;
    if (child === undefined || !this.running) return child?.exitCode ?? null;
    const gone = once(child, 'exit');
    child.kill(signal);
    await gone;
    return child.exitCode;
  }

  async exited(): Promise<void> {
    const child = this.#child;
    if (child !== undefined && this.running) await once(child, 'exit');
  }

  /** Where the process that was started last serves HTTP. Throws until it does. */
  url(): string {
    // One that was killed early may have said nothing of it: only what the last one wrote counts.
    const log = readFileSync(this.#options.logFile).subarray(this.#logStart).toString();
    const url = /"monitoring":"([^"]+)"/.exec(log)?.[1];
    if (url === undefined) throw new Error('the process does not listen yet');
    return url;
  }

  /** What the process says of itself at /status: the first of its stages. */
  async status(): Promise<StageFacts> {
    const response = await fetch(`${this.url()}/status`, { signal: AbortSignal.timeout(2000) });
    return ((await response.json()) as { stages: StageFacts[] }).stages[0]!;
  }

  log(): string {
    return readFileSync(this.#options.logFile, 'utf8').split('\n').slice(-30).join('\n');
  }
}
