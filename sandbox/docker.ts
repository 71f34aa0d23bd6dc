import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import type { ContainerRuntimeClient, GenericContainer } from 'testcontainers';
import { Turns, type ServerControl, type StopMode } from './control.ts';
import { messageOf, PortTakenError } from './errors.ts';
import { claimPort, type Claim } from './ports.ts';
import { Fatal, poll } from './process.ts';
import { startWatchdog, type Watchdog } from './watchdog.ts';

/** A container engine that answers. */
export interface Containers {
  readonly engine: ContainerRuntimeClient;
  /** The module testcontainers, loaded only when needed: that takes a second. */
  readonly kit: typeof import('testcontainers');
}

/** The container engine of this machine, as testcontainers finds it. Throws if none answers. */
export async function findContainers(): Promise<Containers> {
  const kit = await import('testcontainers');
  return { engine: await kit.getContainerRuntimeClient(), kit };
}

/** What differs between the kinds of server that run in containers. */
export interface ContainerRecipe {
  /** What errors call it. */
  readonly name: string;
  /** The port it listens on inside the container. */
  readonly innerPort: number;
  /** The container to start, its ports left out. */
  create(): GenericContainer;
  /** Throws unless the server answers there. */
  probe(address: { readonly host: string; readonly port: number }): Promise<void>;
  readonly stopSignals: Readonly<Record<StopMode, `SIG${string}`>>;
}

const readyWithinMs = 180_000;
const stopWithinMs = 60_000;

type Container = ReturnType<ContainerRuntimeClient['container']['getById']>;

/**
 * A server in a container. Its port is bound to a claimed one of this machine, so that it is the same after a restart;
 * it is nevertheless read again from the engine, which has the last word. Should this process die, testcontainers'
 * reaper removes the container.
 */
export class ContainerServer implements ServerControl {
  readonly host: string;
  #port: number;
  readonly #recipe: ContainerRecipe;
  readonly #container: Container;
  readonly #claim: Claim;
  readonly #watchdog: Watchdog;
  readonly #turns = new Turns();
  #disposed = false;

  private constructor(recipe: ContainerRecipe, container: Container, host: string, claim: Claim, watchdog: Watchdog) {
    this.#recipe = recipe;
    this.#container = container;
    this.host = host;
    this.#port = claim.port;
    this.#claim = claim;
    this.#watchdog = watchdog;
  }

  /** Starts the container and resolves when its server answers. */
  static async launch(containers: Containers, recipe: ContainerRecipe, port?: number): Promise<ContainerServer> {
    for (let attempt = 1; ; attempt++) {
      const claim = await claimPort(port);
      const watchdog = startWatchdog(claim.folder, 'KILL');
      try {
        const { container, host } = await startContainer(containers, recipe, claim.port);
        const server = new ContainerServer(recipe, container, host, claim, watchdog);
        await server.#ready().catch(async (error: unknown) => {
          await server.#remove();
          throw error;
        });
        return server;
      } catch (error) {
        await rm(claim.folder, { recursive: true, force: true });
        await watchdog.dismiss();
        const taken = /port is already allocated|address already in use/i.test(messageOf(error));
        if (!taken) throw error;
        if (port !== undefined || attempt === 5) throw new PortTakenError(messageOf(error), { cause: error });
      }
    }
  }

  get port(): number {
    return this.#port;
  }

  async start(): Promise<void> {
    await this.#turns.take(async () => {
      if (this.#disposed) throw new Error(`${this.#recipe.name} was disposed of`);
      if (await this.#runs()) return;
      await this.#container.start();
      await this.#ready();
    });
  }

  async stop(mode: StopMode = 'fast'): Promise<void> {
    await this.#turns.take(() => this.#end(this.#recipe.stopSignals[mode]));
  }

  async kill(): Promise<void> {
    // With its first process the engine kills all of a container's.
    await this.#turns.take(() => this.#end('SIGKILL'));
  }

  async dispose(): Promise<void> {
    await this.#turns.take(async () => {
      if (this.#disposed) return;
      this.#disposed = true;
      await this.#remove();
      await rm(this.#claim.folder, { recursive: true, force: true });
      await this.#watchdog.dismiss();
    });
  }

  async #ready(): Promise<void> {
    const { name, innerPort } = this.#recipe;
    const probe = async (): Promise<void> => {
      const { NetworkSettings, State } = await this.#container.inspect();
      if (!State.Running) {
        throw new Fatal(
          new Error(`${name} ended at its start with code ${State.ExitCode}:\n${await logTail(this.#container)}`),
        );
      }
      const bound = NetworkSettings.Ports[`${innerPort}/tcp`]?.[0]?.HostPort;
      if (bound === undefined) throw new Error(`port ${innerPort} of the container is not bound yet`);
      this.#port = Number(bound);
      await this.#recipe.probe({ host: this.host, port: this.#port });
    };
    await poll(probe, { what: `${name} in its container ready`, deadlineMs: readyWithinMs, intervalMs: 100 });
  }

  async #runs(): Promise<boolean> {
    return (await this.#container.inspect()).State.Running;
  }

  async #end(signal: string): Promise<void> {
    if (!(await this.#runs())) return;
    await this.#container.kill({ signal });
    const ended = async (): Promise<void> => {
      if (await this.#runs()) throw new Error('it runs');
    };
    await poll(ended, { what: `end of ${this.#recipe.name}`, deadlineMs: stopWithinMs, intervalMs: 50 });
  }

  async #remove(): Promise<void> {
    await this.#container.remove({ force: true, v: true });
  }
}

/** Starts a container; if that fails, the error has the end of its log and nothing of it is left. */
async function startContainer(
  { engine }: Containers,
  recipe: ContainerRecipe,
  port: number,
): Promise<{ container: Container; host: string }> {
  // testcontainers leaves a container that it failed to start where it is, and does not say which one.
  const label = 'waybill.sandbox';
  const value = randomUUID();
  try {
    const started = await recipe
      .create()
      .withLabels({ [label]: value })
      .withExposedPorts({ container: recipe.innerPort, host: port })
      .withStartupTimeout(readyWithinMs)
      .start();
    return { container: engine.container.getById(started.getId()), host: started.getHost() };
  } catch (error) {
    const container = await engine.container.fetchByLabel(label, value, {
      status: ['created', 'running', 'exited', 'dead'],
    });
    if (container === undefined) throw error;
    const log = await logTail(container).catch(() => '');
    await container.remove({ force: true, v: true });
    throw new Error(`${recipe.name}: ${messageOf(error)}\n${log}`.trim(), { cause: error });
  }
}

/** The end of what a container's process wrote. */
async function logTail(container: Container): Promise<string> {
  const log = await container.logs({ stdout: true, stderr: true, tail: 40 });
  const pieces: Buffer[] = [];
  // Docker's API, "Attach to a container": eight bytes before each piece of either stream, the last four its length.
  for (let at = 0; at + 8 <= log.length;) {
    const end = at + 8 + log.readUInt32BE(at + 4);
    pieces.push(log.subarray(at + 8, end));
    at = end;
  }
  return Buffer.concat(pieces).toString().trim();
}
