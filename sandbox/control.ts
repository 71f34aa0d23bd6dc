/** How a server is asked to stop: in good order, or with its clients cut off and recovery left to the next start. */
export type StopMode = 'fast' | 'immediate';

/** The lifecycle that all servers of the sandbox share, wherever they run. Calls are taken in turn. */
export interface ServerControl {
  readonly host: string;
  readonly port: number;
  /** The process id of the server; undefined while it does not run, or runs elsewhere. */
  readonly pid?: number | undefined;
  /** Stops the server and keeps its data; does nothing if it does not run. */
  stop(mode?: StopMode): Promise<void>;
  /** Kills the server with SIGKILL and waits until none of its processes is left. Its data stays. */
  kill(): Promise<void>;
  /** Starts the server again on its port and data and waits until it answers; does nothing if it runs. */
  start(): Promise<void>;
  /** Ends the server by whatever it takes and deletes everything of it. Idempotent. */
  dispose(): Promise<void>;
}

/** The control of a server that is not ours: it can be used, not stopped, and disposing of it leaves it alone. */
export function foreignControl(url: URL, defaultPort: number, variable: string): ServerControl {
  const refuse = async (): Promise<never> => {
    throw new Error(`the server of ${variable} is not the sandbox's to stop, kill or start`);
  };
  return {
    host: url.hostname,
    port: Number(url.port || defaultPort),
    stop: refuse,
    kill: refuse,
    start: refuse,
    dispose: async () => undefined,
  };
}

/** Takes asynchronous actions one after the other, in the order they come in. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `action` when all before it have ended, however they did. */
  async take<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#last.then(action);
    this.#last = result.catch(() => undefined);
    return await result;
  }
}
