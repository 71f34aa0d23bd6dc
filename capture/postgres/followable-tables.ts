/** Which tables are published: of those that match, the ones whose updates and deletes the log can tell of. */
import type pg from 'pg';
import type { Logger } from '../../core/logger.ts';
import { hasIdentity, type CapturedTable } from './catalog.ts';
import { ensurePublication, isTableGone, matchingTables, readPublication } from './publication.ts';
import { describeProblems, identityProblems } from './replica-identity.ts';

/**
 * Publishes those of the tables that can be followed, and gives them. Another is left out, with a warning, and the others
 * go on: once it were published its updates would fail at the source. Throws as `ensurePublication`.
 */
export async function publishFollowable(
  client: pg.Client,
  publication: string,
  matching: readonly CapturedTable[],
  log: Logger,
): Promise<CapturedTable[]> {
  const tables = await followableTables(client, publication, matching, log);
  await ensurePublication(client, publication, tables);
  return tables;
}

/** As `publishFollowable` of the tables that the patterns choose now; one that is dropped meanwhile is none of them. */
export async function publishMatching(
  client: pg.Client,
  publication: string,
  patterns: readonly string[],
  log: Logger,
): Promise<CapturedTable[]> {
  for (;;) {
    const matching = await matchingTables(client, patterns);
    try {
      return await publishFollowable(client, publication, matching, log);
    } catch (thrown) {
      if (!isTableGone(thrown)) throw thrown;
    }
  }
}

async function followableTables(
  client: pg.Client,
  publication: string,
  matching: readonly CapturedTable[],
  log: Logger,
): Promise<CapturedTable[]> {
  const tables = matching.filter(({ schema }) => hasIdentity(schema));
  const problems = await identityProblems(client, publication, tables);
  if (problems.length === 0) return tables;
  const published = (await readPublication(client, publication))?.tables;
  const isPublished = ({ schema: { schema, name } }: CapturedTable): boolean =>
    published?.has(`${schema}.${name}`) === true;
  for (const root of new Set(problems.map((problem) => problem.root))) {
    const its = problems.filter((problem) => problem.root === root);
    log.warn({ sql: its.map(({ sql }) => sql) }, describeProblems(its));
  }
  // What is published already is not worse for being captured.
  return tables.filter((table) => isPublished(table) || !problems.some(({ root }) => root === table));
}
