/** The audit log: every change of it shows, and what commands and processes do is in it. */
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { audit, checkAuditLog, openAuditLog } from '../../cli/audit.ts';
import { snapshot } from '../../cli/commands/act.ts';
import { createActions } from '../../cli/console/actions.ts';
import { auditCommand } from '../../cli/commands/audit.ts';
import { createProcessNotes } from '../../cli/process-notes.ts';
import { readAnchor } from '../../monitoring/audit/anchor.ts';
import { parseConfig, type Config } from '../../core/config.ts';
import { createLogger } from '../../core/logger.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { Pipeline } from '../support/pipeline.ts';
import { Stage } from '../support/stage.ts';
import { waitFor } from '../support/wait.ts';

let postgres: PostgresServer;
let nats: NatsServer;
let pipeline: Pipeline | undefined;

beforeAll(async () => {
  [postgres, nats] = await Promise.all([startPostgres(), startNats()]);
}, 180_000);
afterEach(async () => {
  await pipeline?.close();
  pipeline = undefined;
});
afterAll(async () => {
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
});

async function opened(): Promise<Pipeline> {
  pipeline = await Pipeline.open(postgres, nats, 'create table a (id int primary key); insert into a values (1)');
  return pipeline;
}

const event = (n: number) => ({ action: 'repair', subject: `flow ${n}`, detail: { text: `é ${n}`, n } }) as const;

describe('the audit log', () => {
  it('keeps entries of many writers in one chain', async () => {
    const { config } = await opened();
    await Promise.all(Array.from({ length: 12 }, (_, n) => audit(config, ['vis'], event(n))));
    const report = await checkAuditLog(config, 'vis');
    expect(report).toMatchObject({ entries: 12, problems: [] });
    const log = await openAuditLog(config, 'vis');
    const entries = await log.read(0, 100);
    await log.close();
    expect(entries.map((entry) => entry.id)).toEqual(Array.from({ length: 12 }, (_, n) => n + 1));
    expect(entries[0]!.actor).toMatch(/^.+@.+$/);
  });

  it('says in the console what it could not be told of', async () => {
    const { config } = await opened();
    const away = { ...config, targets: { vis: { ...config.targets['vis']!, url: 'postgresql://127.0.0.1:1/vis' } } };
    const { snapshot: ask } = createActions(away, createLogger('silent'), new AbortController().signal);
    const { done } = await ask({ name: 'ada' }, 'wms', ['public.a'], false);
    expect(done).toMatch(/^asked the capture to read: snapshot \S+; not written to the audit log: .*ECONNREFUSED/);
  });

  it('keeps one chain where transactions see only what was there when they began', async () => {
    const { config, target } = await opened();
    await target.query(
      `do $$ begin execute format('alter database %I set default_transaction_isolation = ''repeatable read''', current_database()); end $$`,
    );
    await audit(config, ['vis'], event(0));
    await Promise.all(Array.from({ length: 12 }, (_, n) => audit(config, ['vis'], event(n))));
    expect(await checkAuditLog(config, 'vis')).toMatchObject({ entries: 13, problems: [] });
  });

  it('refuses changes', async () => {
    const { config, target } = await opened();
    await audit(config, ['vis'], event(1));
    for (const sql of [`update waybill.audit set detail = ''`, 'delete from waybill.audit', 'truncate waybill.audit'])
      await expect(target.query(sql)).rejects.toThrow('append-only');
    expect((await checkAuditLog(config, 'vis')).entries).toBe(1);
  });

  it.each([
    ['a changed entry', `update waybill.audit set actor = 'nobody@nowhere' where id = 2`, ['entry 2 was changed']],
    ['a changed time', `update waybill.audit set at = at + interval '1 ms' where id = 3`, ['entry 3 was changed']],
    ['a removed entry', 'delete from waybill.audit where id = 2', ['entry 2 is gone']],
    [
      'entries cut off the end',
      'delete from waybill.audit where id > 2',
      ['the log ends at entry 2, but entry 4 was written: its end was cut off'],
    ],
    [
      'all of it gone',
      'delete from waybill.audit',
      ['the log ends at entry 0, but entry 4 was written: its end was cut off'],
    ],
    [
      'a renumbered log',
      'delete from waybill.audit where id = 2; update waybill.audit set id = id - 1 where id > 2',
      [
        'entry 2 does not follow the one before it',
        'entry 2 was changed',
        'entry 3 was changed',
        'the log ends at entry 3, but entry 4 was written: its end was cut off',
      ],
    ],
  ])('shows %s', async (_, sql, problems) => {
    const { config, target } = await opened();
    for (let n = 0; n < 4; n++) await audit(config, ['vis'], event(n));
    await target.query(`alter table waybill.audit disable trigger all; ${sql}`);
    expect((await checkAuditLog(config, 'vis')).problems).toEqual(problems);
    // What is written behind it hides nothing of it.
    for (let n = 5; n < 12; n++) await audit(config, ['vis'], event(n));
    const later = (await checkAuditLog(config, 'vis')).problems;
    expect(later.length).toBeGreaterThan(0);
    if (problems.some((problem) => problem.includes('cut off')))
      expect(later).toContain('entry 4 is not the one that was written');
  });

  it('is written to while NATS is away, and the next line notes the head for both', async () => {
    const { config } = await opened();
    await audit(config, ['vis'], event(1));
    const told = vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
    try {
      const nats = { ...config.nats, servers: ['nats://127.0.0.1:1'] };
      await audit({ ...config, nats }, ['vis'], event(2));
      expect(told.mock.calls.join()).toContain('entry 2 of the audit log of vis is not noted in NATS');
    } finally {
      told.mockRestore();
    }
    expect(await checkAuditLog(config, 'vis')).toMatchObject({ entries: 2, problems: [] });
    await audit(config, ['vis'], event(3));
    expect(await readAnchor(pipeline!.nats, config.nats, 'vis')).toMatchObject({ id: 3 });
  });

  it('holds starts of processes that only capture or transform, and who owns the fields of records', async () => {
    const { yaml } = await opened();
    const parsed = JSON.parse(yaml) as { flows: Record<string, unknown> };
    const withOwner = (owner: Record<string, unknown>): Config => {
      const stock = { canonical: 'inventory_position', from: { wms: { pack: 'odoo' } }, owner, to: 'vis' };
      return parseConfig(JSON.stringify({ ...parsed, flows: { ...parsed.flows, stock } }), {});
    };
    const { signal } = new AbortController();
    const run = async (config: Config, stages: string[]): Promise<unknown[]> => {
      const before = await openAuditLog(config, 'vis');
      const [newest] = await before.latest(undefined, 1);
      await before.close();
      const notes = createProcessNotes(config, stages, createLogger('silent'));
      await notes.start(signal);
      await notes.stop();
      const after = await openAuditLog(config, 'vis');
      try {
        return (await after.read(newest?.id ?? 0, 100)).map(({ action, subject, detail }) =>
          action === 'ownership' ? [action, subject, JSON.parse(detail) as unknown] : action,
        );
      } finally {
        await after.close();
      }
    };
    const config = withOwner({ on_hand: 'wms' });
    expect(await run(config, ['capture:wms'])).toEqual(['configuration', 'start', 'stop']);
    const from = { wms: { pack: 'odoo' } };
    const first = { from, owner: { on_hand: 'wms' } };
    expect(await run(config, ['transform:stock'])).toEqual([
      ['ownership', 'flow stock', { before: null, after: first }],
      'start',
      'stop',
    ]);
    expect(await run(config, ['transform:stock', 'apply:stock'])).toEqual(['start', 'stop']);
    const second = { from, owner: { allocated: 'wms', on_hand: { merge: 'max' } } };
    expect(await run(withOwner({ on_hand: { merge: 'max' }, allocated: 'wms' }), ['transform:stock'])).toEqual([
      'configuration',
      ['ownership', 'flow stock', { before: first, after: second }],
      'start',
      'stop',
    ]);
  });

  it('holds what commands and processes did; `waybill audit --verify` answers by its exit status', async () => {
    const { yaml, config, target } = await opened();
    const folder = await mkdtemp(join(tmpdir(), 'waybill-'));
    const configFile = join(folder, 'waybill.yaml');
    await writeFile(configFile, yaml);
    const stage = new Stage({
      configFile,
      only: 'capture:wms,apply:mirror',
      logFile: join(folder, 'log'),
      leaseTtlMs: 1500,
    });
    const lines = vi.spyOn(console, 'log').mockImplementation(() => undefined);
    const actions = async (): Promise<string[]> => {
      const log = await openAuditLog(config, 'vis');
      try {
        return (await log.read(0, 100)).map((entry) => `${entry.action} ${entry.subject.split(' ')[0]}`);
      } finally {
        await log.close();
      }
    };
    try {
      stage.start();
      await waitFor(
        'the start in the log',
        async () => ((await actions()).includes('start process') ? true : undefined),
        30_000,
      );
      expect(await snapshot('wms', ['public.a'], { config: configFile })).toBe(0);
      await stage.end('SIGTERM');
      await writeFile(
        configFile,
        yaml.replace('"mirror":{"mirror":"wms"', '"mirror":{"batch_bytes":"1MB","mirror":"wms"'),
      );
      stage.start();
      await waitFor(
        'the second start',
        async () => ((await actions()).filter((action) => action === 'start process').length === 2 ? true : undefined),
        30_000,
      );
      await pipeline!.source.query('insert into a values (2)');
      await pipeline!.settled(['a']);
      await stage.end('SIGTERM');
      expect(await actions()).toEqual([
        'configuration process',
        'start process',
        'snapshot source',
        'stop process',
        'configuration process',
        'start process',
        'stop process',
      ]);
      const details = await target.query<{ detail: string }>('select detail from waybill.audit where id = 1');
      expect(details.rows[0]!.detail).toContain('"batch_bytes"');
      expect(await auditCommand(undefined, { config: configFile, verify: true })).toBe(0);
      await target.query(`alter table waybill.audit disable trigger all; delete from waybill.audit where id = 3`);
      expect(await auditCommand('vis', { config: configFile, verify: true })).toBe(1);
    } finally {
      lines.mockRestore();
      await stage.end('SIGKILL');
    }
  });
});
