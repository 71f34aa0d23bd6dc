/** Rows that break every rule, in bursts: held with their reasons, in nobody's way, and brought in, in order, by a mended mapping. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { HELD_AT_ONCE } from '../../transform/held-teller.ts';
import { requestAnew } from '../../transform/request.ts';
import { CanonicalPipeline } from '../support/canonical-pipeline.ts';
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

/** More than go at once with their records; ten thousand are those of `npm run bench -- rules`. */
const ROWS = HELD_AT_ONCE + 100;

let postgres: PostgresServer;
let nats: NatsServer;
let folder: string;
let map: string;
let source: pg.Client;
let flow: CanonicalPipeline;

beforeAll(async () => {
  [postgres, nats, folder] = await Promise.all([
    startPostgres(),
    startNats(),
    mkdtemp(join(tmpdir(), 'waybill-rules-')),
  ]);
  const url = await postgres.createDatabase('rules');
  source = new pg.Client({ connectionString: url });
  await source.connect();
  for (const statement of ruleTables(ROWS)) await source.query(statement);
  map = join(folder, 'map.yaml');
  await writeFile(map, ruleMapping(false));
  flow = await CanonicalPipeline.open({
    nats,
    sources: { own: { kind: 'postgres', url } },
    targetUrl: await postgres.createDatabase('vis'),
    flows: Object.fromEntries(
      RULE_ENTITIES.map((entity) => [
        entity,
        { canonical: entity, from: { own: { map } }, delivery: 'realtime', views: false },
      ]),
    ),
  });
  flow.start('capture:own', ...RULE_ENTITIES.flatMap((entity) => [`transform:${entity}`, `apply:${entity}`]));
}, 120_000);
afterAll(async () => {
  await flow?.close();
  await source?.end();
  await Promise.all([postgres?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

const count = (entity: string, where: string): string => `select count(*) from canonical.${entity} where ${where}`;

it('holds every row by the rule that it breaks, and lets good ones pass', async () => {
  for (const entity of RULE_ENTITIES) await flow.shows(count(entity, 'true'), [String(rowsOf(entity, ROWS) + 1)]);
  expect(await flow.lines(HELD_BY_RULE)).toEqual([]);
  for (const rule of RULE_BURSTS) {
    await source.query(breakRule(rule, ROWS));
    const good = noteField(rule.entity);
    if (good !== undefined) {
      await source.query(`update t_${rule.entity} set note = $1 where id = '0'`, [rule.field]);
      await flow.shows(count(rule.entity, `${good} = '${rule.field}'`), ['1']);
    }
  }
  const expected = RULE_BURSTS.map(({ entity, named, rule }) => `${entity}|${named} ${rule}|${ROWS}`);
  await flow.shows(`${HELD_BY_RULE} order by 1, 2`, expected.toSorted());
  // No record has what is bad, or lacks what it had.
  for (const { entity, field, good, shown } of RULE_BURSTS)
    if (shown !== null && shown !== good)
      expect([entity, field, await flow.lines(count(entity, `${field} = '${shown}'`))]).toEqual([entity, field, ['0']]);
}, 300_000);

it('brings them in with the last of their changes once the mapping is mended', async () => {
  for (const note of ['second', 'third'])
    for (const entity of RULE_ENTITIES) await source.query(`update t_${entity} set note = $1 where id <> '0'`, [note]);
  await writeFile(map, ruleMapping(true));
  for (const entity of RULE_ENTITIES) await requestAnew(flow.config.nats, entity);
  await flow.shows('select count(*) from waybill.quarantine', ['0']);
  for (const rule of RULE_BURSTS) {
    const { entity, field, shown } = rule;
    const is = shown === null ? `${field} is null` : `${field} = '${shown}'`;
    const last = noteField(entity) === undefined ? '' : ` and ${noteField(entity)} = 'third'`;
    await flow.shows(count(entity, `${rowsOfRule(rule, ROWS, idField(entity))} and ${is}${last}`), [String(ROWS)]);
  }
  for (const entity of RULE_ENTITIES)
    expect(await flow.lines(count(entity, 'true'))).toEqual([String(rowsOf(entity, ROWS) + 1)]);
}, 300_000);
