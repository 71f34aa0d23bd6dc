/** What `waybill status --watch` shows where there is not room for all, and how it is scrolled. */
import { describe, expect, it } from 'vitest';
import { keyReader, type Key } from '../../cli/status/keys.ts';
import { renderStatus } from '../../cli/status/render.ts';
import { describeStatus, type Readings, type StatusReport } from '../../cli/status/report.ts';
import { Screen } from '../../cli/status/screen.ts';
import { plain } from '../../cli/status/table.ts';
import type { NatsReading } from '../../cli/status/stream-session.ts';
import type { TargetReading } from '../../cli/status/target-session.ts';
import { parseConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { ABANDONED, INTERRUPTED } from '../../monitoring/drift/drift-store.ts';
import { summarize, type RunRow } from '../../monitoring/drift/verification.ts';
import type { StageFacts } from '../../monitoring/health.ts';

const config = parseConfig(
  JSON.stringify({
    version: 1,
    nats: { servers: ['nats://127.0.0.1:1'] },
    sources: {
      wms: { kind: 'postgres', url: 'postgresql://a@127.0.0.1/a' },
      erp: { kind: 'postgres', url: 'postgresql://a@127.0.0.1/e' },
    },
    targets: {
      vis: { kind: 'postgres', url: 'postgresql://a@127.0.0.1/b' },
      shop: { kind: 'postgres', url: 'postgresql://a@127.0.0.1/c' },
    },
    flows: {
      copy: { mirror: 'wms', to: 'vis' },
      stock: { canonical: 'inventory_position', from: { wms: { pack: 'odoo' }, erp: { pack: 'odoo' } }, to: 'vis' },
      to_shop: { outbound: 'inventory_position', map: 'to-shop.yaml', to: 'shop' },
    },
  }),
  {},
);
const AT = new Date('2026-11-20T08:00:00Z');

function report(transform: Partial<StageFacts> = {}): StatusReport {
  const facts: StageFacts = {
    kind: 'transform',
    name: 'stock',
    state: 'applying',
    lag: { kind: 'lagging', seconds: 7 },
    rows: 0,
    rowsPerSecond: 1234,
    pendingFrames: 3,
    ready: true,
    ...transform,
  };
  const nats: NatsReading = {
    now: AT,
    streams: new Map(),
    snapshots: new Map(),
    held: new Set(),
    facts: new Map([['transform:stock', facts]]),
    heartbeats: new Map([
      ['wms vis', 0.25],
      ['erp vis', 0.5],
      ['erp shop', 0.75],
    ]),
    alerts: [
      {
        alert: 'WaybillDrift',
        severity: 'critical',
        labels: { flow: 'copy' },
        summary: 'copy differs from wms',
        runbook: 'docs/runbook.md#waybilldrift',
        value: 2,
        since: '2026-11-20T07:50:00Z',
      },
    ],
    waitingSince: new Map(),
    fanOuts: new Map(),
  };
  const readings: Readings = {
    nats: { value: nats },
    sources: new Map(),
    targets: new Map([['vis', { error: new ReplicationError('target_unreachable', 'vis does not answer') }]]),
  };
  return describeStatus(config, readings, AT);
}

const render = (rows?: number): string[] =>
  renderStatus(report(), { width: 120, paint: plain, ...(rows === undefined ? {} : { rows }) });
const at = (lines: readonly string[], beginning: string): number =>
  lines.findIndex((line) => line.startsWith(beginning));

describe('the report', () => {
  it('has lines for transforms, alerts that stand, and heartbeats', () => {
    const lines = render();
    expect(lines[at(lines, 'stock ')]).toMatch(/^stock +applying +7\.0 s +1,234 +3 +wms, erp > inventory_position$/);
    expect(lines.join('\n')).toMatch(/^▲ WaybillDrift \(critical, for 10m 00s\): copy differs from wms\n {2}see docs/m);
    expect(lines[at(lines, 'FLOW')]).toContain('HEARTBEAT');
    expect(lines[at(lines, 'copy ')]).toContain('250 ms');
    // Of records the one that takes longest of those from the sources that they are made of.
    const { flows } = report();
    expect(flows.map(({ name, heartbeatSeconds }) => [name, heartbeatSeconds])).toEqual([
      ['copy', 0.25],
      ['stock', 0.5],
      ['to_shop', 0.75],
    ]);
  });

  it('names the frame that a flow of records is at: a position of its stream is none of a log', () => {
    const position = 'pg1/0000000000ABCDEF/000000000000';
    const place = { stream: 's', streamSeq: 12, position, commitTime: null, quarantineVersion: 0, updatedAt: AT };
    const positions = [
      { flow: 'copy', source: 'wms', ...place },
      { flow: 'stock', source: 'inventory_position', ...place },
    ];
    const vis: TargetReading = { positions, quarantined: new Map(), tables: new Map(), verifications: new Map() };
    const readings: Readings = { nats: {}, sources: new Map(), targets: new Map([['vis', { value: vis }]]) };
    const { flows } = describeStatus(config, readings, AT);
    expect(flows.map(({ name, position }) => [name, position])).toEqual([
      ['copy', '0/ABCDEF'],
      ['stock', 'frame 12'],
      ['to_shop', undefined],
    ]);
  });

  it('says of a comparison that was interrupted just that', () => {
    const run = {
      state: 'done',
      error: null,
      startedAt: new Date('2026-11-20T07:00:00Z'),
      tables: 1,
      findings: 0,
      unresolved: 0,
    };
    const failed = (error: string): RunRow => ({ ...run, state: 'failed', error, tables: 0, startedAt: AT });
    const shown = (...runs: RunRow[]): string => {
      const verifications = new Map([['copy', summarize(runs, 0)!]]);
      const vis: TargetReading = { positions: [], quarantined: new Map(), tables: new Map(), verifications };
      const readings: Readings = { nats: {}, sources: new Map(), targets: new Map([['vis', { value: vis }]]) };
      const lines = renderStatus(describeStatus(config, readings, AT), { width: 160, paint: plain });
      return lines[at(lines, 'copy ')]!;
    };
    expect(shown(failed(INTERRUPTED))).toContain('never (interrupted)');
    expect(shown(failed(ABANDONED), run)).toContain('1h 00m ago (interrupted)');
    expect(shown(failed('relation "orders" does not exist'), run)).toContain('1h 00m ago (failed)');
    expect(shown(run)).toMatch(/1h 00m ago +(?!\()/);
  });

  it('says what keeps a transform from its work', () => {
    const blocked = report({ state: 'blocked', detail: 'mapping_invalid: line 3 names no column' });
    const lines = renderStatus(blocked, { width: 120, paint: plain });
    expect(lines.join('\n')).toMatch(/^! transform stock.*: mapping_invalid: line 3 names no column\n {2}remedy: /m);
  });

  it('has what is wrong below the tables where there is room for all, and above them where there is not', () => {
    const all = render().length;
    expect(at(render(all), 'SOURCE')).toBe(0);
    const short = render(all - 1);
    expect(short).toHaveLength(all);
    expect(short[0]).toMatch(/^! flow copy, flow stock: target_unreachable: /);
    expect(short[1]).toMatch(/^ {2}remedy: /);
    expect(at(short, '▲ WaybillDrift')).toBeLessThan(at(short, 'SOURCE'));
  });
});

describe('a terminal with too few rows', () => {
  const body = Array.from({ length: 20 }, (_, index) => `line ${index}`);
  const shown = (screen: (draw: () => void, it: Screen) => void, rows = 10): string[] => {
    let text = '';
    const terminal = new Screen({ columns: 60, rows, write: (each) => (text = each) });
    const draw = (): void => terminal.draw(['head', ''], body);
    draw();
    screen(draw, terminal);
    draw();
    return text.split('\u001B[H')[1]!.replaceAll('\u001B[K', '').replaceAll('\u001B[J', '').split('\n');
  };

  it('shows what it can, and says how much is elsewhere', () => {
    const first = shown(() => {});
    expect(first).toHaveLength(10);
    expect(first.slice(0, 3)).toEqual(['head', '', 'line 0']);
    expect(first.at(-1)).toBe('… 13 more lines below: arrows, PgUp, PgDn');
    expect(shown(() => {}, 22)).toEqual(['head', '', ...body]);
  });

  it('is scrolled by lines, by pages and to its ends, and no further', () => {
    const top = (lines: readonly string[]): string => lines[2]!;
    expect(top(shown((_, it) => it.scroll({ lines: 1 })))).toBe('line 1');
    expect(top(shown((_, it) => it.scroll({ lines: -1 })))).toBe('line 0');
    expect(shown((_, it) => it.scroll({ pages: 1 })).at(-1)).toBe('… 7 above, 6 more lines below: arrows, PgUp, PgDn');
    const last = shown((_, it) => {
      for (let i = 0; i < 5; i++) it.scroll({ pages: 1 });
    });
    expect(last.slice(-2)).toEqual(['line 19', '… 13 above: arrows, PgUp, PgDn']);
    expect(last).toEqual(shown((_, it) => it.scroll('bottom')));
    expect(
      top(
        shown((_, it) => {
          it.scroll('bottom');
          it.scroll('top');
        }),
      ),
    ).toBe('line 0');
  });
});

describe('keys', () => {
  const keys = (...data: string[]): Key[] => {
    const found: Key[] = [];
    const read = keyReader((key) => found.push(key));
    for (const each of data) read(Buffer.from(each, 'latin1'));
    return found;
  };

  it('are known in both modes of cursor keys, and where they come in pieces', () => {
    expect(keys('\u001B[A\u001B[B', '\u001BOA\u001BOB')).toEqual([
      { lines: -1 },
      { lines: 1 },
      { lines: -1 },
      { lines: 1 },
    ]);
    expect(keys('\u001B', '[', '6', '~', '\u001B[5', '~j')).toEqual([{ pages: 1 }, { pages: -1 }, { lines: 1 }]);
    expect(keys('\u001B[1;5Cx', '\u001B', 'q', '\u0003')).toEqual(['quit', 'quit']);
  });
});
