import { afterAll, beforeAll, expect, it } from 'vitest';
import pg from 'pg';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { ENTITIES } from '../../transform/canonical/catalog.ts';
import { canonicalTableSchema } from '../../transform/canonical/envelope.ts';
import { postgresTableDdl } from '../../transform/canonical/postgres-ddl.ts';

let server: PostgresServer;
let client: pg.Client;

beforeAll(async () => {
  server = await startPostgres();
  client = new pg.Client({ connectionString: server.url });
  await client.connect();
  await client.query('CREATE SCHEMA canonical');
});
afterAll(async () => {
  await client.end();
  await server.stop();
});

it.each([...ENTITIES.keys()])(
  'Postgres makes the table of %s as frames describe it, also when it is there',
  async (name) => {
    const entity = ENTITIES.get(name)!;
    for (let round = 0; round < 2; round++)
      for (const statement of postgresTableDdl(entity, 'canonical')) await client.query(statement);
    const { rows } = await client.query<{ name: string; type: string; notNull: boolean }>(
      `SELECT attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS "notNull"
     FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 ORDER BY attnum`,
      [`canonical."${name}"`],
    );
    expect(rows).toEqual(
      canonicalTableSchema(entity).columns.map((column) => ({
        name: column.name,
        type: column.type,
        notNull: column.notNull,
      })),
    );
  },
);
