/**
 * Which of several servers a source is read from. A url may name a primary and its replicas: after a failover the one
 * that accepts writes is followed, and its history decides whether it may be (see `requireLineage`).
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { MysqlSourceConfig } from '../../core/config.ts';
import { asReplicationError, isAbort, ReplicationError } from '../../core/errors.ts';
import type { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';
import { acceptsWrites } from '../../core/mysql-login.ts';
import { serverName, serverUrls } from '../../core/source-url.ts';
import type { Flavour } from './binlog-handler.ts';
import { connectSource, takeSession, type SqlClient } from './connection.ts';
import { readExecuted } from './executed.ts';

/** What one server has executed: a set, or on MariaDB, where numbers alone are alike on all servers, by server. */
export type History = MysqlGtidSet | ReadonlyMap<string, number>;

/** A server that answers. */
export interface Candidate {
  readonly writable: boolean;
  /** At one moment, and a while later: what comes in meanwhile tells replicas of each other from strangers. */
  readonly before: History;
  readonly after: History;
}

/** How long servers that all accept writes are watched for what they take from each other. */
const WATCH_MS = 1500;

/** Whether `a` holds all of `b`. */
export function covers(a: History, b: History): boolean {
  if (b instanceof Map) return [...b].every(([key, seq]) => ((a as ReadonlyMap<string, number>).get(key) ?? -1) >= seq);
  return (b as MysqlGtidSet).isSubset(a as MysqlGtidSet);
}

/**
 * Gives the index of the server to read from, of those in the order of the url. One that accepts writes comes before
 * one that does not. Of several that do, those that another one has left behind are out; of equals, and of replicas, the
 * one in use stays, else it is the first. Throws `source_ambiguous` where two accept writes and neither takes what the
 * other has.
 */
export function chooseCandidate(candidates: readonly Candidate[], current = -1): number {
  const all = candidates.map((_, index) => index);
  const writable = all.filter((index) => candidates[index]!.writable);
  // Left behind: it does not take in what the other had already.
  const lacks = (a: number, b: number): boolean => !covers(candidates[a]!.after, candidates[b]!.before);
  for (const a of writable)
    for (const b of writable)
      if (a < b && lacks(a, b) && lacks(b, a))
        throw new ReplicationError(
          'source_ambiguous',
          `servers ${a + 1} and ${b + 1} of the url both accept writes, and each has transactions that the other has not`,
        );
  const leading = writable.filter((a) => !writable.some((b) => lacks(a, b)));
  const eligible = leading.length > 0 ? leading : all;
  return eligible.includes(current) ? current : eligible[0]!;
}

/** A connection to one server of a source, and the settings that name this server alone. */
export interface ChosenServer {
  readonly client: SqlClient;
  readonly settings: MysqlSourceConfig;
}

/**
 * Connects to the server that a source is to be read from; where the url names one only, to that.
 *
 * @param options `current`: url of the server in use, which is kept among equals; the others as of `connectSource`
 * @throws `source_unreachable` when none answers, `source_auth` and the like when none lets us in, `source_ambiguous`
 */
export async function connectChosen(
  settings: MysqlSourceConfig,
  options: { readonly current?: string; readonly name?: string; readonly signal?: AbortSignal } = {},
): Promise<ChosenServer> {
  const { current, name, signal } = options;
  const urls = serverUrls(settings.url);
  if (urls.length === 1) return { client: await connectSource(settings, { name, signal }), settings };
  const servers = urls.map((url) => ({ ...settings, url }));
  const tries = await Promise.allSettled(servers.map(async (server) => await connectSource(server, { signal })));
  const open = tries.flatMap((result, index) =>
    result.status === 'fulfilled' ? [{ client: result.value, settings: servers[index]! }] : [],
  );
  let chosen: ChosenServer | undefined;
  try {
    signal?.throwIfAborted();
    if (open.length === 0) throw noneAnswers(tries);
    const usable = await lookAt(open);
    const inUse = usable.findIndex(({ server }) => server.settings.url === current);
    const { server } = usable[chooseCandidate(usable, inUse)]!;
    if (name !== undefined) await takeSession(server.client, name);
    chosen = server;
    return chosen;
  } catch (thrown) {
    signal?.throwIfAborted();
    throw thrown;
  } finally {
    for (const { client } of open) if (client !== chosen?.client) client.end();
  }
}

/** Looks at all of them; those that break down meanwhile are left out. Throws when all do. */
async function lookAt(open: readonly ChosenServer[]): Promise<(Candidate & { readonly server: ChosenServer })[]> {
  const read = async ({ client, settings }: ChosenServer): Promise<{ writable: boolean; history: History }> => {
    const [[readOnly] = []] = await client.query(
      'SELECT @@global.read_only',
      'asking whether the source accepts writes',
    );
    return { writable: acceptsWrites(readOnly), history: await readHistory(client, settings.kind) };
  };
  const first = await Promise.allSettled(open.map(read));
  const several = first.filter((result) => result.status === 'fulfilled' && result.value.writable).length > 1;
  if (several) await delay(WATCH_MS);
  const second = several ? await Promise.allSettled(open.map(read)) : first;
  const found = open.flatMap((server, index) => {
    const [a, b] = [first[index]!, second[index]!];
    if (a.status === 'rejected' || b.status === 'rejected') return [];
    return [{ server, writable: b.value.writable, before: a.value.history, after: b.value.history }];
  });
  if (found.length === 0) throw noneAnswers(second);
  return found;
}

/** What a server has in its log, by server on MariaDB. */
async function readHistory(client: SqlClient, flavour: Flavour): Promise<History> {
  if (flavour === 'mysql') return (await readExecuted(client, flavour)) as MysqlGtidSet;
  const [[state] = []] = await client.query('SELECT @@global.gtid_binlog_state', 'reading the GTIDs of the source');
  const last = new Map<string, number>();
  for (const part of (state ?? '').split(',')) {
    const [domain, server, seq] = part.trim().split('-');
    if (seq !== undefined) last.set(`${domain}-${server}`, Number(seq));
  }
  return last;
}

/** The error that says most: one that waiting does not mend, before one that it does. */
function noneAnswers(results: readonly PromiseSettledResult<unknown>[]): ReplicationError {
  const errors = results.flatMap((result) => (result.status === 'rejected' ? [asReplicationError(result.reason)] : []));
  const first = errors.find(({ code }) => code !== 'source_unreachable') ?? errors[0]!;
  return new ReplicationError(first.code, `none of the ${results.length} servers of the source: ${first.message}`, {
    cause: first,
  });
}

/**
 * Looks now and then whether another server has become the one to read, until the signal aborts; calls `onOther` then,
 * once. Errors other than `source_ambiguous`, which is thrown, are left to the reading of the log to meet.
 */
export async function watchServers(
  settings: MysqlSourceConfig,
  current: string,
  everyMs: number,
  signal: AbortSignal,
  onOther: (name: string) => void,
): Promise<void> {
  if (serverUrls(settings.url).length === 1) return;
  while (!signal.aborted) {
    await delay(everyMs, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
    try {
      const chosen = await connectChosen(settings, { current, signal });
      chosen.client.end();
      if (chosen.settings.url === current) continue;
      onOther(serverName(chosen.settings.url));
      return;
    } catch (thrown) {
      if (isAbort(thrown, signal)) return;
      const error = asReplicationError(thrown);
      if (error.code === 'source_ambiguous' || error.code === 'internal') throw error;
    }
  }
}
