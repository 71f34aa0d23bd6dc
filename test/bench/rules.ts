/**
 * Ten thousand rows for every rule that a row can break: that they end in the quarantine with their reasons, what a change of
 * a good row behind each burst takes to be seen meanwhile, and that a mended mapping brings them in with the last of their
 * changes.
 */
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseConfig } from '../../core/config.ts';
import { requestAnew } from '../../transform/request.ts';
import {
  breakRule,
  HELD_BY_RULE,
  idField,
  noteField,
  RULE_BURSTS,
  RULE_ENTITIES,
  rowsOf,
  rowsOfRule,
  ruleMapping,
  ruleTables,
} from '../support/rule-bursts.ts';
import { median, Program, scalar, sql, until, withClient } from './contenders.ts';
import { lines, nats, say, source, target } from './setting.ts';

const ROWS = 10_000;
/** A server sends what is in its log, and without this writes it up to 400 ms later. */
const WAITS = 'set synchronous_commit = on';

export async function benchRules(): Promise<void> {
  const url = await source.createDatabase('rules_source');
  const storeUrl = await target.createDatabase('rules_store');
  const folder = await mkdtemp(join(tmpdir(), 'waybill-bench-'));
  const config = join(folder, 'waybill.yaml');
  const map = join(folder, 'map.yaml');
  await writeFile(map, ruleMapping(false));
  const flow = (entity: string): Record<string, unknown> => ({
    canonical: entity,
    from: { bench: { map } },
    to: 'store',
    delivery: 'realtime',
    views: false,
    state_bytes: '512MB',
  });
  const text = JSON.stringify({
    version: 1,
    nats: { servers: [nats.url], prefix: 'rules', stream: { sync_interval: '0s', max_bytes: '500MB' } },
    sources: { bench: { kind: 'postgres', url } },
    targets: { store: { kind: 'postgres', url: storeUrl } },
    flows: Object.fromEntries(RULE_ENTITIES.map((entity) => [entity, flow(entity)])),
  });
  await writeFile(config, text);
  await sql(url, ...ruleTables(ROWS));
  const stages = RULE_ENTITIES.flatMap((entity) => [`transform:${entity}`, `apply:${entity}`]);
  const program = Program.start(config, ['capture:bench', ...stages].join());
  const shows = (what: string, statement: string, expected: string): Promise<number> =>
    until(what, performance.now(), async () => {
      program.alive();
      return (await scalar(storeUrl, statement).catch(() => '')) === expected;
    });
  for (const entity of RULE_ENTITIES)
    await shows(
      `the first load of ${entity}`,
      `select count(*) from canonical.${entity}`,
      String(rowsOf(entity, ROWS) + 1),
    );

  const delays: number[] = [];
  const probed = RULE_ENTITIES.filter((entity) => noteField(entity) !== undefined);
  for (const rule of RULE_BURSTS) {
    await sql(url, WAITS, breakRule(rule, ROWS));
    // Behind the burst in its own flow, or, where that has no such field, in another one.
    const entity = noteField(rule.entity) === undefined ? probed[0]! : rule.entity;
    const took = await seen(program, url, storeUrl, entity, rule.field);
    delays.push(took);
    await shows(
      `rows that are held because ${rule.field} ${rule.rule}`,
      `select count(*) from (${HELD_BY_RULE}) held (flow, rule, rows)
        where flow = '${rule.entity}' and rule = '${rule.named} ${rule.rule}' and rows = ${ROWS}`,
      '1',
    );
    say(
      `rules: ${rule.entity}.${rule.field} ${rule.rule}: the change behind ${ROWS} of them took ${took.toFixed(0)} ms`,
    );
  }
  for (const note of ['second', 'third'])
    await sql(url, ...RULE_ENTITIES.map((entity) => `update t_${entity} set note = '${note}' where id <> '0'`));
  await writeFile(map, ruleMapping(true));
  for (const entity of RULE_ENTITIES) await requestAnew(parseConfig(text, {}).nats, entity);
  await shows('all of them to come in', 'select count(*) from waybill.quarantine', '0');
  for (const rule of RULE_BURSTS) {
    const { entity, field, shown } = rule;
    const note = noteField(entity);
    const last = note === undefined ? '' : ` and ${note} = 'third'`;
    const is = shown === null ? `${field} is null` : `${field} = '${shown}'`;
    await shows(
      `${entity}.${field} as it is mended`,
      `select count(*) from canonical.${entity} where ${rowsOfRule(rule, ROWS, idField(entity))} and ${is}${last}`,
      String(ROWS),
    );
  }
  const { peakRssMb } = program.usage();
  await program.stop();
  await sql(url, `select pg_drop_replication_slot('rules_bench')`);
  const worst = Math.max(...delays);
  lines.push({
    what: `a change behind ${ROWS} rows that break a rule, the median and the worst of ${RULE_BURSTS.length} rules`,
    native: `${median(delays).toFixed(0)} ms`,
    waybill: `${worst.toFixed(0)} ms (${peakRssMb.toFixed(0)} MB)`,
    ratio: (worst / 1000).toFixed(2),
  });
}

/** Milliseconds from the commit of a change of the good row of an entity until the target shows it. */
function seen(program: Program, url: string, storeUrl: string, entity: string, note: string): Promise<number> {
  return withClient(url, (writer) =>
    withClient(storeUrl, async (reader) => {
      await writer.query(WAITS);
      await writer.query(`update t_${entity} set note = $1 where id = '0'`, [note]);
      const committed = performance.now();
      for (;;) {
        const { rows } = await reader.query<{ note: string }>(
          `select ${noteField(entity)!} as note from canonical.${entity} where tenant = 'default' and ${idField(entity)} = '0'`,
        );
        if (rows[0]?.note === note) return performance.now() - committed;
        program.alive();
        await delay(2);
      }
    }),
  );
}
