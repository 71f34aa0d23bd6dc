/**
 * Timelines (PostgreSQL documentation, "Continuous Archiving", "Timelines"): a standby that is promoted, or a backup that
 * is brought back, goes on with a log of its own from a place where the one before may have had more. The numbers in it
 * begin again there, so that a place alone does not tell what lies before it.
 */
import pg from 'pg';
import type { PostgresSourceConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { formatLsn, parseLsn } from '../../core/position.ts';
import { clientConfig } from './connection.ts';
import { sourceError } from './source-error.ts';

/** A timeline that came before, and where the log left it. */
export interface Ancestor {
  readonly timeline: number;
  readonly end: bigint;
}

/** Of the lines of a history file (`<timeline> <LSN> <reason>`); what is not one says nothing. */
export function parseTimelineHistory(text: string): Ancestor[] {
  return text.split('\n').flatMap((line) => {
    const [timeline = '', end = ''] = line.trim().split(/\s+/);
    const lsn = parseLsn(end);
    return /^\d+$/.test(timeline) && lsn !== undefined ? [{ timeline: Number(timeline), end: lsn }] : [];
  });
}

/** Throws `source_diverged` where a log that was captured on one timeline up to `end` is not the one that the source has. */
export function requireAncestor(history: readonly Ancestor[], now: number, captured: number, end: bigint): void {
  const left = history.find(({ timeline }) => timeline === captured)?.end;
  if (left !== undefined && end <= left) return;
  throw new ReplicationError(
    'source_diverged',
    `the source is on timeline ${now}, ` +
      (left === undefined
        ? `which does not come from timeline ${captured}, whose log was captured`
        : `which left timeline ${captured} at ${formatLsn(left)}, before the end of what was captured of that at ${formatLsn(end)}`),
  );
}

/** Reads the history of a timeline of the source: the only way there is takes a replication connection. */
export async function readTimelineHistory(
  settings: PostgresSourceConfig,
  applicationName: string,
  timeline: number,
): Promise<Ancestor[]> {
  const client = new pg.Client({
    ...clientConfig(settings, applicationName),
    replication: 'database',
  } as pg.ClientConfig);
  client.on('error', () => {});
  try {
    await client.connect();
    // The content is declared as bytes, and sent as it is.
    const raw = { getTypeParser: () => (text: string) => text };
    const { rows } = await client.query<[string, string]>({
      text: `TIMELINE_HISTORY ${timeline}`,
      rowMode: 'array',
      types: raw as never,
    });
    return parseTimelineHistory(rows[0]?.[1] ?? '');
  } catch (thrown) {
    throw sourceError(thrown, `reading the history of timeline ${timeline}`);
  } finally {
    await client.end().catch(() => {});
  }
}
