/** What every command answers with: 0 good, 1 no, 2 wrong usage or configuration, 3 not reached; and its --help. */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Metrics } from '../../monitoring/metrics.ts';
import { CommandLine, type Outcome } from '../support/command-line.ts';

/** Nothing listens there. */
const CONFIG = `version: 1
nats: { servers: ["nats://127.0.0.1:1"] }
sources:
  wms: { kind: postgres, url: "postgresql://waybill:hunter2@127.0.0.1:1/wms" }
  erp: { kind: mysql, url: "mysql://waybill:hunter2@127.0.0.1:1/erp", tables: ["erp.*"] }
targets:
  vis: { kind: postgres, url: "postgresql://waybill:hunter2@127.0.0.1:1/vis" }
  mart: { kind: mariadb, url: "mysql://waybill:hunter2@127.0.0.1:1/mart" }
flows:
  copy: { mirror: wms, to: vis }
  items: { mirror: erp, to: mart }
`;
let cli: CommandLine;

beforeAll(async () => {
  cli = await CommandLine.open();
});
afterAll(() => cli.close());

const waybill = (...args: string[]): Promise<Outcome> => cli.waybill(CONFIG, args);

/** The names of commands that a help text lists. */
const commandsOf = (help: string): string[] =>
  [...help.slice(help.indexOf('Commands:')).matchAll(/^ {2}([a-z]+)/gm)]
    .map(([, name]) => name!)
    .filter((name) => name !== 'help');

it('--version says which it is, as the metrics and the log do', async () => {
  const { version } = JSON.parse(await readFile('package.json', 'utf8')) as { version: string };
  expect(await cli.waybill('', ['--version'])).toMatchObject({ status: 0, output: `${version}\n` });
  expect(await new Metrics().registry.metrics()).toContain(`waybill_build_info{version="${version}"} 1`);
});

describe('--help', () => {
  it('is there for every command, and explains every option', async () => {
    const top = await cli.waybill('', ['--help']);
    expect(top.status).toBe(0);
    const commands = commandsOf(top.output).map((name) => [name]);
    expect(commands.flat()).toEqual(
      expect.arrayContaining([
        'run',
        'check',
        'status',
        'grants',
        'schema',
        'tail',
        'snapshot',
        'teardown',
        'verify',
        'audit',
        'quarantine',
      ]),
    );
    const quarantine = await cli.waybill('', ['quarantine', '--help']);
    const all = [...commands, ...commandsOf(quarantine.output).map((name) => ['quarantine', name])];
    for (const name of all) {
      const { status, output } = await cli.waybill('', [...name, '--help']);
      expect(status, name.join(' ')).toBe(0);
      expect(output).toContain(`Usage: waybill ${name.join(' ')}`);
      for (const [line, description] of output.matchAll(/^ {2}(?:-\w, )?--\S+(?: <\S+>)?(.*)$/gm))
        expect(description!.trim().length, `${name.join(' ')}: ${line}`).toBeGreaterThan(4);
    }
  });
});

describe('2: wrong usage or configuration', () => {
  it.each([
    ['no such command', ['frobnicate']],
    ['an option that is not known', ['status', '--wach']],
    ['an argument that is missing', ['grants']],
    ['grants for nobody', ['grants', 'wmss']],
    ['a snapshot of no source', ['snapshot', 'wmss']],
    ['a snapshot of a table without schema', ['snapshot', 'wms', 'orders']],
    ['the schema of an entity that is not there', ['schema', 'produkt']],
    ['a teardown of no source', ['teardown', 'wmss']],
    ['the tail of no source', ['tail', 'wmss']],
    ['the tail of records that no flow makes', ['tail', 'canonical']],
    ['a tail from nowhere', ['tail', 'wms', '--from', 'yesterday']],
    ['a tail of no rows', ['tail', 'wms', '--limit', 'many']],
    ['a comparison of no flow', ['verify', 'copi']],
    ['a comparison with an impossible load', ['verify', '--max-load', '2']],
    ['the audit log of no target', ['audit', 'viz']],
    ['the quarantine of no flow', ['quarantine', 'list', 'copi']],
    ['a replay of nothing', ['quarantine', 'replay', 'copy']],
    ['a discard of something that is no id', ['quarantine', 'discard', 'copy', 'x']],
    ['a stage that is not there', ['run', '--only', 'capture:wmss']],
    ['an address that cannot be listened on', ['run', '--listen', '192.0.2.1:9']],
    ['an address without a port', ['run', '--listen', 'localhost']],
    ['a port that there is not', ['run', '--listen', '127.0.0.1:65536']],
    ['a look at something that is no id', ['quarantine', 'show', 'copy', 'x']],
  ])('%s', async (_, args) => {
    const { status, output } = await waybill(...args);
    expect(status, output).toBe(2);
    expect(output).toMatch(/^error/m);
    expect(output).not.toContain('hunter2');
  });

  it('a configuration that is wrong, for every command that needs one', async () => {
    for (const args of [
      ['run'],
      ['check'],
      ['status'],
      ['grants', 'wms'],
      ['tail', 'wms'],
      ['verify'],
      ['audit'],
      ['quarantine', 'list'],
    ]) {
      const { status, output } = await cli.waybill('version: 2\n', args);
      expect(status, args.join(' ')).toBe(2);
      expect(output).toContain('version');
    }
  });
});

describe('3: a system could not be reached', () => {
  it.each([
    ['status', ['status'], 'nats_unreachable'],
    ['status for programs', ['status', '--json'], 'nats_unreachable'],
    ['snapshot', ['snapshot', 'wms'], 'nats_unreachable'],
    ['tail', ['tail', 'wms'], 'nats_unreachable'],
    ['verify', ['verify'], 'nats_unreachable'],
    ['teardown of a Postgres source', ['teardown', 'wms', '--yes'], '_unreachable'],
    ['teardown of a MySQL source', ['teardown', 'erp', '--yes'], '_unreachable'],
    ['audit', ['audit'], 'target_unreachable'],
    ['quarantine list, Postgres', ['quarantine', 'list', 'copy'], 'target_unreachable'],
    ['quarantine list, MariaDB', ['quarantine', 'list', 'items'], 'target_unreachable'],
    ['quarantine show', ['quarantine', 'show', 'copy', '1'], 'target_unreachable'],
    ['quarantine replay', ['quarantine', 'replay', 'copy', '--all'], 'target_unreachable'],
    ['quarantine discard', ['quarantine', 'discard', 'items', '1'], 'target_unreachable'],
  ])('%s', async (_, args, code) => {
    const { status, output } = await waybill(...args);
    expect(status, output).toBe(3);
    expect(output).toContain(code);
    expect(output).not.toContain('hunter2');
  });

  it('a check says so of each, and its answer is no', async () => {
    const { status, output } = await waybill('check');
    expect(status).toBe(1);
    for (const code of ['nats_unreachable', 'source_unreachable', 'target_unreachable']) expect(output).toContain(code);
    for (const name of ['source wms', 'source erp', 'target vis', 'target mart']) expect(output).toContain(name);
    expect(output).not.toContain('hunter2');
  });
});

describe('0: good', () => {
  it('what needs nobody to answer', async () => {
    for (const args of [['schema'], ['grants', 'wms'], ['grants', 'erp'], ['grants', 'vis'], ['grants', 'mart']]) {
      const { status, output } = await waybill(...args);
      expect(status, args.join(' ')).toBe(0);
      expect(output.length).toBeGreaterThan(100);
    }
  });

  it('a run that is told to leave while it waits for everything, at the first signal', async () => {
    const { status, output } = await cli.waybill(CONFIG, ['run', '--listen', '127.0.0.1:0'], (log) =>
      log.includes('"code":"nats_unreachable"'),
    );
    expect(status, output).toBe(0);
    expect(output).toContain('draining');
  });
});
