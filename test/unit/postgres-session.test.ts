import pg from 'pg';
import { describe, expect, it } from 'vitest';
import { postgresSession } from '../../core/postgres-session.ts';

/** What `pg` makes of a session. */
function parametersOf(url: string, options?: string): Record<string, unknown> {
  const client = new pg.Client(postgresSession(url, 'waybill', options)) as unknown as {
    connectionParameters: Record<string, unknown>;
  };
  return client.connectionParameters;
}

describe('postgres session', () => {
  it('keeps its name and the last word on settings, whatever the url says', () => {
    const url =
      'postgres://u:p%40w@h:6543/db?options=-c%20datestyle%3DGerman%20-c%20search_path%3Dx&application_name=mine&keepalives=1';
    expect(parametersOf(url, '-c datestyle=ISO')).toMatchObject({
      user: 'u',
      password: 'p@w',
      host: 'h',
      port: 6543,
      database: 'db',
      application_name: 'waybill',
      options: '-c datestyle=German -c search_path=x -c datestyle=ISO',
    });
  });

  it('leaves other urls as they are', () => {
    for (const url of ['postgres://u@h/db', 'postgres:///db?host=/var/run/postgresql', '/var/run/postgresql db'])
      expect(postgresSession(url, 'waybill')).toEqual({ connectionString: url, application_name: 'waybill' });
    expect(parametersOf('postgres:///db?host=/var/run/postgresql&application_name=mine')).toMatchObject({
      host: '/var/run/postgresql',
      application_name: 'waybill',
    });
  });
});
