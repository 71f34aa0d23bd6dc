/** The program under demonstration, run as users run it: `waybill run` in a process of its own. */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export interface WaybillProcess {
  /** Why it ended ('code 1', 'SIGKILL'); undefined while it runs. */
  ended(): string | undefined;
  /** Rejects when it ends without having been stopped. */
  readonly failed: Promise<never>;
  /** Lets it finish what it is doing, and kills it when that takes more than 15 s. */
  stop(): Promise<void>;
}

const STOP_DEADLINE_MS = 15_000;

/** Starts `waybill run` with a configuration file; its log goes to `logFile`. */
export function startWaybill(configFile: string, logFile: string): WaybillProcess {
  const program = fileURLToPath(new URL('../../cli/main.js', import.meta.url));
  const log = openSync(logFile, 'a');
  // A group of its own, so that a Ctrl-C for the demo reaches it as the one stop below and not twice.
  const child = spawn(program, ['run', '--config', configFile], {
    stdio: ['ignore', log, log],
    detached: true,
  });
  closeSync(log);
  const killWithUs = (): void => {
    child.kill('SIGKILL');
  };
  process.once('exit', killWithUs);
  let end: string | undefined;
  let stopping = false;
  let reject: (reason: Error) => void = () => {};
  const failed = new Promise<never>((_, onReject) => (reject = onReject));
  failed.catch(() => undefined);
  const exited = new Promise<void>((resolve) => {
    const finish = (how: string): void => {
      if (end !== undefined) return;
      end = how;
      process.off('exit', killWithUs);
      if (!stopping) reject(new Error(`waybill ended with ${how}; its last words:\n${lastLines(logFile, 15)}`));
      resolve();
    };
    child.once('error', (error) => finish(error.message));
    child.once('exit', (code, signal) => finish(signal ?? `code ${code}`));
  });
  return {
    ended: () => end,
    failed,
    async stop() {
      stopping = true;
      if (end === undefined) child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_DEADLINE_MS);
      await exited;
      clearTimeout(timer);
    },
  };
}

function lastLines(file: string, count: number): string {
  return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-count).join('\n');
}
