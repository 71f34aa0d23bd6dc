/** A warehouse that is replicated by one process and shown by another: with rows that were refused and rows that differ. */
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { Pipeline } from './pipeline.ts';
import { Stage } from './stage.ts';
import { waitFor } from './wait.ts';

export const TOKEN = 'a-token-for-the-console-of-this-test';

const DDL = `
create table orders (id int primary key, customer text not null, state text not null, total numeric(10, 2) not null,
  note text, login_token text, placed_at timestamptz not null);
create table stock (sku text primary key, location text not null, on_hand int not null, allocated int not null default 0);
create table codes (login_pin text primary key, n int);
insert into codes values ('pin-do-not-show-1', 1), ('pin-do-not-show-2', 2);
insert into orders select i, 'Customer ' || i, (array['placed', 'picked', 'shipped'])[1 + i % 3], i * 7.25,
  case when i % 4 = 0 then 'leave at the door' end, 'do-not-show-' || i, '2026-11-20 08:00+00'::timestamptz + i * interval '7 minutes'
  from generate_series(1, 400) i;
insert into stock select 'SKU-' || lpad(i::text, 4, '0'), 'A' || i % 12, i * 3, i % 5 from generate_series(1, 200) i;`;

/** Gives the page the right to act, in the name of Ada Lovelace. */
export async function unlock(page: Page): Promise<void> {
  await page.click('#unlock');
  await page.fill('dialog input[type=text]', 'Ada Lovelace');
  await page.fill('dialog input[type=password]', TOKEN);
  await page.click('dialog button[type=submit]');
  await page.waitForSelector('#unlock:has-text("Lock")');
}

export class ConsoleScene {
  readonly pipeline: Pipeline;
  readonly url: string;
  readonly #servers: (PostgresServer | NatsServer)[];
  readonly #stages: Stage[];
  #writing: NodeJS.Timeout | undefined;

  private constructor(pipeline: Pipeline, url: string, servers: (PostgresServer | NatsServer)[], stages: Stage[]) {
    this.pipeline = pipeline;
    this.url = url;
    this.#servers = servers;
    this.#stages = stages;
  }

  static async open(): Promise<ConsoleScene> {
    const [source, target, nats] = await Promise.all([startPostgres(), startPostgres(), startNats()]);
    const flow = { tables: ['public.*'] };
    const pipeline = await Pipeline.open(source, nats, DDL, flow, target);
    const folder = await mkdtemp(join(tmpdir(), 'waybill-'));
    const configFile = join(folder, 'waybill.yaml');
    const config = JSON.parse(pipeline.yaml) as Record<string, unknown>;
    const monitoring = {
      heartbeat: '2s',
      token: TOKEN,
      hide: ['public.orders.note'],
      verify: { every: '3s', max_load: 1, grace: '200ms' },
    };
    await writeFile(configFile, JSON.stringify({ ...config, monitoring }));
    const stage = async (only: string): Promise<{ stage: Stage; url: string }> => {
      const logFile = join(folder, `${only.slice(0, 7).replace(':', '-')}.log`);
      await writeFile(logFile, '');
      const made = new Stage({ configFile, only, logFile, leaseTtlMs: 1500 });
      made.start();
      const url = await waitFor('its address', async () => /"monitoring":"([^"]+)"/.exec(made.log())?.[1]);
      return { stage: made, url };
    };
    const worker = await stage('capture:wms,apply:mirror,verify:mirror,heartbeat:mirror');
    await pipeline.settled(['orders', 'stock', 'codes']);
    const shown = await stage('console');
    return new ConsoleScene(pipeline, shown.url, [source, target, nats], [worker.stage, shown.stage]);
  }

  /** Three rows that the target refuses, and one that waits behind the first. */
  async refuse(): Promise<void> {
    const { source, target } = this.pipeline;
    await target.query(`alter table stock add constraint on_hand_is_plausible check (on_hand < 100000)`);
    await source.query(
      `insert into stock values ('SKU-9001', 'B1', 250000), ('SKU-9002', 'B1', 990000), ('SKU-9003', E'B2\\r\\nleft', 120000)`,
    );
    await waitFor('refused rows', async () => (await this.waiting()) === 3);
    await source.query(`update stock set on_hand = 2500, location = 'B7' where sku = 'SKU-9001'`);
    await waitFor('a row that waits', async () => (await this.waiting()) === 4);
  }

  async waiting(): Promise<number> {
    const { rows } = await this.pipeline.target.query<{ n: string }>('select count(*) as n from waybill.quarantine');
    return Number(rows[0]!.n);
  }

  /** As many quarantined rows as a constraint that was set by mistake makes in a morning: SKU-10001 and so on. */
  async flood(number: number, from = 1): Promise<void> {
    await this.pipeline.target.query(
      `insert into waybill.quarantine (flow, source, table_schema, table_name, key, position, ordinal, op, reason, sqlstate, message, change)
         select flow, source, table_schema, table_name, '["SKU-' || 10000 + i || '"]', position, i, op, reason, sqlstate, message,
             replace(change::text, key::jsonb ->> 0, 'SKU-' || 10000 + i)::jsonb
           from (select * from waybill.quarantine order by id limit 1) one, generate_series($2::int, $2 + $1 - 1) i`,
      [number, from],
    );
  }

  /** One row of each kind of drift, behind the back of the flow. */
  async differ(): Promise<void> {
    await this.pipeline.target.query(
      `update orders set state = 'shipped ', total = total + 1, login_token = 'another-token', note = 'changed-note' where id = 7;
       delete from orders where id = 12; insert into stock values ('SKU-X', 'Z', 1, 0); delete from codes where n = 1`,
    );
  }

  /** Keeps rows moving, so that trends have something to show. */
  keepWriting(): void {
    let n = 1000;
    this.#writing = setInterval(() => {
      n += 1;
      void this.pipeline.source.query(
        `insert into orders select $1::int * 100 + i, 'Customer ' || i, 'placed', 10, null, 't', now() from generate_series(1, 1 + ($1::int % 40)) i`,
        [n],
      );
    }, 250);
  }

  async close(): Promise<void> {
    clearInterval(this.#writing);
    await Promise.all(this.#stages.map((stage) => stage.end('SIGKILL')));
    await this.pipeline.close();
    await Promise.all(this.#servers.map((server) => server.dispose()));
  }
}
