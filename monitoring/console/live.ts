/** Sends the overview to every open page, as server-sent events. Nobody looks: nothing is asked. */
import type { ServerResponse } from 'node:http';
import { asReplicationError } from '../../core/errors.ts';
import type { ConsoleData } from './views.ts';

const EVERY_MS = 2000;
const MAX_PAGES = 64;

export class Live {
  readonly #data: ConsoleData;
  readonly #pages = new Set<ServerResponse>();
  #timer: NodeJS.Timeout | undefined;
  #asking = false;
  #last: string | undefined;

  constructor(data: ConsoleData) {
    this.#data = data;
  }

  /** Keeps a page told until it goes. Says 503 beyond 64 pages. */
  join(response: ServerResponse): void {
    if (this.#pages.size >= MAX_PAGES) {
      response.writeHead(503, { 'Retry-After': '30' }).end();
      return;
    }
    response.writeHead(200, {
      'Content-Type': 'text/event-stream',
      'Cache-Control': 'no-store',
      'X-Accel-Buffering': 'no',
    });
    response.write('retry: 2000\n\n');
    if (this.#last !== undefined) response.write(this.#last);
    this.#pages.add(response);
    response.on('close', () => {
      this.#pages.delete(response);
      if (this.#pages.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
      this.#last = undefined;
    });
    this.#timer ??= setInterval(() => void this.#tell(), EVERY_MS);
    void this.#tell();
  }

  async #tell(): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    try {
      const event = `event: overview\ndata: ${JSON.stringify(await this.#data.overview())}\n\n`;
      // Where everybody has left meanwhile, it would be old news to whoever comes next.
      if (this.#pages.size > 0) this.#last = event;
      this.#send(event);
    } catch (thrown) {
      const { code, message } = asReplicationError(thrown);
      this.#send(`event: trouble\ndata: ${JSON.stringify({ code, message })}\n\n`);
    } finally {
      this.#asking = false;
    }
  }

  #send(event: string): void {
    // One that takes nothing at the moment misses this one: the next says more. One that has ended takes no more at all.
    for (const page of this.#pages) if (!page.writableNeedDrain && !page.writableEnded) page.write(event);
  }

  close(): void {
    clearInterval(this.#timer);
    for (const page of this.#pages) page.end();
    this.#pages.clear();
  }
}
