import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../core/config.ts';
import { redactUrl, serverName, serverUrls } from '../../core/source-url.ts';

describe('urls of sources', () => {
  it('may name several servers, which share user, password and database', () => {
    expect(serverUrls('mysql://u:p%40%2C@one:3306,two,[::1]:3307/erp?x=1')).toEqual([
      'mysql://u:p%40%2C@one:3306/erp?x=1',
      'mysql://u:p%40%2C@two/erp?x=1',
      'mysql://u:p%40%2C@[::1]:3307/erp?x=1',
    ]);
    expect(serverUrls('mysql://u:a,b@one/erp')).toEqual(['mysql://u:a,b@one/erp']);
    expect(serverUrls('mysql://one/a,b')).toEqual(['mysql://one/a,b']);
    expect(serverName('mysql://u:p@one:3306/erp')).toBe('one:3306');
  });

  it('never show a password', () => {
    expect(redactUrl('mysql://u:secret@one:3306,two:3306/erp')).toBe('mysql://u:***@one:3306,two:3306/erp');
    expect(redactUrl('mysql://u:secret@one:3306/erp')).toBe('mysql://u:***@one:3306/erp');
    expect(redactUrl('one,two secret')).toBe('(not a url)');
  });

  it('are refused where several servers make no sense, or one of them is none', () => {
    const problems = (kind: string, url: string): string => {
      try {
        parseConfig(JSON.stringify({ version: 1, sources: { erp: { kind, url, tables: ['erp.*'] } } }), {});
        return '';
      } catch (thrown) {
        return (thrown as Error).message;
      }
    };
    expect(problems('mysql', 'mysql://u@one:3306,two:3306/erp')).toBe('');
    expect(problems('mysql', 'mysql://u@one:3306,two:port/erp')).toContain('sources.erp.url: must be mysql://');
    expect(problems('mysql', 'mysql://u@one:3306,,two/erp')).toContain('sources.erp.url: must be mysql://');
    expect(problems('postgres', 'postgresql://u@one:5432,two:5432/erp')).toContain('names several servers');
  });
});
