/** Rows of another system that only it takes for one: by how it compares, by what is looked up, by what a number or a table is. */
import { describe, expect, it } from 'vitest';
import { outboundFindings } from '../../cli/canonical-flows.ts';
import { EveryServer } from '../support/every-server.ts';
import { StockToShop } from '../support/stock-to-shop.ts';

const servers = EveryServer.forThisFile();

const ALONE = `{ eq: [lot, { const: '' }] }, { eq: [owner, { const: '' }] }`;
const LOOSE = {
  postgres: {
    collation: 'public.loose',
    make: `create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);`,
  },
  mysql: { collation: 'utf8mb4_0900_ai_ci', make: '' },
  mariadb: { collation: 'utf8mb4_general_ci', make: '' },
};

/** What `check` says, without the file's name. */
async function findingsOf(scene: StockToShop): Promise<string[]> {
  return (await outboundFindings(scene.flow.config)).map(({ severity, message }) =>
    `${severity} ${message}`.replace(`${scene.map}:`, ''),
  );
}

/** What `check` warns of. */
async function warningsOf(scene: StockToShop): Promise<string[]> {
  return (await findingsOf(scene)).filter((finding) => finding.startsWith('warning'));
}

function meets(line: number, field: string, why: string): string {
  return `warning ${line}: several values of ${field} may be one there (${why}): records that have them meet in one row of p: the first writes it, the others are held`;
}

function side(line: number): string {
  return `warning ${line}: other records fill other columns of the same row of p: "gone: delete" deletes it with the last of them, and leaves until then what this block set`;
}

function has(key: string, first: string): string {
  return `${key}|p: record ${first} has this row; the key of the row does not tell them apart`;
}

describe.each(['postgres', 'mysql', 'mariadb'] as const)('in %s', (kind) => {
  it('records whose places are one by what is looked up have one row, and it goes with the one that has it', async () => {
    const scene = await StockToShop.open(
      servers,
      kind,
      `create table bins (code varchar(20) primary key, wh int);
       insert into bins values ('A1', 1), ('A2', 1), ('B1', 2);
       create table p (sku varchar(20), wh int, n int, primary key (sku, wh));`,
      `    - { to: p, where: { all: [${ALONE}] }, key: { sku: sku, wh: { find: bins.wh, where: { code: location } } }, set: { n: on_hand }, gone: delete }\n`,
    );
    expect(await warningsOf(scene)).toEqual([meets(5, 'location', 'bins.wh has no unique index of its own')]);
    const { wms } = scene;
    const rows = 'select sku, wh, n from p order by sku, wh';
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'A1', 1), (2, 'A', 'B1', 7)`);
    await scene.shows(rows, ['A|1|1', 'A|2|7']);
    await wms.run(`insert into stock (id, sku, place, qty) values (3, 'A', 'A2', 2)`);
    await scene.holds(has('["A","A2","",""]', '["A","A1","",""]'));
    await wms.run('delete from stock where id = 3; update stock set qty = 3 where id = 1');
    await scene.shows(rows, ['A|1|3', 'A|2|7']);
    await scene.holds();
    await wms.run(`insert into stock (id, sku, place, qty) values (3, 'A', 'A2', 2)`);
    await scene.holds(has('["A","A2","",""]', '["A","A1","",""]'));
    await wms.run('delete from stock where id = 1');
    await scene.shows(rows, ['A|1|2', 'A|2|7']);
    await wms.run('delete from stock');
    await scene.shows(rows, []);
  });

  it('records whose texts are one by the collation of the key have one row', async () => {
    const { collation, make } = LOOSE[kind];
    const scene = await StockToShop.open(
      servers,
      kind,
      `${make} create table p (sku varchar(20) collate ${collation} primary key, n int)`,
      `    - { to: p, where: { all: [{ eq: [location, { const: WH1 }] }, ${ALONE}] }, key: { sku: sku }, set: { n: on_hand }, gone: delete }\n`,
    );
    const type = kind === 'postgres' ? 'character varying(20)' : 'varchar(20)';
    expect(await warningsOf(scene)).toEqual([meets(5, 'sku', `p.sku is ${type}, compared by ${collation}`)]);
    const { wms } = scene;
    const rows = 'select sku, n from p order by sku';
    scene.start();
    // In one batch, too.
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'abc', 'WH1', 1), (2, 'ABC', 'WH1', 2)`);
    await scene.shows(rows, ['abc|1']);
    await scene.holds(has('["ABC","WH1","",""]', '["abc","WH1","",""]'));
    await wms.run('delete from stock where id = 2; update stock set qty = 5 where id = 1');
    await scene.shows(rows, ['abc|5']);
    await wms.run(`insert into stock (id, sku, place, qty) values (3, 'aBC', 'WH1', 3), (4, 'abd', 'WH1', 4)`);
    await scene.holds(has('["aBC","WH1","",""]', '["abc","WH1","",""]'));
    await scene.shows(rows, ['abc|5', 'abd|4']);
    await wms.run('delete from stock where id = 1');
    await scene.shows(`select lower(sku), n from p order by sku`, ['abc|3', 'abd|4']);
    await wms.run('delete from stock');
    await scene.shows(rows, []);
  });

  it('records whose places are one as a number have one row', async () => {
    const scene = await StockToShop.open(
      servers,
      kind,
      'create table p (sku varchar(20), n int, q int, primary key (sku, n))',
      `    - { to: p, where: { all: [${ALONE}] }, key: { sku: sku, n: { decimal: location } }, set: { q: on_hand }, gone: delete }\n`,
    );
    expect(await warningsOf(scene)).toEqual([meets(5, 'location', 'p.n gets it as a number, however it is written')]);
    const { wms } = scene;
    const rows = 'select sku, n, q from p order by sku, n';
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', '1', 1), (2, 'A', '2', 7)`);
    await scene.shows(rows, ['A|1|1', 'A|2|7']);
    await wms.run(`insert into stock (id, sku, place, qty) values (3, 'A', '01', 2)`);
    await scene.holds(has('["A","01","",""]', '["A","1","",""]'));
    await wms.run('delete from stock where id = 3; update stock set qty = 4 where id = 1');
    await scene.shows(rows, ['A|1|4', 'A|2|7']);
    await wms.run('delete from stock');
    await scene.shows(rows, []);
  });

  it('blocks that come to a row by other ways know that it is the same', async () => {
    const block = (where: string, site: string, column: string): string =>
      `    - { to: p, where: { all: [{ ${where} }, ${ALONE}] }, key: { sku: sku, site: ${site} }, set: { ${column}: on_hand }, gone: delete }\n`;
    const scene = await StockToShop.open(
      servers,
      kind,
      `create table sites (id int primary key, code varchar(20) unique, short varchar(20) unique);
       insert into sites values (1, 'WH1', 'W'), (2, 'WH2', 'X');
       create table p (sku varchar(20), site int, n int, returned int, lost int, primary key (sku, site));`,
      block('in: [location, [WH1, WH2]]', '{ find: sites.id, where: { code: location } }', 'n') +
        block('eq: [location, { const: RETURNS }]', `{ decimal: { const: '1' } }`, 'returned') +
        block('in: [location, [W, X]]', '{ find: sites.id, where: { short: location } }', 'lost'),
    );
    expect(await warningsOf(scene)).toEqual([5, 6, 7].map(side));
    const { wms } = scene;
    const rows = 'select sku, site, n, returned, lost from p order by sku, site';
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values
      (1, 'A', 'WH1', 5), (2, 'A', 'RETURNS', 2), (3, 'A', 'WH2', 7), (4, 'A', 'X', 3)`);
    await scene.shows(rows, ['A|1|5|2|', 'A|2|7||3']);
    await scene.holds();
    await wms.run('delete from stock where id in (1, 3)');
    await wms.run('update stock set qty = 4 where id in (2, 4)');
    await scene.shows(rows, ['A|1|5|4|', 'A|2|7||4']);
    await wms.run('delete from stock');
    await scene.shows(rows, []);
  });

  it('a table with its schema is the one without: an edit leaves rows to who has them, and blocks have rows in common', async () => {
    const block = (table: string, where = '{ gt: [on_hand, 0] }'): string =>
      `    - { to: ${table}, where: ${where}, key: { sku: sku }, set: { n: on_hand }, gone: delete }\n`;
    const at = (place: string): string => `{ eq: [location, { const: ${place} }] }`;
    const scene = await StockToShop.open(
      servers,
      kind,
      'create table p (sku varchar(20) primary key, n int)',
      block('p'),
    );
    const { wms, shop } = scene;
    const [[schema]] = (await shop.run(kind === 'postgres' ? 'select current_schema()' : 'select database()')) as [
      [string],
    ];
    const rows = 'select sku, n from p';
    const held = (place: string, table: string): string =>
      `["A","${place}","",""]|${table}: record ["A","WH1","",""] has this row; the key of the row does not tell them apart`;
    scene.start();
    await wms.run(`insert into stock (id, sku, place, qty) values (1, 'A', 'WH1', 1)`);
    await scene.shows(rows, ['A|1']);
    await wms.run(`insert into stock (id, sku, place, qty) values (2, 'A', 'WH2', 2)`);
    await scene.holds(held('WH2', 'p'));
    const table = `${schema}.p`;
    await scene.remap(block(table));
    await wms.run(`insert into stock (id, sku, place, qty) values (3, 'A', 'WH3', 3)`);
    await scene.holds(held('WH2', table), held('WH3', table));
    await scene.shows(rows, ['A|1']);
    await scene.remap(block('p', at('WH1')) + block(table, at('WH2')));
    await wms.run('update stock set qty = 4 where id = 2; update stock set qty = 5 where id = 1');
    await scene.shows(rows, ['A|5']);
    await scene.holds(held('WH2', table));
    await wms.run('delete from stock where id = 1');
    await scene.shows(rows, ['A|4']);
  });
});
