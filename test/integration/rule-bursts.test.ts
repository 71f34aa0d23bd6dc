/** Rows that break every rule, in bursts: held with their reasons, in nobody's way, and brought in, in order, by a mended mapping. */
import { writeFile } from 'node:fs/promises';
import type pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { HELD_AT_ONCE } from '../../transform/held-teller.ts';
import { requestAnew } from '../../transform/request.ts';
import type { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { MappedSource } from '../support/mapped-source.ts';
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

let setting: MappedSource;
let source: pg.Client;
let flow: CanonicalPipeline;

beforeAll(async () => {
  setting = await MappedSource.open({
    name: 'own',
    tables: ruleTables(ROWS),
    mapping: ruleMapping(false),
    entities: RULE_ENTITIES,
    settings: { views: false },
  });
  ({ source, flow } = setting);
}, 120_000);
afterAll(async () => {
  await setting?.close();
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
  await writeFile(setting.map, ruleMapping(true));
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
