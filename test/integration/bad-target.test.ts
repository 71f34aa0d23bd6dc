/** What is wrong with a target, on the real command line: each with its code and its remedy, and nothing lost. */
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseConfig } from '../../core/config.ts';
import { closeSides, openSides } from '../../monitoring/drift/open-sides.ts';
import { passed } from '../../monitoring/drift/alignment.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CommandLine } from '../support/command-line.ts';
import { waitFor } from '../support/wait.ts';

let server: PostgresServer;
let nats: NatsServer;
let cli: CommandLine;

beforeAll(async () => {
  [server, nats, cli] = await Promise.all([
    startPostgres({ settings: { max_replication_slots: '30' } }),
    startNats(),
    CommandLine.open(),
  ]);
});
afterAll(async () => {
  await Promise.all([server?.dispose(), nats?.dispose(), cli?.close()]);
});

async function execute(url: string, ...statements: string[]): Promise<void> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

const rowsOf = async (url: string): Promise<number> => {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<{ n: number }>('select count(*)::int as n from copy.a')).rows[0]!.n;
  } finally {
    await client.end();
  }
};

interface Path {
  readonly source: string;
  readonly target: string;
  readonly text: string;
}

/** A source with one row and a target, whose url `change` may turn into a wrong one. */
async function path(change: (url: URL) => void = () => undefined, flow = ''): Promise<Path> {
  const prefix = `p${cli.next()}`;
  const source = await server.createDatabase(`${prefix}_source`);
  const target = await server.createDatabase(`${prefix}_target`);
  await execute(source, 'create table a (id int primary key)', 'insert into a values (1)');
  const url = new URL(target);
  change(url);
  const text = `version: 1
nats: { servers: ["${nats.url}"], prefix: ${prefix}, stream: { sync_interval: 0s, max_bytes: 64MB } }
sources: { wms: { kind: postgres, url: "${source}" } }
targets: { v: { kind: postgres, url: "${url.href}" } }
flows: { f: { mirror: wms, to: v, schema: copy${flow} } }
`;
  return { source, target, text };
}

/** Waits for a code in the log, mends its cause, and waits until the row has arrived after all. */
async function mended({ text, target }: Path, code: string, mend: string): Promise<string> {
  let mending: Promise<unknown> | undefined;
  let arrived = false;
  const running = cli.waybill(text, ['run', '--listen', '127.0.0.1:0'], (log) => {
    if (log.includes(`"code":"${code}"`))
      mending ??= execute(target, mend)
        .then(() => waitFor('the row', async () => (await rowsOf(target)) === 1))
        .then(() => (arrived = true));
    return false;
  });
  await waitFor(`${code} and its end`, async () => arrived);
  cli.drain();
  const { status, output } = await running;
  await mending;
  expect(status, output).toBe(0);
  return output;
}

const failing = (sqlState: string): string =>
  `create schema copy; create table copy.a (id int primary key);
   create function copy.fail() returns trigger language plpgsql as
     $$ begin raise exception using errcode = '${sqlState}', message = 'planted'; end $$;
   create trigger fail before insert on copy.a for each row execute function copy.fail()`;

describe('who connects', () => {
  it('to a database that is not there', async () => {
    const { text } = await path((url) => void (url.pathname = '/no_such_database'));
    await cli.check(text, 'target_auth');
    const { output } = await cli.run(text, 'target_auth', 'capture:wms,apply:f');
    expect(output).toContain('3D000');
  });

  it('as a user who may not write there', async () => {
    const role = `writer${cli.next()}`;
    await execute(server.url, `create role ${role} login`);
    const { text } = await path((url) => void (url.username = role));
    const { output } = await cli.run(text, 'target_privilege');
    expect(output).toContain('42501');
    const checked = await cli.waybill(text, ['check']);
    expect(checked.status).toBe(1);
    expect(checked.output).toContain('waybill grants v');
  });

  it('where nobody listens: it is waited for', async () => {
    const { text } = await path((url) => void (url.port = '1'));
    await cli.check(text, 'target_unreachable');
    const { status, output } = await cli.run(text, 'target_unreachable');
    expect(status, output).toBe(0);
    expect((await cli.waybill(text, ['quarantine', 'list'])).status).toBe(3);
  });
});

describe('what the target refuses', () => {
  it('a failing trigger: it is tried again, and the row comes when that is mended', async () => {
    const it = await path();
    await execute(it.target, failing('XX001'));
    expect(await mended(it, 'target_query', 'drop trigger fail on copy.a')).toContain('XX001');
  });

  it('for want of disk space: it is tried again, and the row comes when there is room', async () => {
    const it = await path();
    await execute(it.target, failing('53100'));
    expect(await mended(it, 'target_full', 'drop trigger fail on copy.a')).toContain('53100');
  });

  it('one row: it waits in quarantine with the code, and the flow goes on', async () => {
    const it = await path();
    await execute(it.target, 'create schema copy', 'create table copy.a (id int primary key check (id <> 1))');
    await execute(it.source, 'insert into a values (2)');
    const running = cli.waybill(it.text, ['run', '--listen', '127.0.0.1:0'], () => false);
    await waitFor('the neighbour', async () => (await rowsOf(it.target)) === 1);
    cli.drain();
    expect((await running).status).toBe(0);
    // target_row is never in the log as an error: the inbox holds the row and the reason.
    const listed = await cli.waybill(it.text, ['quarantine', 'list']);
    expect(listed.status).toBe(0);
    expect(listed.output).toMatch(/copy\.a|public\.a/);
    expect(listed.output).toContain('23514');
    expect(listed.output).toContain('constraint');
  });

  it('tables that are there and cannot be written: check names each and what it lacks', async () => {
    const role = `writer${cli.next()}`;
    await execute(server.url, `create role ${role} login`);
    const it = await path((url) => void (url.username = role));
    await execute(
      it.target,
      `grant create, temporary on database "${new URL(it.target).pathname.slice(1)}" to ${role}`,
      'create schema copy',
      'create table copy.a (id int, more int not null)',
      `grant usage, create on schema copy to ${role}`,
      `grant select, insert on copy.a to ${role}`,
    );
    const { status, output } = await cli.waybill(it.text, ['check']);
    expect(status).toBe(1);
    expect(output).toContain('copy.a: column more (integer) is not in the source, and is NOT NULL without a default');
    expect(output).toContain('copy.a: it has no unique index on its key columns (id)');
    expect(output).toMatch(/copy\.a: the user lacks UPDATE, DELETE, TRUNCATE on it\n +remedy: waybill grants v/);
  });

  it('rights that a flow never uses are not asked for, and one that it seldom does is a warning', async () => {
    const role = `writer${cli.next()}`;
    await execute(server.url, `create role ${role} login`);
    const it = await path((url) => void (url.username = role), ', deletes: ignore, truncate: ignore');
    await execute(
      it.target,
      `grant create, temporary on database "${new URL(it.target).pathname.slice(1)}" to ${role}`,
      'create schema copy',
      'create table copy.a (id int primary key)',
      'create table copy.b (id int)',
      `grant usage, create on schema copy to ${role}`,
      `grant select, insert, update on copy.a, copy.b to ${role}`,
    );
    const checked = await cli.waybill(it.text, ['check']);
    expect(checked.output).toMatch(
      /warning +target v: flow f: target table copy\.a: the user lacks DELETE on it, which a row takes whose key changes at the source\n +remedy: waybill grants v/,
    );
    expect(checked.status).toBe(0);
    // Without a key its rows are read anew into an empty table.
    await execute(it.source, 'create table b (id int)', 'alter table b replica identity full');
    const keyless = await cli.waybill(it.text, ['check']);
    expect(keyless.output).toMatch(/error +target v: flow f: target table copy\.b: the user lacks TRUNCATE on it\n/);
    expect(keyless.status).toBe(1);
    await execute(it.source, 'drop table b');
    // With "soft" rows that go, and those of a table that is emptied, are marked.
    const soft = await cli.waybill(
      it.text.replace('deletes: ignore, truncate: ignore', 'deletes: soft, extra_rows: delete'),
      ['check'],
    );
    expect(soft.output).toContain('copy.a: the user lacks DELETE on it, which a row takes whose key changes');
    expect(soft.status).toBe(0);
    const deleting = it.text.replace('deletes: ignore', 'deletes: ignore, extra_rows: delete');
    const extra = await cli.waybill(deleting, ['check']);
    expect(extra.output).toMatch(/error +target v: flow f: target table copy\.a: the user lacks DELETE on it\n/);
  });

  it('what the flow has yet to follow is no misfit', async () => {
    const it = await path();
    await execute(it.source, 'drop table a', 'create table a (id int primary key, more int not null)');
    await execute(it.source, 'insert into a values (1, 1)');
    const running = cli.waybill(it.text, ['run', '--listen', '127.0.0.1:0'], () => false);
    await waitFor('the row', async () => (await rowsOf(it.target)) === 1);
    cli.drain();
    expect((await running).status).toBe(0);
    await execute(it.source, 'alter table a drop column more', 'insert into a values (2)');
    const checked = await cli.waybill(it.text, ['check']);
    expect(checked.output).not.toContain('copy.a');
    expect(checked.status).toBe(0);
    // What the target has meanwhile lost the power to hold is one all the same.
    await execute(it.target, 'alter table copy.a drop constraint a_pkey');
    const { status, output } = await cli.waybill(it.text, ['check']);
    expect(output).toContain('copy.a: it has no unique index on its key columns (id)');
    expect(status).toBe(1);
    await execute(it.target, 'alter table copy.a add primary key (id)');
    const again = cli.waybill(it.text, ['run', '--listen', '127.0.0.1:0'], () => false);
    await waitFor('the second row', async () => (await rowsOf(it.target)) === 2);
    cli.drain();
    expect((await again).status).toBe(0);
  });

  it('a table of another shape', async () => {
    const it = await path();
    await execute(it.source, 'alter table a add note text');
    await execute(it.target, 'create schema copy', 'create table copy.a (id int primary key, note int[])');
    const checked = await cli.waybill(it.text, ['check']);
    expect(checked.status).toBe(1);
    expect(checked.output).toContain(
      'target table copy.a: column note is integer[] in the target and text in the source',
    );
    const stopped = 'table public.a is stopped: ';
    const { output } = await cli.waybill(it.text, ['run', '--listen', '127.0.0.1:0'], (log) => log.includes(stopped));
    expect(output).toContain(stopped);
    expect(output).toMatch(/note.*integer\[\]/);
    expect(output).toContain('waybill snapshot wms public.a');
  });
});

describe('a comparison', () => {
  it('of a flow that does not move gives up, and says where it stands', async () => {
    const { text } = await path();
    await cli.waybill(
      text,
      ['run', '--listen', '127.0.0.1:0'],
      (log) => log.includes('table read') && log.includes('flow started'),
    );
    const sides = await openSides(parseConfig(text, {}), 'f');
    try {
      const watermark = await sides.source.watermark();
      await expect(
        passed(sides.source, sides.target, watermark, AbortSignal.timeout(60_000), 500),
      ).rejects.toMatchObject({ code: 'verify_stalled' });
    } finally {
      await closeSides(sides);
    }
  });
});
