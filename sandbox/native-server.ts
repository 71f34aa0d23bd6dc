import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Turns, type ServerControl, type StopMode } from './control.ts';
import { PortTakenError } from './errors.ts';
import { serverIdentity } from './identity.ts';
import { claimPort, type Claim } from './ports.ts';
import {
  childrenOf,
  Fatal,
  isRunning,
  poll,
  startProcess,
  suspend,
  type ServerCommand,
  type ServerProcess,
} from './process.ts';
import { startWatchdog, type Watchdog } from './watchdog.ts';

/** What differs between the kinds of server. */
export interface ServerRecipe {
  /** What errors call it: 'PostgreSQL 18.4'. */
  readonly name: string;
  /** Fills the claimed folder, once, before the first start. */
  prepare(claim: Claim): Promise<void>;
  /** The command that runs the server in the foreground. */
  command(claim: Claim): ServerCommand;
  /** Throws unless this very server answers. A `Fatal` says that it never will. */
  probe(claim: Claim): Promise<void>;
  readonly stopSignals: Readonly<Record<StopMode, 'QUIT' | 'KILL' | 'TERM' | 'INT'>>;
  /** What the watchdog sends if we die. */
  readonly orphanSignal: 'QUIT' | 'KILL' | 'TERM';
}

const readyWithinMs = 120_000;
const stopWithinMs = 60_000;

/** A server process on this machine with its folder: the lifecycle that all kinds share. */
export class NativeServer implements ServerControl {
  readonly host = '127.0.0.1';
  readonly #recipe: ServerRecipe;
  readonly #claim: Claim;
  readonly #watchdog: Watchdog;
  #process: ServerProcess | undefined;
  #disposed = false;
  readonly #turns = new Turns();

  private constructor(recipe: ServerRecipe, claim: Claim) {
    this.#recipe = recipe;
    this.#claim = claim;
    this.#watchdog = startWatchdog(claim.folder, recipe.orphanSignal);
  }

  /**
   * Claims a port, prepares the folder and starts the server; resolves when it answers.
   *
   * @throws PortTakenError if the port asked for is taken
   */
  static async launch(recipe: ServerRecipe, port?: number): Promise<NativeServer> {
    for (let attempt = 1; ; attempt++) {
      const server = new NativeServer(recipe, await claimPort(port));
      try {
        await recipe.prepare(server.#claim);
        await server.start();
        return server;
      } catch (error) {
        await server.dispose();
        if (!(error instanceof PortTakenError) || port !== undefined || attempt === 5) throw error;
      }
    }
  }

  get port(): number {
    return this.#claim.port;
  }

  get folder(): string {
    return this.#claim.folder;
  }

  get pid(): number | undefined {
    return this.#process?.ended() === undefined ? this.#process?.pid : undefined;
  }

  async start(): Promise<void> {
    await this.#turns.take(async () => {
      if (this.#disposed) throw new Error(`${this.#recipe.name} was disposed of`);
      if (this.pid === undefined) await this.#start();
    });
  }

  async stop(mode: StopMode = 'fast'): Promise<void> {
    await this.#turns.take(() => this.#stop(mode));
  }

  async kill(): Promise<void> {
    await this.#turns.take(() => this.#kill());
  }

  async dispose(): Promise<void> {
    await this.#turns.take(async () => {
      if (this.#disposed) return;
      this.#disposed = true;
      await this.#stop('immediate').catch(() => this.#kill());
      await rm(this.folder, { recursive: true, force: true, maxRetries: 10 });
      await this.#watchdog.dismiss();
    });
  }

  async #start(): Promise<void> {
    const { name } = this.#recipe;
    const logFile = join(this.folder, 'server.log');
    const logged = (await this.#readLog(logFile)).length;
    const options = { cwd: this.folder, logFile, identity: serverIdentity() };
    const server = await startProcess(this.#recipe.command(this.#claim), options);
    this.#process = server;
    this.#watchdog.watch(server.pid);
    void server.exited.then(() => {
      if (this.#process === server) this.#watchdog.watch(undefined);
    });
    const probe = async (): Promise<void> => {
      const before = server.ended();
      if (before === undefined) return await this.#recipe.probe(this.#claim);
      const log = (await this.#readLog(logFile)).slice(logged).trim();
      if (/address already in use/i.test(log))
        throw new Fatal(new PortTakenError(`${name}: port ${this.port} is taken`));
      throw new Fatal(new Error(`${name} ended at its start with ${before}:\n${log.slice(-4000)}`));
    };
    try {
      await poll(probe, { what: `${name} ready on port ${this.port}`, deadlineMs: readyWithinMs });
    } catch (error) {
      await this.#kill();
      throw error;
    }
  }

  async #stop(mode: StopMode): Promise<void> {
    const server = this.#process;
    if (!server) return;
    server.signal(`SIG${this.#recipe.stopSignals[mode]}`);
    await this.#gone(server, stopWithinMs);
  }

  async #kill(): Promise<void> {
    const server = this.#process;
    if (!server) return;
    // Stopped first, so that it cannot have another child between our look and its end.
    if (server.ended() === undefined) await suspend(server.pid);
    const children = await childrenOf(server.pid);
    server.signal('SIGKILL');
    await this.#gone(server, stopWithinMs);
    for (const child of children) {
      const ended = async (): Promise<void> => {
        if (await isRunning(child)) throw new Error(`process ${child} runs`);
      };
      // Children notice the death of their parent themselves, except for one in the midst of a computation.
      await poll(ended, { what: `end of process ${child}`, deadlineMs: 3_000 }).catch(async () => {
        process.kill(child, 'SIGKILL');
        await poll(ended, { what: `end of process ${child}`, deadlineMs: stopWithinMs });
      });
    }
  }

  async #gone(server: ServerProcess, deadlineMs: number): Promise<void> {
    const ended = (): void => {
      if (server.ended() === undefined) throw new Error(`process ${server.pid} runs`);
    };
    await poll(ended, { what: `end of ${this.#recipe.name}`, deadlineMs, intervalMs: 5 });
  }

  async #readLog(file: string): Promise<string> {
    return await readFile(file, 'utf8').catch(() => '');
  }
}
