/** A warehouse in Postgres whose stock an outbound flow brings to tables of a shop of any kind. */
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Dialect } from '../../core/frame.ts';
import { CanonicalPipeline } from './canonical-pipeline.ts';
import { AnyClient } from './cross-pipeline.ts';
import type { EveryServer } from './every-server.ts';
import { STOCK_DDL, STOCK_MAP } from './stock-mapping.ts';
import { waitFor } from './wait.ts';

export class StockToShop {
  readonly flow: CanonicalPipeline;
  readonly wms: AnyClient;
  readonly shop: AnyClient;
  /** The mapping's file, as messages name it. */
  readonly map: string;
  /** Id of the stage that writes to the shop. */
  readonly apply: string;
  readonly flowName: string;
  readonly #folder: string;

  private constructor(
    flow: CanonicalPipeline,
    wms: AnyClient,
    shop: AnyClient,
    names: { map: string; folder: string; flow: string },
  ) {
    this.flow = flow;
    this.wms = wms;
    this.shop = shop;
    this.map = names.map;
    this.apply = `apply:${names.flow}`;
    this.flowName = names.flow;
    this.#folder = names.folder;
  }

  /** `blocks` is what the mapping does with `inventory_position`, in YAML. Nothing runs yet. Closed at the end of the test. */
  static async open(servers: EveryServer, kind: Dialect, ddl: string, blocks: string): Promise<StockToShop> {
    // Flows to MySQL share one database `waybill` on a server.
    const id = `s${randomUUID().slice(0, 8)}`;
    const folder = await mkdtemp(join(tmpdir(), 'waybill-stock-'));
    const map = join(folder, 'to-shop.yaml');
    await writeFile(join(folder, 'wms.yaml'), STOCK_MAP);
    await writeFile(map, mapOf(blocks));
    const [wmsUrl, visUrl] = [
      await servers.postgres.createDatabase(`${id}_wms`),
      await servers.postgres.createDatabase(`${id}_vis`),
    ];
    const shopUrl = await servers[kind].createDatabase(`${id}_shop`);
    const flow = await CanonicalPipeline.open({
      nats: servers.nats,
      sources: { wms: { kind: 'postgres', url: wmsUrl } },
      targetUrl: visUrl,
      targets: { shop: { kind, url: shopUrl } },
      flows: {
        stock: { canonical: 'inventory_position', from: { wms: { map: join(folder, 'wms.yaml') } } },
        [id]: { outbound: 'inventory_position', map, to: 'shop' },
      },
    });
    const [wms, shop] = [await AnyClient.open('postgres', wmsUrl), await AnyClient.open(kind, shopUrl)];
    const scene = servers.closing(new StockToShop(flow, wms, shop, { map, folder, flow: id }));
    await wms.run(STOCK_DDL);
    // Texts are what they are, as in Postgres, unless a test says otherwise.
    if (kind !== 'postgres') await shop.run('alter database character set utf8mb4 collate utf8mb4_bin');
    await shop.run(ddl);
    return scene;
  }

  start(): void {
    this.flow.start('capture:wms', 'transform:stock', this.apply);
  }

  /** Writes into the shop by another mapping from now on. */
  async remap(blocks: string): Promise<void> {
    await this.flow.stop(this.apply);
    await writeFile(this.map, mapOf(blocks));
    this.flow.start(this.apply);
  }

  /** Waits until a query of the shop gives these rows, each as one text. */
  async shows(sql: string, rows: readonly string[]): Promise<void> {
    let seen: string[] = [];
    await waitFor(sql, async () => {
      if (this.flow.failure !== undefined) throw this.flow.failure;
      seen = (await this.shop.run(sql)).map((row) => row.join('|'));
      return JSON.stringify(seen) === JSON.stringify(rows) ? true : undefined;
    }).catch((cause: unknown) => {
      throw new Error(`shows ${JSON.stringify(seen)}, not ${JSON.stringify(rows)}`, { cause });
    });
  }

  /** Waits until just these records are held, each as its key and why. */
  async holds(...rows: string[]): Promise<void> {
    const key = this.shop.dialect === 'postgres' ? 'key' : '`key`';
    await this.shows(`select ${key}, message from waybill.quarantine where flow = '${this.flowName}' order by 1`, rows);
  }

  async close(): Promise<void> {
    await this.flow.close();
    await Promise.all([this.wms.close(), this.shop.close()]);
    await rm(this.#folder, { recursive: true, force: true });
  }
}

function mapOf(blocks: string): string {
  return `version: 1\nname: to_shop\noutbound:\n  inventory_position:\n${blocks}`;
}
