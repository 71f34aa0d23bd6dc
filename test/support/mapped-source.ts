/** A source with one mapping of its rows, and flows of the records into another database: on servers of their own. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { startNats } from '../../sandbox/nats.ts';
import { startPostgres } from '../../sandbox/postgres.ts';
import { CanonicalPipeline } from './canonical-pipeline.ts';

export class MappedSource {
  readonly #cleanups: (() => Promise<unknown>)[] = [];
  #source!: pg.Client;
  #flow!: CanonicalPipeline;
  #map!: string;

  private constructor() {}

  /** Runs `tables` in the source, and starts a flow of each entity, of its name. */
  static async open(options: {
    name: string;
    tables: readonly string[];
    mapping: string;
    entities: readonly string[];
    settings?: Record<string, unknown>;
  }): Promise<MappedSource> {
    const made = new MappedSource();
    try {
      await made.#open(options);
      return made;
    } catch (thrown) {
      await made.close();
      throw thrown;
    }
  }

  /** A connection to the source. */
  get source(): pg.Client {
    return this.#source;
  }

  get flow(): CanonicalPipeline {
    return this.#flow;
  }

  /** The file of the mapping. */
  get map(): string {
    return this.#map;
  }

  async #open(options: Parameters<typeof MappedSource.open>[0]): Promise<void> {
    const { name, tables, mapping, entities, settings = {} } = options;
    const folder = await mkdtemp(join(tmpdir(), `waybill-${name}-`));
    this.#cleanups.push(() => rm(folder, { recursive: true, force: true }));
    this.#map = join(folder, 'map.yaml');
    await writeFile(this.#map, mapping);
    const [postgres, nats] = await Promise.all([startPostgres(), startNats()]);
    this.#cleanups.push(() => Promise.all([postgres.dispose(), nats.dispose()]));
    const url = await postgres.createDatabase(name);
    this.#source = new pg.Client({ connectionString: url });
    await this.#source.connect();
    this.#cleanups.push(() => this.#source.end());
    for (const statement of tables) await this.#source.query(statement);
    const ofEntity = (entity: string): [string, Record<string, unknown>] => [
      entity,
      { canonical: entity, from: { [name]: { map: this.#map } }, delivery: 'realtime', ...settings },
    ];
    this.#flow = await CanonicalPipeline.open({
      nats,
      sources: { [name]: { kind: 'postgres', url } },
      targetUrl: await postgres.createDatabase('vis'),
      flows: Object.fromEntries(entities.map(ofEntity)),
    });
    this.#cleanups.push(() => this.#flow.close());
    this.#flow.start(`capture:${name}`, ...entities.flatMap((entity) => [`transform:${entity}`, `apply:${entity}`]));
  }

  async close(): Promise<void> {
    for (const cleanup of this.#cleanups.splice(0).toReversed()) await cleanup();
  }
}
