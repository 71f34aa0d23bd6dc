/** Lists that a mapping collects from the rows of a record, on real servers: what becomes of them when rows come, change and go. */
import type pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { CanonicalPipeline } from '../support/canonical-pipeline.ts';
import { MappedSource } from '../support/mapped-source.ts';

const MAP = `version: 1
name: pim
entities:
  product:
    - from: article
      fields: { sku: no, base_uom: { const: EA } }
    - from: pack
      group: true
      join: { article: { table: article, on: { id: article_id } } }
      fields: { sku: article.no, packs: { collect: { object: { uom: unit, qty: content, gtin: { gtin: code } } } } }
`;
const PACKS = `select sku, coalesce(packs::text, '-') from canonical.product order by sku`;
const HELD = 'select key, message from waybill.quarantine order by key';

let setting: MappedSource;
let source: pg.Client;
let flow: CanonicalPipeline;

beforeAll(async () => {
  setting = await MappedSource.open({
    name: 'pim',
    tables: [
      `create table article (id int primary key, no text not null);
       create table pack (id int primary key, article_id int not null, unit text not null, content numeric not null, code text);
       insert into article values (1, 'A'), (2, 'B');
       insert into pack values (1, 1, 'DZN', 12, '96385074'), (2, 1, 'GRO', 144.0, null)`,
    ],
    mapping: MAP,
    entities: ['product'],
  });
  ({ source, flow } = setting);
}, 120_000);
afterAll(async () => {
  await setting?.close();
});

const dozen = '{"qty": "12", "uom": "DZN", "gtin": "00000096385074"}';

it('follows the rows, in the order of their keys, over a restart', async () => {
  await flow.shows(PACKS, [`A|[${dozen}, {"qty": "144", "uom": "GRO"}]`, 'B|-']);
  await source.query(`update pack set content = 100 where id = 2; insert into pack values (3, 2, 'KGM', 0.5, null)`);
  await flow.shows(PACKS, [`A|[${dozen}, {"qty": "100", "uom": "GRO"}]`, 'B|[{"qty": "0.5", "uom": "KGM"}]']);
  await flow.stop('transform:product');
  await source.query('update pack set article_id = 2 where id = 2; delete from pack where id = 3');
  flow.start('transform:product');
  await flow.shows(PACKS, [`A|[${dozen}]`, 'B|[{"qty": "100", "uom": "GRO"}]']);
  await source.query('delete from pack where id = 2');
  await flow.shows(PACKS, [`A|[${dozen}]`, 'B|-']);
});

it('keeps the last good list while one of its values breaks a rule', async () => {
  await source.query(`insert into pack values (4, 1, 'KGM', 7, '96385075')`);
  await flow.shows(`select count(*) from waybill.quarantine`, ['1']);
  expect(await flow.lines(HELD)).toEqual([
    '["A","packs"]|product A: packs must be a GTIN of 8, 12, 13 or 14 digits with check digit (it is digits of 8 characters)',
  ]);
  expect(await flow.lines(PACKS)).toEqual([`A|[${dozen}]`, 'B|-']);
  await source.query(`update pack set code = null where id = 4`);
  await flow.shows(PACKS, [`A|[${dozen}, {"qty": "7", "uom": "KGM"}]`, 'B|-']);
  expect(await flow.lines(HELD)).toEqual([]);
});
