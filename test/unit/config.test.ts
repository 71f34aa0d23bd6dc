/** What is said of a configuration that is wrong: the place and the remedy, and nothing of its secrets. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { flowClashes } from '../../cli/flow-clashes.ts';
import { configJsonSchema, parseConfig } from '../../core/config.ts';

function refusal(text: string): string {
  try {
    parseConfig(text, {});
  } catch (thrown) {
    expect(thrown).toMatchObject({ code: 'config_invalid' });
    return (thrown as Error).message;
  }
  throw new Error('nothing was wrong');
}

describe('a file that is no YAML', () => {
  it.each([
    ['a quote that does not end', 'version: 1\nurl: "postgres://u:hunter2@h\n  b: [\n'],
    ['a mapping in a value', 'version: 1\nurl: hunter2: 3\n'],
    ['a key twice', 'version: 1\nversion: hunter2\n'],
    ['an alias of nothing', 'version: 1\npassword: *hunter2\n'],
    ['a character that means something else', 'version: 1\npassword: @hunter2\n'],
    ['words behind a block', 'version: 1\npassword: |hunter2\n'],
    ['an escape that is none', 'version: 1\npassword: "hunter2\\q"\n'],
    ['a tag that is none', 'version: 1\nnats: !hunter2\n  user: a\n   password: b\n'],
    ['a tab that indents', 'version: 1\nnats:\n\tpassword: hunter2\n'],
  ])('is refused without a word of it: %s', (_, text) => {
    const message = refusal(text);
    expect(message).toMatch(/^configuration is not YAML: /);
    expect(message).not.toContain('hunter2');
  });

  it('is refused with the place', () => {
    expect(refusal('version: 1\nnats: {}\nurl: a: b\n')).toMatch(/line 3, column 6$/);
  });
});

describe('secrets in files', () => {
  const folder = mkdtempSync(join(tmpdir(), 'waybill-config-'));
  const file = join(folder, 'url');
  writeFileSync(file, 'postgresql://a@b/c\n');
  const target = (settings: object): string =>
    JSON.stringify({ version: 1, targets: { vis: { kind: 'postgres', ...settings } } });

  it('stand for the text', () => {
    expect(parseConfig(target({ url_file: file }), {}).targets['vis']!.url).toBe('postgresql://a@b/c');
  });

  it('are refused beside the text, whichever of the two comes first', () => {
    for (const settings of [
      { url: 'postgresql://x', url_file: file },
      { url_file: file, url: 'postgresql://x' },
    ])
      expect(refusal(target(settings))).toContain('targets.vis.url_file: url is given as well');
  });

  it('are known to editors', () => {
    type Node = {
      properties: Record<string, Node & { additionalProperties: Node }>;
      required: string[];
      oneOf: Node[];
      allOf: unknown[];
    };
    const { properties } = configJsonSchema() as Node;
    const target = properties['targets']!.additionalProperties;
    expect(Object.keys(target.properties)).toEqual(expect.arrayContaining(['url', 'url_file']));
    expect(target.required).toEqual(['kind']);
    expect(target.allOf).toEqual([{ oneOf: [{ required: ['url'] }, { required: ['url_file'] }] }]);
    for (const source of properties['sources']!.additionalProperties.oneOf)
      expect(source.properties).toHaveProperty('url_file');
    expect(properties['nats']!.properties).toMatchObject({ password_file: {}, token_file: {} });
    expect(properties['nats']!).not.toHaveProperty('allOf');
    expect(properties['monitoring']!.properties['webhooks']!.additionalProperties.allOf).toHaveLength(2);
  });
});

describe('flows that write to one table', () => {
  const clashes = (flows: object): string[] => {
    const source = (url: string) => ({ kind: 'postgres', url });
    const config = parseConfig(
      JSON.stringify({
        version: 1,
        sources: { wms: source('postgresql://a/wms'), erp: source('postgresql://a/erp') },
        targets: { vis: { kind: 'postgres', url: 'postgresql://b/vis' }, other: source('postgresql://b/other') },
        flows,
      }),
      {},
    );
    const of = (...names: string[]) => names.map((name) => ({ schema: 'public', name }));
    const tables = { one: of('orders', 'lines'), two: of('orders', 'prices') };
    return flowClashes(config, tables).map(({ subject, message }) => `${subject}: ${message}`);
  };

  it('are found, whichever of them is meant', () => {
    expect(clashes({ one: { mirror: 'wms', to: 'vis' }, two: { mirror: 'erp', to: 'vis' } })).toEqual([
      expect.stringMatching(/^flow two: public\.orders: flow one writes to the same table of target vis/),
    ]);
    expect(
      clashes({
        one: { mirror: 'wms', to: 'vis', schema: 'canonical' },
        stock: { canonical: 'orders', from: { wms: { pack: 'odoo' } }, to: 'vis' },
      }),
    ).toEqual([expect.stringMatching(/^flow one: canonical\.orders: flow stock/)]);
  });

  it('are not those with other targets, schemas or tables', () => {
    const one = { mirror: 'wms', to: 'vis' };
    for (const two of [{ to: 'other' }, { to: 'vis', schema: 'erp' }, { to: 'vis', tables: ['public.prices'] }])
      expect(clashes({ one, two: { mirror: 'erp', ...two } })).toEqual([]);
  });
});

it.each([
  ['monitoring.verify.every', { verify: { every: '0s' } }],
  ['monitoring.heartbeat', { heartbeat: '0ms' }],
])('what is done again and again is not done all the time: %s', (path, monitoring) => {
  expect(refusal(JSON.stringify({ version: 1, monitoring }))).toContain(`${path}: must be longer than nothing`);
});
