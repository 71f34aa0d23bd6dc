/** Two Postgres databases with a capture and a flow in between, and ways to see whether both sides are equal. */
import { expect } from 'vitest';
import type { NatsServer } from '../../sandbox/nats.ts';
import type { PostgresServer } from '../../sandbox/postgres.ts';
import { definitions, rowsOf, tablesOf } from './definitions.ts';
import { Pipeline } from './pipeline.ts';
import { waitFor } from './wait.ts';

export const ITEMS = `create table items (id int primary key, name text not null, qty int default 1);
  insert into items select n, 'item ' || n, n from generate_series(1, 50) n;`;

export class SchemaCase {
  readonly pipe: Pipeline;
  /** Schema of the tables in the target. */
  readonly #place: string;

  constructor(pipe: Pipeline, place = 'public') {
    this.pipe = pipe;
    this.#place = place;
  }

  /** Starts with `ddl` at the source, and waits until the target has it all. */
  static async open(
    postgres: PostgresServer,
    natsServer: NatsServer,
    ddl = ITEMS,
    flow: Record<string, unknown> = {},
    source: Record<string, unknown> = {},
  ): Promise<SchemaCase> {
    const pipe = await Pipeline.open(postgres, natsServer, ddl, flow, postgres, source);
    const opened = new SchemaCase(pipe, typeof flow['schema'] === 'string' ? flow['schema'] : undefined);
    opened.pipe.start();
    await opened.equal();
    return opened;
  }

  async run(sql: string): Promise<void> {
    await this.pipe.source.query(sql);
  }

  async source(table: string, columns?: readonly string[]): Promise<string[]> {
    return await rowsOf(this.pipe.source, table, columns);
  }

  async target(table: string, columns?: readonly string[]): Promise<string[]> {
    return await rowsOf(this.pipe.target, table, columns);
  }

  /**
   * Waits until both sides have the same tables with the same definitions and rows; `look` comes before each look. Tables
   * that `mayBeLeft` names may be in the target alone.
   */
  async equal(
    how: {
      readonly look?: () => void;
      readonly deadlineMs?: number;
      readonly mayBeLeft?: (table: string) => boolean;
    } = {},
  ): Promise<void> {
    await this.settle(async () => {
      how.look?.();
      const source = await definitions(this.pipe.source);
      const names = new Set(source.map(tableOf));
      const target = (await definitions(this.pipe.target, this.#place)).filter(
        (line) => names.has(tableOf(line)) || how.mayBeLeft?.(tableOf(line)) !== true,
      );
      return [source, target, ...(await this.contents())];
    }, how.deadlineMs);
  }

  /** The rows of every table of the source, on both sides. */
  async contents(): Promise<[string[], string[]]> {
    const both: [string[], string[]] = [[], []];
    for (const table of await tablesOf(this.pipe.source)) {
      both[0].push(table, ...(await this.source(`public."${table}"`)));
      both[1].push(table, ...(await this.target(`${this.#place}."${table}"`)));
    }
    return both;
  }

  /** Waits until the lists are equal, two by two; shows how they differ when that never comes. */
  async settle(read: () => Promise<string[][]>, deadlineMs = 30_000): Promise<void> {
    const { pipe } = this;
    let last: string[][] = [];
    const same = (): boolean =>
      last.every((list, index) => index % 2 === 1 || JSON.stringify(list) === JSON.stringify(last[index + 1]));
    try {
      await waitFor(
        'both sides to be equal',
        async () => {
          if (pipe.failure !== undefined) return true;
          last = await read();
          return same();
        },
        deadlineMs,
      );
    } catch (thrown) {
      const { rows } = await pipe.target.query('select table_name, op, reason, message from waybill.quarantine');
      if (rows.length > 0) throw new Error(`rows in quarantine: ${JSON.stringify(rows)}`, { cause: thrown });
      if (pipe.notices.length > 0) throw new Error(`not followed: ${JSON.stringify(pipe.notices)}`, { cause: thrown });
      for (let index = 0; index < last.length; index += 2) expect(last[index + 1]).toEqual(last[index]);
      throw thrown;
    }
    if (pipe.failure !== undefined) throw pipe.failure;
  }

  /** Waits until the flow reports tables that it does not follow. */
  async notices(): Promise<Pipeline['notices']> {
    return await waitFor('the report of the flow', async () => this.pipe.notices.length > 0 && this.pipe.notices);
  }

  async close(): Promise<void> {
    await this.pipe.close();
  }
}

/** The table of a line of its definition. */
function tableOf(line: string): string {
  return line.slice(0, line.indexOf(':'));
}
