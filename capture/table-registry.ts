/**
 * The version of each table that the stream carries last, in the KV bucket: what changed while a capture was away is a
 * change like any other. Written before the first row of a version is published, so that it never lags behind the stream.
 */
import type { KV } from '@nats-io/kv';
import { natsError } from '../core/nats.ts';

const FORMAT = 1;
/** Reads that are under way at a time. */
const READS = 64;

export class TableRegistry<T> {
  readonly #bucket: KV;
  readonly #prefix: string;
  readonly #stored: (table: T) => T;

  /** `stored` gives what of a table may leave its source. */
  constructor(bucket: KV, source: string, stored: (table: T) => T) {
    this.#stored = stored;
    this.#bucket = bucket;
    this.#prefix = `table.${source}.`;
  }

  /** All tables by their ids. One that another version of Waybill wrote in another form is left out. */
  async load(): Promise<Map<number, T>> {
    const tables = new Map<number, T>();
    try {
      const keys: string[] = [];
      for await (const key of await this.#bucket.keys(`${this.#prefix}*`)) keys.push(key);
      while (keys.length > 0)
        await Promise.all(
          keys.splice(0, READS).map(async (key) => {
            const entry = await this.#bucket.get(key);
            if (entry === null || entry.operation !== 'PUT') return;
            const { v, table } = entry.json<{ v: number; table: T }>();
            if (v === FORMAT) tables.set(Number(key.slice(this.#prefix.length)), table);
          }),
        );
    } catch (thrown) {
      throw natsError(thrown, 'reading the known tables of the source');
    }
    return tables;
  }

  async put(id: number, table: T): Promise<void> {
    await this.#guard(
      this.#bucket.put(`${this.#prefix}${id}`, JSON.stringify({ v: FORMAT, table: this.#stored(table) })),
    );
  }

  async delete(id: number): Promise<void> {
    await this.#guard(this.#bucket.purge(`${this.#prefix}${id}`));
  }

  async #guard(work: Promise<unknown>): Promise<void> {
    try {
      await work;
    } catch (thrown) {
      throw natsError(thrown, 'storing the known tables of the source');
    }
  }
}
