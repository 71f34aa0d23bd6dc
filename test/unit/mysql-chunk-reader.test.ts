/** Where a chunk of a MySQL table begins to be read. */
import { expect, it } from 'vitest';
import type { CapturedTable } from '../../capture/mysql/catalog.ts';
import { ChunkReader } from '../../capture/mysql/chunk-reader.ts';
import type { SqlClient } from '../../capture/mysql/connection.ts';
import type { LogPort } from '../../capture/mysql/log-boundary.ts';
import { parseGtidSet } from '../../core/gtid-position.ts';

it('a mark at the low place stands where the window opens, with nothing of the log between', async () => {
  const taken = parseGtidSet('', 'mysql')!;
  const happened: string[] = [];
  const port: LogPort = {
    taken,
    contains: () => true,
    place: { file: '', offset: 0 },
    window: undefined,
    publish: (_, op) => happened.push(`published ${op}, window ${port.window === undefined ? 'closed' : 'open'}`),
    publishLines: () => happened.push('published rows'),
  };
  const reader = new ChunkReader({
    client: { query: async () => [['']] } as unknown as SqlClient,
    flavour: 'mysql',
    signal: new AbortController().signal,
    atBoundary: async (_, work) => {
      happened.push('boundary');
      const result = work(port);
      happened.push('log goes on');
      return result;
    },
  });
  const table = { schema: { schema: 'erp', name: 'log' } } as unknown as CapturedTable;
  const read = async (): Promise<string> => {
    happened.push('read');
    return 'rows';
  };
  const { result } = await reader.read(table, 'reading', read, (at) => at.publish(table as never, 's', []));
  expect(result).toBe('rows');
  expect(happened).toEqual(['boundary', 'published s, window open', 'log goes on', 'read']);
});
