/** What the benchmarks share: servers with equal settings, backlogs, processes and their use of CPU and memory. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';

const PROGRAM = resolve(import.meta.dirname, '../../cli/main.js');
const CLOCK_TICKS = 100;

export async function withClient<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

export function sql(url: string, ...statements: string[]): Promise<void> {
  return withClient(url, async (client) => {
    for (const statement of statements) await client.query(statement);
  });
}

export async function scalar(url: string, statement: string): Promise<string> {
  return withClient(url, async (client) =>
    String((await client.query({ text: statement, rowMode: 'array' })).rows[0]?.[0]),
  );
}

/** Polls until the probe is true; gives the seconds since `sinceMs`. */
export async function until(
  what: string,
  sinceMs: number,
  probe: () => Promise<boolean>,
  deadlineMs = 300_000,
): Promise<number> {
  while (!(await probe())) {
    if (performance.now() - sinceMs > deadlineMs) throw new Error(`${what} took longer than ${deadlineMs} ms`);
    await delay(5);
  }
  return (performance.now() - sinceMs) / 1000;
}

/**
 * Polls until a statement gives true, over one connection: a new one for every look would take a good part of the machine
 * from the contenders. Gives the seconds since `sinceMs`.
 */
export function untilTrue(what: string, sinceMs: number, url: string, statement: string): Promise<number> {
  return withClient(url, (client) =>
    until(
      what,
      sinceMs,
      async () => (await client.query<[boolean]>({ text: statement, rowMode: 'array' })).rows[0]?.[0] === true,
    ),
  );
}

export interface Usage {
  readonly cpuSeconds: number;
  readonly peakRssMb: number;
}

/** A process of Waybill with its use of the machine. */
export class Program {
  readonly #child: ChildProcess;
  #log = '';

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stderr?.on('data', (data: Buffer) => (this.#log = (this.#log + data.toString()).slice(-4000)));
  }

  static start(configFile: string, only: string): Program {
    return new Program(
      spawn(
        PROGRAM,
        ['run', '--config', configFile, '--only', only, '--listen', '127.0.0.1:0', '--log-level', 'warn'],
        { stdio: ['ignore', 'ignore', 'pipe'] },
      ),
    );
  }

  /** Throws what it says when it has ended, or one of its stages has: nothing that is waited for will come. */
  alive(): void {
    if (this.#child.exitCode !== null) throw new Error(`waybill ended early:\n${this.#log}`);
    const error = this.#log.split('\n').find((line) => line.startsWith('{"level":50'));
    if (error !== undefined) throw new Error(`a stage of waybill ended early:\n${error}`);
  }

  usage(): Usage {
    this.alive();
    const stat = readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
    const status = readFileSync(`/proc/${this.#child.pid}/status`, 'utf8');
    return {
      cpuSeconds: (Number(stat[11]) + Number(stat[12])) / CLOCK_TICKS,
      peakRssMb: Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024,
    };
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await gone;
  }
}

/** Writes a configuration that measures the log alone, if not told otherwise: no first load, and no waiting for the broker's disk. */
export async function writeConfig(options: {
  natsUrl: string;
  prefix: string;
  sourceUrl: string;
  targetUrl: string;
  schema: string;
  tables?: string;
  snapshot?: string;
  streaming?: 'on' | 'off';
  streamBytes?: string;
}): Promise<string> {
  const file = join(await mkdtemp(join(tmpdir(), 'waybill-bench-')), 'waybill.yaml');
  await writeFile(
    file,
    `version: 1
nats: { servers: ["${options.natsUrl}"], prefix: ${options.prefix}, stream: { sync_interval: 0s, max_bytes: ${options.streamBytes ?? '2GB'} } }
sources: { bench: { kind: postgres, url: "${options.sourceUrl}", tables: ["${options.tables ?? 'public.items'}"], snapshot: ${options.snapshot ?? 'never'}, streaming: ${options.streaming ?? 'off'} } }
targets: { store: { kind: postgres, url: "${options.targetUrl}" } }
flows: { replica: { mirror: bench, to: store, schema: ${options.schema} } }
`,
  );
  return file;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  if (sorted.length % 2 === 1) return sorted[middle]!;
  return (sorted[middle - 1]! + sorted[middle]!) / 2;
}
