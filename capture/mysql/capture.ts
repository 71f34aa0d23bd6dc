/** The capture of one MySQL or MariaDB source: from its log into its stream. */
import { cdcStreamName, readTail } from '../../core/cdc-stream.ts';
import type { MysqlSourceConfig, NatsConfig } from '../../core/config.ts';
import { asReplicationError, ReplicationError } from '../../core/errors.ts';
import { FramePublisher } from '../../core/frame-publisher.ts';
import { gtidPosition, parseGtidSet, withGtid, type GtidPosition } from '../../core/gtid-position.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import type { Logger } from '../../core/logger.ts';
import { asGtidPosition } from '../../core/position.ts';
import { compileTablePatterns } from '../../core/table-pattern.ts';
import { endSession } from '../../core/session-lock.ts';
import { sessionName } from '../../core/stale-sessions.ts';
import { serverName, serverUrls } from '../../core/source-url.ts';
import { compileColumnRules } from '../column-findings.ts';
import { runCapture, type CaptureOptions, type HeldCapture, type SourceKind } from '../capture-loop.ts';
import { planSnapshot } from '../snapshot-plan.ts';
import { readRequests, removeRequest } from '../request-queue.ts';
import { ProgressStore } from '../snapshot-request.ts';
import { beginStream } from '../stream-start.ts';
import { BY_NAME, TableRegistry } from '../table-registry.ts';
import { CaptureSession } from './capture-session.ts';
import { matchingTables, type CapturedTable } from './catalog.ts';
import { connectChosen, watchServers } from './choose-server.ts';
import type { SqlClient } from './connection.ts';
import { readExecuted, requireLineage } from './executed.ts';
import { foldsNames, readFacts, requireSettings } from './inspect.ts';
import { describeUnlogged, describeUnloggedReplication, readUnlogged, readUnloggedReplication } from './log-filter.ts';
import { storedEntry, ToldTables, type ToldTable } from './told-tables.ts';

/** An idle stream is given a frame this many times within the age at which its frames expire. */
const KEEPALIVES_PER_AGE = 8;
const MAX_KEEPALIVE_MS = 3_600_000;

const MYSQL: SourceKind<MysqlSourceConfig> = {
  capture,
  stateAfter: ({ code }) => (code === 'source_log_purged' ? 'slot_lost' : 'blocked'),
  // A source that went another way may be followed all the same, when somebody says so.
  resetHelps: ({ code }) => code === 'source_diverged',
};

/** Captures until the signal aborts: see `runCapture`. */
export async function runMysqlCapture(options: CaptureOptions<MysqlSourceConfig>): Promise<void> {
  await runCapture(MYSQL, options);
}

async function capture(held: HeldCapture<MysqlSourceConfig>): Promise<void> {
  const { name, settings, natsConfig, nats, bucket, log } = held;
  const named = sessionName('capture', name, held.installation);
  const { client, settings: server } = await connectChosen(settings, { name: named, signal: held.run.signal });
  try {
    await endOvertaken(client, name, held.installation, log);
    const several = serverUrls(settings.url).length > 1;
    if (several) log.info({ server: serverName(server.url) }, 'reads from this server of the source');
    const facts = await readFacts(client, settings.kind);
    requireSettings(facts, settings.kind);
    const tables = await matchingTables(client, settings.kind, settings.tables);
    await requireLogged(client, settings.kind, tables);
    const executed = await readExecuted(client, settings.kind);
    const resets = (await readRequests(bucket, name)).filter((request) => request.reset === true).map(({ id }) => id);
    const reset = resets.length > 0;
    const tail = await readTail(nats, cdcStreamName(natsConfig.prefix, name), { anew: reset });
    const taken = asGtidPosition(tail.end);
    if (taken !== undefined && taken.kind !== settings.kind)
      throw new ReplicationError(
        'source_identity_mismatch',
        `source ${name} is ${settings.kind} now, but its stream was captured from ${taken.kind}`,
      );
    // The origin names the first server of a lineage; a replica that takes over keeps it.
    const origin = reset || tail.origin === undefined || tail.origin === '' ? facts.origin : tail.origin;
    if (origin !== facts.origin)
      log.warn({ server: facts.origin, began: origin }, 'reads the log of another server than the stream began with');
    const publisher = new FramePublisher(nats, natsConfig, { source: name, origin, epoch: held.epoch, tail });
    const startAfresh = reset || taken === undefined;
    let resume: GtidPosition;
    if (startAfresh) {
      resume = gtidPosition(await readExecuted(client, settings.kind), taken?.reads ?? 0);
      await beginStream(nats, publisher, tail, resume, log);
    } else {
      resume = taken;
      await requireLineage(client, settings.kind, takenOrOpen(resume), name);
    }
    const progress = new ProgressStore(bucket, name);
    const names = tables.map(({ schema }) => schema);
    await planSnapshot(progress, names, { startAfresh, read: settings.snapshot === 'initial' || reset, resets });
    for (const id of resets) await removeRequest(bucket, name, id);
    const rules = compileColumnRules(held, tables);
    const registry = new TableRegistry<string, ToldTable>(bucket, name, BY_NAME, (told) => storedEntry(told, rules));
    const told = await ToldTables.open(registry, await registry.load(), tables, {
      afresh: startAfresh,
      included: compileTablePatterns(settings.tables),
    });
    const moved = new AbortController();
    const over = new AbortController();
    const session = new CaptureSession({
      held: {
        ...held,
        settings: server,
        run: { ...held.run, signal: AbortSignal.any([held.run.signal, moved.signal]) },
      },
      progress,
      client,
      publisher,
      resume,
      start: await replayFrom(client, settings.kind, startAfresh ? undefined : tail.replay, resume, log),
      tables,
      executed,
      told,
      rules,
      foldsNames: foldsNames(facts),
      keepaliveMs: keepaliveMs(natsConfig),
    });
    let failure: unknown;
    const watch = watchServers(settings, server.url, settings.heartbeat, over.signal, (other) => {
      log.warn({ server: other }, 'another server of the source is to be read now');
      moved.abort();
    }).catch((thrown: unknown) => {
      failure = thrown;
      moved.abort();
    });
    try {
      await session.run();
    } finally {
      over.abort();
      await watch;
    }
    if (failure !== undefined) throw failure;
  } finally {
    client.end();
  }
}

/** Throws `source_binlog_settings` where changes of captured tables are not logged. */
async function requireLogged(
  client: SqlClient,
  kind: 'mysql' | 'mariadb',
  tables: readonly CapturedTable[],
): Promise<void> {
  const unlogged = await readUnlogged(
    client,
    kind,
    tables.map(({ schema }) => schema.schema),
  );
  const replication = await readUnloggedReplication(client, kind);
  const problems = [
    ...unlogged.map(describeUnlogged),
    ...(replication === undefined ? [] : [describeUnloggedReplication(replication)]),
  ];
  if (problems.length > 0) throw new ReplicationError('source_binlog_settings', problems.join('; '));
}

/** A holder that hangs may keep an open transaction, or the lock of a table that it was reading, for ever. */
async function endOvertaken(client: SqlClient, name: string, installation: string, log: Logger): Promise<void> {
  let ended = 0;
  for (const purpose of ['stream', 'load'] as const) {
    const session = sessionName(purpose, name, installation);
    if (await endSession((sql) => client.query(sql, 'ending the sessions of an overtaken process'), session))
      ended += 1;
  }
  if (ended > 0) log.warn({ sessions: ended }, 'ended the sessions that an overtaken process left on the source');
}

function keepaliveMs({ stream }: NatsConfig): number {
  return Math.min(MAX_KEEPALIVE_MS, stream.max_age > 0 ? stream.max_age / KEEPALIVES_PER_AGE : MAX_KEEPALIVE_MS);
}

/** What the source must have executed: also the transaction that the stream holds in part. */
function takenOrOpen({ gtids, open }: GtidPosition): GtidSet {
  return open === undefined ? gtids : withGtid(gtids, open.gtid);
}

/**
 * Where the log is read from: before the XA transactions in doubt, whose rows are held again. Where that part of the
 * log is gone it is read from `resume`, and their commit makes all tables be read again.
 */
async function replayFrom(
  client: SqlClient,
  kind: 'mysql' | 'mariadb',
  text: string | undefined,
  resume: GtidPosition,
  log: Logger,
): Promise<GtidSet> {
  const replay = text === undefined ? undefined : parseGtidSet(text, kind);
  if (replay === undefined) return resume.gtids;
  try {
    await requireLineage(client, kind, replay, 'of XA transactions in doubt');
    return replay;
  } catch (thrown) {
    const error = asReplicationError(thrown);
    if (error.code !== 'source_log_purged') throw error;
    log.warn({ replay: text }, 'the log no longer holds the XA transactions in doubt');
    return resume.gtids;
  }
}
