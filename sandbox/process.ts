import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { open, readFile, readdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from './errors.ts';
import type { Identity } from './identity.ts';

/** How to run a command. */
export interface RunOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly identity?: Identity | undefined;
  /** What the command reads from its standard input; nothing if left out. */
  readonly input?: string;
}

/** Runs a command to its end and gives its standard output; an exit code other than 0 is an error with its output. */
export async function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const child = spawn(file, args, {
    cwd: options.cwd ?? '/',
    env: options.env ?? process.env,
    stdio: ['pipe', 'pipe', 'pipe'],
    ...options.identity,
  });
  // A command that ends without having read it all says why by its exit code.
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  return await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      if (code === 0) resolve(stdout);
      else
        reject(new Error(`${file} ended with ${signal ?? `code ${code}`}: ${(stderr || stdout).trim().slice(-2000)}`));
    });
  });
}

/** A server process, in a process group of its own so that a Ctrl-C for us is not one for it. */
export interface ServerProcess {
  readonly pid: number;
  /** Why it ended ('code 1', 'SIGKILL'), undefined while it runs. */
  ended(): string | undefined;
  /** Sends a signal to the process; does nothing once it has ended. */
  signal(name: NodeJS.Signals): void;
  /** Resolves when it has ended and been reaped. */
  readonly exited: Promise<void>;
}

/** What to start as a server. */
export interface ServerCommand {
  readonly file: string;
  readonly args: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
}

/** Starts a server with its output appended to `logFile`. It does not keep this process alive. */
export async function startProcess(
  command: ServerCommand,
  options: { readonly cwd: string; readonly logFile: string; readonly identity: Identity | undefined },
): Promise<ServerProcess> {
  const log = await open(options.logFile, 'a');
  try {
    const child = spawn(command.file, command.args, {
      cwd: options.cwd,
      env: command.env ?? process.env,
      stdio: ['ignore', log.fd, log.fd],
      detached: true,
      ...options.identity,
    });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
    child.unref();
    return asServer(child);
  } finally {
    await log.close();
  }
}

function asServer(child: ChildProcess): ServerProcess {
  const ended = (): string | undefined =>
    child.signalCode ?? (child.exitCode === null ? undefined : `code ${child.exitCode}`);
  return {
    pid: child.pid ?? 0,
    ended,
    signal(name) {
      if (ended() === undefined) child.kill(name);
    },
    exited: new Promise((resolve) => {
      if (ended() === undefined) child.once('exit', () => resolve());
      else resolve();
    }),
  };
}

/** How long, and for what, to poll. */
export interface PollOptions {
  /** What is waited for, as the error names it. */
  readonly what: string;
  readonly deadlineMs: number;
  readonly intervalMs?: number;
}

/**
 * Calls `probe` until it does not throw, and gives what it returned. A `Fatal` ends the wait at once; the deadline ends
 * it with the last error as its cause.
 */
export async function poll<T>(probe: () => T | Promise<T>, options: PollOptions): Promise<T> {
  const deadline = performance.now() + options.deadlineMs;
  for (;;) {
    try {
      return await probe();
    } catch (error) {
      if (error instanceof Fatal) throw error.cause;
      if (performance.now() > deadline) {
        const seconds = options.deadlineMs / 1000;
        throw new Error(`${options.what}: not after ${seconds} s (${messageOf(error)})`, { cause: error });
      }
      await sleep(options.intervalMs ?? 20);
    }
  }
}

/** Thrown by a probe: waiting longer is of no use. The cause is what the caller of `poll` gets. */
export class Fatal extends Error {
  constructor(cause: Error) {
    super(cause.message, { cause });
  }
}

/** Whether a process runs. One that has ended and only waits to be reaped does not. */
export async function isRunning(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
  const row = await statOf(pid);
  return row === undefined || row.state !== 'Z';
}

/**
 * Stops a process with SIGSTOP and returns once all its threads stand still, or it is gone. `kill` returns before the
 * signal has taken effect, and what a process does until then is done by one that counts as stopped. Where there is no
 * /proc to look at, nothing is waited for.
 */
export async function suspend(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  const threads = `/proc/${pid}/task`;
  const still = async (): Promise<void> => {
    for (const thread of await readdir(threads).catch(() => [])) {
      const { state = 'X' } = (await statAt(`${threads}/${thread}`)) ?? {};
      if (!'TtZX'.includes(state)) throw new Error(`thread ${thread} is in state ${state}`);
    }
  };
  await poll(still, { what: `process ${pid} stopped`, deadlineMs: 30_000, intervalMs: 1 });
}

/** The process ids of the children of `pid`. */
export async function childrenOf(pid: number): Promise<number[]> {
  if (!existsSync('/proc/self/stat')) {
    const rows = (await run('ps', ['-A', '-o', 'pid=,ppid='])).split('\n').map((row) => row.trim().split(/\s+/));
    return rows.filter((row) => Number(row[1]) === pid).map((row) => Number(row[0]));
  }
  const found: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    if ((await statOf(Number(name)))?.parent === pid) found.push(Number(name));
  }
  return found;
}

async function statOf(pid: number): Promise<{ state: string; parent: number } | undefined> {
  return await statAt(`/proc/${pid}`);
}

/** State and parent of the process, or the thread, whose folder of /proc this is; undefined once it is gone. */
async function statAt(folder: string): Promise<{ state: string; parent: number } | undefined> {
  const text = await readFile(`${folder}/stat`, 'utf8').catch(() => undefined);
  // proc(5): "pid (comm) state ppid …", and comm may hold spaces and brackets.
  const [state, parent] = text?.slice(text.lastIndexOf(')') + 2).split(' ') ?? [];
  return state === undefined ? undefined : { state, parent: Number(parent) };
}
