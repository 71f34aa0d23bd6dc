/** Rows of tables without a key are found in MySQL by all that they have, also by types that compare in a way of their own. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { CrossPipeline } from '../support/cross-pipeline.ts';

describe('rows without a key in MySQL', () => {
  let server: MysqlServer;
  let nats: NatsServer;
  beforeAll(async () => {
    [server, nats] = await Promise.all([startMysql({ flavour: 'mysql' }), startNats()]);
  });
  afterAll(async () => {
    await Promise.all([server?.dispose(), nats?.dispose()]);
  });

  it.each([
    ['v', 'vector(3)', `string_to_vector('[1,2,3]')`],
    ['p', 'point', 'point(1, 2)'],
    ['j', 'json', `'{"k": 1}'`],
    ['b', 'blob', `x'00ff'`],
    ['f', 'float', '0.1'],
  ])('are changed and deleted where they have %s %s', async (name, type, value) => {
    const side = { dialect: 'mysql', server } as const;
    const pipe = await CrossPipeline.open({ from: side, to: side, nats });
    try {
      await pipe.source.run(
        `create table e (a int, ${name} ${type}); insert into e values (1, ${value}), (2, ${value}), (3, null)`,
      );
      await pipe.start();
      await pipe.settled(['e']);
      await pipe.source.run(
        `update e set a = 9 where a = 1; delete from e where a = 2; update e set ${name} = ${value}`,
      );
      await pipe.settled(['e']);
      const rows = (place: string): string => `select a, hex(${name}) from ${place}.e order by a`;
      expect(await pipe.target.run(rows(pipe.place))).toEqual(await pipe.source.run(rows(pipe.schema)));
    } finally {
      await pipe.close();
    }
  });
});
