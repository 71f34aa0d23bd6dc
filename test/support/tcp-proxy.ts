/** A port that forwards to another one, can be cut, falls silent, and may be slow: what a network does. */
import { Transform } from 'node:stream';
import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';

export class TcpProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #open = true;
  #silent = false;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** What comes from the other side comes at `bytesPerMs` at most. */
  static async start(
    to: { readonly host: string; readonly port: number },
    { bytesPerMs }: { readonly bytesPerMs?: number } = {},
  ): Promise<TcpProxy> {
    const server = createServer();
    const proxy = new TcpProxy(server);
    server.on('connection', (incoming) => {
      if (!proxy.#open) {
        incoming.destroy();
        return;
      }
      const outgoing = connect(to.port, to.host);
      for (const [socket, other] of [
        [incoming, outgoing],
        [outgoing, incoming],
      ] as const) {
        proxy.#sockets.add(socket);
        socket.on('error', () => other.destroy());
        socket.on('close', () => {
          proxy.#sockets.delete(socket);
          other.destroy();
        });
      }
      incoming.pipe(outgoing);
      if (bytesPerMs === undefined) outgoing.pipe(incoming);
      else outgoing.pipe(slowed(bytesPerMs)).pipe(incoming);
      if (proxy.#silent) proxy.#hush();
    });
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Ends all connections and refuses new ones. */
  cut(): void {
    this.#open = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend(): void {
    this.#open = true;
  }

  /** From now on nothing passes any more, and no connection ends: what a host does that is frozen. */
  freeze(): void {
    this.#silent = true;
    this.#hush();
  }

  /** Ends what is frozen; new connections work. */
  thaw(): void {
    this.#silent = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  #hush(): void {
    for (const socket of this.#sockets) {
      socket.unpipe();
      socket.pause();
    }
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

function slowed(bytesPerMs: number): Transform {
  return new Transform({
    transform: (piece: Buffer, _, done) => {
      const ms = Math.floor(piece.length / bytesPerMs);
      if (ms === 0) done(null, piece);
      else setTimeout(done, ms, null, piece);
    },
  });
}
