/**
 * The version of each table that the stream carries last, in the KV bucket: what changed while a capture was away is a
 * change like any other.
 */
import type { KV } from '@nats-io/kv';
import { natsError } from '../core/nats.ts';

const FORMAT = 1;
/** Reads that are under way at a time. */
const READS = 64;

/** How the name of an entry, of letters that the bucket allows, comes from what tells tables apart. */
export interface EntryNames<K> {
  readonly nameOf: (id: K) => string;
  /** Undefined for the name of an entry of another kind. */
  readonly idOf: (name: string) => K | undefined;
}

/** For tables that are told apart by an object id. */
export const BY_OID: EntryNames<number> = {
  nameOf: String,
  idOf: (name) => (/^\d+$/.test(name) ? Number(name) : undefined),
};

/** For tables that are told apart by their names. */
export const BY_NAME: EntryNames<string> = {
  nameOf: (id) => `=${Buffer.from(id).toString('base64url')}`,
  idOf: (name) => (name.startsWith('=') ? Buffer.from(name.slice(1), 'base64url').toString() : undefined),
};

/** Removes all entries of a source, of whatever kind it was. */
export async function forgetTables(bucket: KV, source: string): Promise<void> {
  try {
    const keys: string[] = [];
    for await (const key of await bucket.keys(`table.${source}.*`)) keys.push(key);
    for (const key of keys) await bucket.purge(key);
  } catch (thrown) {
    throw natsError(thrown, `removing the known tables of source ${source}`);
  }
}

export class TableRegistry<K, T> {
  readonly #bucket: KV;
  readonly #prefix: string;
  readonly #names: EntryNames<K>;
  readonly #stored: (table: T) => T;

  /** `stored` gives what of a table may leave its source. */
  constructor(bucket: KV, source: string, names: EntryNames<K>, stored: (table: T) => T) {
    this.#names = names;
    this.#stored = stored;
    this.#bucket = bucket;
    this.#prefix = `table.${source}.`;
  }

  /** All tables by their ids. One that another version of Waybill wrote in another form is left out. */
  async load(): Promise<Map<K, T>> {
    const tables = new Map<K, T>();
    try {
      const keys: string[] = [];
      for await (const key of await this.#bucket.keys(`${this.#prefix}*`)) keys.push(key);
      while (keys.length > 0)
        await Promise.all(
          keys.splice(0, READS).map(async (key) => {
            const id = this.#names.idOf(key.slice(this.#prefix.length));
            const entry = id === undefined ? null : await this.#bucket.get(key);
            if (id === undefined || entry === null || entry.operation !== 'PUT') return;
            const { v, table } = entry.json<{ v: number; table: T }>();
            if (v === FORMAT) tables.set(id, table);
          }),
        );
    } catch (thrown) {
      throw natsError(thrown, 'reading the known tables of the source');
    }
    return tables;
  }

  async put(id: K, table: T): Promise<void> {
    await this.#guard(this.#bucket.put(this.#keyOf(id), JSON.stringify({ v: FORMAT, table: this.#stored(table) })));
  }

  async delete(id: K): Promise<void> {
    await this.#guard(this.#bucket.purge(this.#keyOf(id)));
  }

  #keyOf(id: K): string {
    return this.#prefix + this.#names.nameOf(id);
  }

  async #guard(work: Promise<unknown>): Promise<void> {
    try {
      await work;
    } catch (thrown) {
      throw natsError(thrown, 'storing the known tables of the source');
    }
  }
}
