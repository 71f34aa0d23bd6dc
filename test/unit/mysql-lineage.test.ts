import { describe, expect, it } from 'vitest';
import type { SqlClient } from '../../capture/mysql/connection.ts';
import { requireLineage } from '../../capture/mysql/executed.ts';
import { parseGtidSet } from '../../core/gtid-position.ts';

/** A MariaDB server that has executed one transaction less than the stream holds. */
function server(readOnly: string): SqlClient {
  const answer = (sql: string): string => {
    if (sql.includes('read_only')) return readOnly;
    return '0-1-9';
  };
  const query = async (sql: string): Promise<string[][]> => await Promise.resolve([[answer(sql)]]);
  return { query } as unknown as SqlClient;
}

describe('a server that lacks what the stream holds', () => {
  const taken = parseGtidSet('0-1-10', 'mariadb')!;

  it.each(['1', 'ON', 'NO_LOCK', 'NO_LOCK_NO_ADMIN'])('is waited for where read_only is %s', async (readOnly) => {
    await expect(requireLineage(server(readOnly), 'mariadb', taken, 'erp')).rejects.toMatchObject({
      code: 'source_behind',
    });
  });

  it.each(['0', 'OFF'])('has diverged where read_only is %s', async (readOnly) => {
    await expect(requireLineage(server(readOnly), 'mariadb', taken, 'erp')).rejects.toMatchObject({
      code: 'source_diverged',
    });
  });
});
