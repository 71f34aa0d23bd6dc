/** `COPY … FROM STDIN` (PostgreSQL documentation, "COPY Operations"), without a stream in between. */
import type { ClientBase, Connection, Submittable } from 'pg';

const COPY_DATA = 0x64;
const HEADER_BYTES = 5;

/** The parts of pg's connection that this needs; pg does not type them. */
interface WireConnection {
  readonly stream: {
    cork(): void;
    uncork(): void;
    write(bytes: Buffer, done?: () => void): boolean;
  };
  query(text: string): void;
  endCopyFrom(): void;
  sendCopyFail(reason: string): void;
}

/**
 * Sends pieces of data to `COPY … FROM STDIN`, no faster than the connection takes them. Throws what the server answered,
 * or what the pieces threw. Gives the number of rows that it took. A piece has been sent when the second one behind it is asked for, so that two buffers by turns
 * are enough.
 */
export async function copyIn(client: ClientBase, sql: string, pieces: Iterable<Buffer>): Promise<number> {
  const copy = client.query(new CopyIn(sql));
  await copy.started;
  let sending: Promise<void> | undefined;
  try {
    for (const piece of pieces) {
      const before = sending;
      sending = copy.send(piece);
      await before;
      if (copy.failed) break;
    }
    await sending;
  } catch (thrown) {
    copy.fail('the data ended early');
    // The server says that it was told to fail.
    await copy.ended.catch(() => undefined);
    throw thrown;
  }
  if (!copy.failed) copy.end();
  await copy.ended;
  return copy.rows;
}

class CopyIn implements Submittable {
  /** The server waits for data. */
  readonly started: Promise<void>;
  /** The server has taken all, or refused. */
  readonly ended: Promise<void>;
  failed = false;
  /** What the server has taken. */
  rows = 0;
  readonly #text: string;
  #connection: WireConnection | undefined;
  #start!: () => void;
  #end!: () => void;
  #refuse!: (error: unknown) => void;

  constructor(text: string) {
    this.#text = text;
    this.ended = new Promise((resolve, reject) => {
      this.#end = resolve;
      this.#refuse = reject;
    });
    this.ended.catch(() => undefined);
    this.started = Promise.race([new Promise<void>((resolve) => (this.#start = resolve)), this.ended]);
  }

  /** Resolves when the piece has left this process, or will not leave it any more. */
  send(piece: Buffer): Promise<void> {
    const { stream } = this.#connection!;
    const header = Buffer.allocUnsafe(HEADER_BYTES);
    header[0] = COPY_DATA;
    header.writeUInt32BE(piece.length + 4, 1);
    return new Promise((resolve) => {
      stream.cork();
      stream.write(header);
      stream.write(piece, () => resolve());
      stream.uncork();
    });
  }

  end(): void {
    this.#connection!.endCopyFrom();
  }

  fail(reason: string): void {
    if (!this.failed) this.#connection!.sendCopyFail(reason);
  }

  /** For pg, as what follows: the query's turn has come. */
  submit(connection: Connection): void {
    this.#connection = connection as unknown as WireConnection;
    this.#connection.query(this.#text);
  }

  handleCopyInResponse(): void {
    this.#start();
  }

  handleCommandComplete({ text }: { readonly text: string }): void {
    this.rows = Number(/^COPY (\d+)$/.exec(text)?.[1] ?? 0);
  }

  handleError(error: unknown): void {
    this.failed = true;
    this.#refuse(error);
  }

  handleReadyForQuery(): void {
    this.#end();
  }
}
