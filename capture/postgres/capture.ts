/** The capture of one Postgres source: from its log into its stream. */
import type pg from 'pg';
import { cdcStreamName, readTail, type StreamTail } from '../../core/cdc-stream.ts';
import { ColumnRules } from '../../core/column-rules.ts';
import { publicationName, slotName, type NatsConfig, type PostgresSourceConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import type { TableSchema } from '../../core/frame.ts';
import { FramePublisher } from '../../core/frame-publisher.ts';
import type { Logger } from '../../core/logger.ts';
import { asPgPosition, pgPosition } from '../../core/position.ts';
import { endStaleSessions, sessionName } from '../../core/stale-sessions.ts';
import { runCapture, type CaptureOptions, type HeldCapture, type SourceKind } from '../capture-loop.ts';
import { planSnapshot } from '../snapshot-plan.ts';
import { readRequests, removeRequest } from '../request-queue.ts';
import { ProgressStore } from '../snapshot-request.ts';
import { beginStream } from '../stream-start.ts';
import { BY_OID, TableRegistry } from '../table-registry.ts';
import { CaptureSession } from './capture-session.ts';
import type { CapturedTable } from './catalog.ts';
import { connectShared, connectSource, endClient } from './connection.ts';
import { publishFollowable } from './followable-tables.ts';
import { inspectSource, type SourceFacts } from './inspect.ts';
import { matchingTables } from './publication.ts';
import { requireIdentities } from './replica-identity.ts';
import { createSlot, readSlot, requireLog, requireUsableSlot, slotState } from './slot.ts';
import { NO_SLOT, sourceError } from './source-error.ts';
import { SpoolSwitch } from './spool-switch.ts';
import { restoredTable, storedTable, untold } from './stored-table.ts';
import { readTimelineHistory, requireAncestor } from './timeline.ts';
import { requireReadable } from './unreadable-tables.ts';

const POSTGRES: Omit<SourceKind<PostgresSourceConfig>, 'capture'> = {
  stateAfter: ({ code }) => {
    if (code === 'source_slot_missing') return 'slot_missing';
    return code === 'source_slot_lost' ? 'slot_lost' : 'blocked';
  },
  // A source that went another way may be followed all the same, when somebody says so.
  resetHelps: ({ code }) => code === 'source_diverged',
};

/** Captures until the signal aborts: see `runCapture`. */
export async function runPostgresCapture(
  options: CaptureOptions<PostgresSourceConfig>,
  spooling = new SpoolSwitch(options.settings),
): Promise<void> {
  await runCapture({ ...POSTGRES, capture: async (held) => capture(held, spooling) }, options);
}

async function capture(held: HeldCapture<PostgresSourceConfig>, spooling: SpoolSwitch): Promise<void> {
  const { name, settings, natsConfig, nats, bucket, installation, log } = held;
  const client = await connectShared(settings, sessionName('capture', name, installation));
  let watchClient: pg.Client | undefined;
  try {
    await endOvertaken(client, name, installation, log);
    const source = await inspectSource(client);
    const slot = slotName(name, settings, natsConfig.prefix);
    const publication = publicationName(name, settings, natsConfig.prefix);
    const rules = ColumnRules.compile(settings.columns);
    const registry = new TableRegistry<number, CapturedTable>(bucket, name, BY_OID, (table) =>
      storedTable(table, rules),
    );
    const resets = (await readRequests(bucket, name)).filter((request) => request.reset === true).map(({ id }) => id);
    const reset = resets.length > 0;
    let tail = await readTail(nats, cdcStreamName(natsConfig.prefix, name), { anew: reset });
    const matching = await matchingTables(client, settings.tables);
    if (tail.seq === 0) await requireIdentities(client, publication, matching);
    const tables = await publishFollowable(client, publication, matching, log);
    // Later one that cannot be read waits by itself for the right to.
    if (tail.seq === 0) await requireReadable(client, tables);

    if (tail.origin !== undefined && tail.origin !== '' && tail.origin !== source.origin)
      throw new ReplicationError(
        'source_identity_mismatch',
        `source ${name} is now database ${source.origin}, but its stream was captured from ${tail.origin}`,
      );
    const publisher = new FramePublisher(nats, natsConfig, {
      source: name,
      origin: source.origin,
      timeline: source.timeline,
      epoch: held.epoch,
      tail,
    });
    if (!reset) await requireTimeline(held, source, tail);
    const { startAfresh, lsn } = await prepareSlot(client, { slot, tail, source, reset });
    const progress = new ProgressStore(bucket, name);
    const names = tables.map(({ schema }) => schema);
    const { known, added, anew } = await knownTables(
      registry,
      { tables, matching },
      startAfresh,
      asPgPosition(tail.end).lsn,
    );
    const read = settings.snapshot === 'initial' || reset;
    await planSnapshot(progress, names, { startAfresh, read, again: read ? anew : [], resets });
    if (startAfresh) {
      // Only now: once the stream has a frame, what is stored is taken for its own, though it may be of one before.
      await beginStream(nats, publisher, tail, pgPosition(lsn), log);
      tail = { ...tail, seq: publisher.lastSeq, end: pgPosition(lsn) };
    }
    for (const id of resets) await removeRequest(bucket, name, id);
    // Only now: a table that is known is not asked for any more.
    for (const table of added) await registry.put(table.oid, table);
    watchClient = await connectSource(settings, sessionName('schema', name, installation));
    const syncMs = syncDelayMs(natsConfig);
    const more = { watchClient, registry, slot, publication, syncMs, spooling };
    await new CaptureSession({ held, progress, client, publisher, tail, tables: known, ...more }).run();
  } finally {
    await Promise.all([client, watchClient].map(async (own) => own && (await endClient(own))));
  }
}

/**
 * The tables as the stream carries them last: what the registry says, and the catalog for those that it does not know,
 * `added`. Of these are read from the beginning, also where the name is an old one: `anew`. A stream that begins afresh
 * begins with the catalog.
 */
async function knownTables(
  registry: TableRegistry<number, CapturedTable>,
  { tables, matching }: Readonly<Record<'tables' | 'matching', readonly CapturedTable[]>>,
  startAfresh: boolean,
  upTo: bigint,
): Promise<{
  known: Map<number, CapturedTable>;
  added: CapturedTable[];
  anew: readonly TableSchema[];
}> {
  const known = await registry.load();
  const none = known.size === 0;
  for (const [oid, stored] of known) {
    const table = untold(stored, upTo);
    if (table !== undefined) known.set(oid, table);
    else {
      await registry.delete(oid);
      known.delete(oid);
    }
  }
  if (startAfresh) {
    for (const oid of known.keys()) await registry.delete(oid);
    known.clear();
  }
  // Also those that are not published for now.
  for (const table of matching) {
    const stored = known.get(table.oid);
    if (stored !== undefined) known.set(table.oid, restoredTable(stored, table));
  }
  const added = tables.filter((table) => !known.has(table.oid));
  for (const table of added) known.set(table.oid, table);
  // A stream without a registry, or without anything, is loaded as a whole.
  return { known, added, anew: none || startAfresh ? [] : added.map(({ schema }) => schema) };
}

/** A holder that hangs keeps the slot in use until the walsender gives it up, and a chunk's transaction for ever. */
async function endOvertaken(client: pg.Client, name: string, installation: string, log: Logger): Promise<void> {
  const names = (['capture', 'stream', 'slices', 'load', 'schema'] as const).map((purpose) =>
    sessionName(purpose, name, installation),
  );
  try {
    const ended = await endStaleSessions(client, names);
    if (ended > 0) log.warn({ sessions: ended }, 'ended the sessions that an overtaken process left on the source');
  } catch (thrown) {
    throw sourceError(thrown, 'ending the sessions of an overtaken process');
  }
}

/** How long an acknowledged frame may still be lost: not at all where it is replicated. */
function syncDelayMs(config: NatsConfig): number {
  return config.replicas > 1 ? 0 : config.stream.sync_interval;
}

/** Throws `source_diverged` where the log of the source is not the one that the stream was captured from. */
async function requireTimeline(
  { settings, name, installation }: HeldCapture<PostgresSourceConfig>,
  { timeline: now }: SourceFacts,
  { timeline: captured, end }: StreamTail,
): Promise<void> {
  if (now === undefined || captured === undefined || now === captured) return;
  const history = await readTimelineHistory(settings, sessionName('schema', name, installation), now);
  requireAncestor(history, now, captured, asPgPosition(end).lsn);
}

async function prepareSlot(
  client: pg.Client,
  options: { slot: string; tail: StreamTail; source: SourceFacts; reset: boolean },
): Promise<{ startAfresh: boolean; lsn: bigint }> {
  const { slot, tail, source, reset } = options;
  const streamEnd = tail.seq === 0 ? undefined : tail.end;
  let info = await readSlot(client, slot);
  if (reset && info !== undefined) {
    try {
      await client.query('select pg_drop_replication_slot($1)', [slot]);
    } catch (thrown) {
      throw sourceError(thrown, `dropping replication slot ${slot}`, NO_SLOT);
    }
    info = undefined;
  }
  if (reset || (info === undefined && streamEnd === undefined))
    return { startAfresh: true, lsn: await createSlot(client, slot, source.version) };
  requireUsableSlot(slotState(info, source.database, streamEnd), slot, info, streamEnd);
  if (streamEnd !== undefined) requireLog(info!, asPgPosition(streamEnd).lsn);
  return { startAfresh: streamEnd === undefined, lsn: info!.confirmedLsn };
}
