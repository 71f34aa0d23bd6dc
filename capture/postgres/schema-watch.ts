/**
 * The tables of a source as the stream carries them, and how they come to change. Relation messages of the log tell
 * names and types at their place; NULLs, defaults, new and dropped tables, and renames are looked up in the catalog and
 * written into the log as marks, which have a place too: while a mark is written, the table is locked against changes
 * of its definition, so that a mark says what is true exactly there.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import type { Logger } from '../../core/logger.ts';
import { PgSnapshot } from '../../core/pg-snapshot.ts';
import { abortableDelay } from '../../core/run-service.ts';
import type { TableRegistry } from '../table-registry.ts';
import { Turns } from '../turns.ts';
import {
  fits,
  hasIdentity,
  readCatalog,
  readTable,
  readTypes,
  reconcile,
  tableOfRow,
  type CapturedTable,
  type NameEnd,
} from './catalog.ts';
import { FINGERPRINT } from './catalog-fingerprint.ts';
import type { RelationMessage } from './pgoutput.ts';
import { ensurePublication, isTableGone, qualifiedName } from './publication.ts';
import { describeLeaves, leafProblems } from './replica-identity.ts';
import { sourceError } from './source-error.ts';
import { isStandby } from './connection.ts';
import { emitMark, type MarkedVersion, type MarkPlace, type SchemaMark } from './log-marks.ts';
import { markTable } from './table-mark.ts';
import { addedParts, differs, isRenamed, markId, nameOf, rereadReason } from './table-change.ts';
import { hasColumnsOf, unloggedReason, writtenOf, type Written } from './unlogged-values.ts';

/** What was captured under the registry's versions. */
export interface SchemaWatchOptions {
  readonly client: pg.Client;
  readonly publication: string;
  readonly markPrefix: string;
  readonly included: (schema: string, name: string) => boolean;
  readonly registry: TableRegistry<number, CapturedTable>;
  /** The versions that the stream carries last. */
  readonly tables: ReadonlyMap<number, CapturedTable>;
  readonly log: Logger;
  /** Has a table read that is new to the capture, or again; stored when it resolves. */
  readonly read: (table: CapturedTable, how: 'new' | 'again') => Promise<void>;
  readonly readPart: (table: CapturedTable, part: { schema: string; name: string }) => Promise<void>;
  readonly leftOut: (tables: readonly { schema: string; name: string; reason: string }[]) => void;
}

const SHORTEST_POLL_MS = 1000;
const LONGEST_POLL_MS = 10_000;
/** The share of time that looking may take is one part in this many. */
const POLL_PARTS = 30;
/** So long the log waits for a transaction to be seen that waits, for one, for a synchronous standby. */
const UNSEEN_MS = 10_000;
const UNSEEN_PAUSE_MS = 10;

export class SchemaWatch {
  readonly #o: SchemaWatchOptions;
  readonly #tables: Map<number, CapturedTable>;
  /** The catalog, where it differs from what the stream carries; undefined: not there any more. */
  readonly #newer = new Map<number, CapturedTable | undefined>();
  /** The catalog, where it is as the stream has it, but was changed in between. */
  readonly #restamped = new Map<number, CapturedTable>();
  /** What the catalog had of the rows of each table at the last look, */
  readonly #written = new Map<number, Written>();
  /** and what it has by now where rows are to be read again, but the stream does not have their columns yet. */
  readonly #unlogged = new Map<number, { readonly why: string; readonly written: Written }>();
  /** Counts the readings of the catalog, and which of them each table was compared with. */
  #reading = 0;
  readonly #comparedAt = new Map<number, number>();
  /** The version of each table that a mark was written for in this session. */
  readonly #marked = new Map<number, string>();
  /** Relations that are no tables of their own (partitions), or no longer there. */
  readonly #ignored = new Set<number>();
  /** The partitions of each table when the catalog was read last. */
  readonly #seenParts = new Map<number, ReadonlySet<number>>();
  /** The table of the last relation message: before each partition its root is described. */
  #root: CapturedTable | undefined;
  #fingerprint = '';
  /** Up to here in the log the catalog has been looked at, */
  #lookedUpTo = -1n;
  /** but for transactions that could not be seen yet: the log has a commit a moment before others see it. */
  #snapshot: PgSnapshot | undefined;
  /** and that are waited for no longer. */
  readonly #givenUp = new Set<number>();
  #wake: (() => void) | undefined;
  /** One use of the connection at a time: a mark is written in a transaction. */
  readonly #connection = new Turns();
  /** One change of what is known and stored at a time. */
  readonly #changes = new Turns();

  constructor(options: SchemaWatchOptions) {
    this.#o = options;
    this.#tables = new Map(options.tables);
    for (const [oid, table] of options.tables) this.#written.set(oid, writtenOf(table));
  }

  byOid(oid: number): CapturedTable | undefined {
    return this.#tables.get(oid);
  }

  /** The newest table of this name: of one before it the stream may not have told yet that it is gone. */
  byName(schema: string, name: string): CapturedTable | undefined {
    return [...this.#tables.values()].findLast((table) => table.schema.schema === schema && table.schema.name === name);
  }

  /** The table of a relation message in transaction `xid`, which commits at `lsn`; `look` when `look` must run before. */
  resolve(relation: RelationMessage, lsn: bigint, xid: number): CapturedTable | undefined | 'look' {
    const known = this.#tables.get(relation.oid);
    const isAway = !this.#o.included(relation.schema, relation.name);
    if (isAway !== (known?.away === true) && known !== undefined) return 'look';
    if (isAway) return undefined;
    const looked = lsn <= this.#lookedUpTo && !this.#isUnseen(xid);
    if (known === undefined && this.#ignored.has(relation.oid) && looked) return undefined;
    if (known === undefined || !looked || !fits(known, relation)) return 'look';
    const changed = this.#newer.has(relation.oid) || this.#restamped.has(relation.oid);
    if (changed && this.#comparedAt.get(relation.oid) !== this.#reading) return 'look';
    this.#root = known;
    return known;
  }

  /** Looks at the catalog, and takes the table of a relation message as it is at its place in the log. */
  async look(relation: RelationMessage, lsn: bigint, xid: number): Promise<void> {
    await this.#connection.take(() => this.#look(relation, lsn, xid));
  }

  #isUnseen(xid: number): boolean {
    return this.#snapshot?.has(xid) === true && !this.#givenUp.has(xid);
  }

  /** Looks at the catalog until it shows what a transaction of the log did to it. */
  async #awaitSeen(xid: number, lsn?: bigint): Promise<void> {
    const givenUpMs = performance.now() + UNSEEN_MS;
    await this.#lookAround();
    while (this.#isUnseen(xid) && performance.now() < givenUpMs) {
      await delay(UNSEEN_PAUSE_MS);
      await this.#lookAround();
    }
    if (!this.#isUnseen(xid)) return;
    this.#givenUp.add(xid);
    this.#o.log.warn(
      { xid, ...(lsn === undefined ? {} : { lsn: String(lsn) }) },
      'a transaction that is in the log cannot be seen yet: its table is as before',
    );
  }

  async #look(relation: RelationMessage, lsn: bigint, xid: number): Promise<void> {
    const { client, included } = this.#o;
    if (!included(relation.schema, relation.name)) return this.#noteAway(relation.oid);
    await this.#comeBack(relation.oid);
    await this.#awaitSeen(xid, lsn);
    // A catalog that lags behind the log (of a standby) is looked at once all the same.
    if (lsn > this.#lookedUpTo) this.#lookedUpTo = lsn;
    const known = this.#tables.get(relation.oid);
    const restamped = this.#restamped.get(relation.oid);
    if (known !== undefined && !this.#newer.has(relation.oid) && restamped === undefined && fits(known, relation))
      return;
    if (known === undefined && this.#newer.get(relation.oid) === undefined) {
      this.#ignored.add(relation.oid);
      await this.#lostPartition(relation.oid);
      return;
    }
    const catalog = this.#newer.has(relation.oid) ? this.#newer.get(relation.oid) : (restamped ?? known);
    const types = await readTypes(
      client,
      relation.columns.map(({ typeOid, typmod }) => [typeOid, typmod] as const),
    );
    const { table, sure } = reconcile(relation, known, catalog, types);
    this.#comparedAt.set(relation.oid, this.#reading);
    await this.#acceptRelation(known, table, !sure);
  }

  /** Under a name that is not among the tables its changes are passed over, and are to be made up for if it comes back. */
  async #noteAway(oid: number): Promise<void> {
    await this.#changes.take(async () => {
      const known = this.#tables.get(oid);
      if (known === undefined || known.away === true) return;
      const away: CapturedTable = { ...known, away: true };
      await this.#store(away, this.#written.get(oid) ?? writtenOf(known));
      this.#tables.set(oid, away);
      // It may be back by now, and no row of it follow.
      this.#fingerprint = '';
      this.#wake?.();
    });
  }

  async #comeBack(oid: number): Promise<void> {
    await this.#changes.take(async () => {
      const known = this.#tables.get(oid);
      if (known?.away !== true) return;
      const { away: _, ...back } = known;
      this.#o.log.info({ table: nameOf(back) }, 'a table was under another name: it is read again');
      await this.#o.read(back, 'again');
      await this.#store(back, this.#written.get(oid) ?? writtenOf(back));
      this.#tables.set(oid, back);
    });
  }

  /** A partition that came and went between two looks took rows along of which no change in the log tells. */
  async #lostPartition(oid: number): Promise<void> {
    const root = this.#root;
    if (root?.partitioned !== true) return;
    const parts = [...this.#tables.values(), ...this.#newer.values()].flatMap((table) => table?.parts ?? []);
    if (parts.some((part) => part.oid === oid)) return;
    this.#o.log.info({ table: nameOf(root) }, 'a partition went away: the table is read again');
    await this.#o.read(root, 'again');
  }

  /** Reads the catalog when something in it changed since the last time. */
  async #lookAround(): Promise<void> {
    const { client, included } = this.#o;
    try {
      const position = await client.query<{ lsn: string }>(
        `select (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end - '0/0')::text as lsn`,
      );
      const { rows } = await client.query<{ fingerprint: string; snapshot: string }>(FINGERPRINT);
      const { fingerprint, snapshot } = rows[0]!;
      if (fingerprint !== this.#fingerprint) {
        const found = new Map(
          (await readCatalog(client))
            .filter(({ schema, oid }) => included(schema.schema, schema.name) || this.#tables.has(oid))
            .map((table) => [table.oid, table]),
        );
        this.#newer.clear();
        this.#ignored.clear();
        this.#restamped.clear();
        this.#reading += 1;
        for (const [oid, table] of found) {
          const known = this.#tables.get(oid);
          if (differs(known, table)) this.#newer.set(oid, table);
          else if (known!.stamps.join() !== table.stamps.join()) this.#restamped.set(oid, table);
        }
        for (const oid of this.#tables.keys()) if (!found.has(oid)) this.#newer.set(oid, undefined);
        for (const table of found.values()) {
          const isBack = this.#tables.get(table.oid)?.away === true;
          if (isBack && included(table.schema.schema, table.schema.name)) await this.#comeBack(table.oid);
          if (table.partitioned) await this.#lookAtParts(table);
          await this.#changes.take(() => this.#lookAtRows(table));
        }
        this.#fingerprint = fingerprint;
      }
      const lsn = BigInt(position.rows[0]!.lsn);
      if (lsn > this.#lookedUpTo) this.#lookedUpTo = lsn;
      this.#snapshot = PgSnapshot.parse(snapshot);
      // What has ended by now was given up for the last time.
      for (const xid of this.#givenUp) if (!this.#snapshot.has(xid)) this.#givenUp.delete(xid);
    } catch (thrown) {
      throw sourceError(thrown, 'looking for changed tables');
    }
  }

  /** As `#accept`, of a table whose new name, if it has one, a relation message told: a mark tells the old one later. */
  async #acceptRelation(known: CapturedTable | undefined, told: CapturedTable, uncertain: boolean): Promise<void> {
    const former = known?.former ?? (isRenamed(known, told) ? known?.schema : undefined);
    const { schema = '', name = '' } = former ?? {};
    await this.#accept(known, former === undefined ? told : { ...told, former: { schema, name } }, uncertain);
  }

  /** Of a partition that went before the stream told that it came, no mark tells either. */
  async #lookAtParts({ oid, parts }: CapturedTable): Promise<void> {
    const known = this.#tables.get(oid);
    const now = new Set(parts.map((part) => part.oid));
    const told = new Set(known?.parts.map((part) => part.oid));
    const lost = [...(this.#seenParts.get(oid) ?? [])].some((part) => !now.has(part) && !told.has(part));
    this.#seenParts.set(oid, now);
    if (lost && known !== undefined) await this.#o.read(known, 'again');
  }

  /**
   * Has rows read again that got values of which the log does not tell: at once where the stream has the table as it is by
   * now, or else when it has come to that.
   */
  async #lookAtRows(now: CapturedTable): Promise<void> {
    const { oid } = now;
    const known = this.#tables.get(oid);
    this.#unlogged.delete(oid);
    if (known === undefined) return;
    const [before, written] = [this.#written.get(oid) ?? writtenOf(known), writtenOf(now)];
    if (JSON.stringify(before) === JSON.stringify(written)) return;
    const why = unloggedReason(before, now);
    if (why !== undefined && differs(known, now)) {
      this.#unlogged.set(oid, { why, written });
      return;
    }
    if (why !== undefined) {
      this.#o.log.info({ table: nameOf(known), why }, 'a table is read again');
      await this.#o.read(known, 'again');
    }
    await this.#store(known, written);
  }

  async #store(table: CapturedTable, written: Written, ends?: NameEnd): Promise<void> {
    this.#written.set(table.oid, written);
    await this.#o.registry.put(table.oid, { ...table, written, ...(ends === undefined ? {} : { ends }) });
  }

  /** From here in the log on the table is `next`. Everything that must outlive this process is stored when it resolves. */
  async #accept(
    known: CapturedTable | undefined,
    next: CapturedTable,
    uncertain: boolean,
    ends?: NameEnd,
  ): Promise<void> {
    await this.#changes.take(() => this.#acceptAlone(known, next, uncertain, ends));
  }

  async #acceptAlone(
    known: CapturedTable | undefined,
    next: CapturedTable,
    uncertain: boolean,
    ends: NameEnd | undefined,
  ): Promise<void> {
    const { log, read, readPart } = this.#o;
    let written = this.#written.get(next.oid) ?? writtenOf(next);
    const { schema, name } = next.schema;
    if (known === undefined) {
      log.info({ table: `${schema}.${name}` }, 'a table is new');
      // Before the snapshot that is planned looks for it, and finds it gone.
      this.#tables.set(next.oid, next);
      await read(next, 'new');
      // It may have come and gone while the log waited.
      this.#fingerprint = '';
    } else {
      // The log is behind what was known of it: what was known comes again.
      if (!this.#newer.has(next.oid)) {
        this.#newer.set(next.oid, this.#restamped.get(next.oid) ?? known);
        // The mark of that version came before.
        this.#marked.delete(next.oid);
      }
      const unlogged = this.#unlogged.get(next.oid);
      const isComplete = unlogged !== undefined && hasColumnsOf(next, unlogged.written);
      const why =
        (uncertain ? 'its columns changed more than once' : rereadReason(known, next)) ??
        (isComplete ? unlogged.why : undefined);
      log.info({ table: `${schema}.${name}`, version: next.schema.version, why }, 'a table changed');
      if (why !== undefined) await read(next, 'again');
      else for (const part of addedParts(known, next)) await readPart(next, part);
      if (isComplete) {
        written = unlogged.written;
        this.#unlogged.delete(next.oid);
      }
    }
    await this.#store(next, written, ends);
    this.#tables.set(next.oid, next);
    this.#restamped.delete(next.oid);
    const newest = this.#newer.get(next.oid);
    if (newest !== undefined && !differs(next, newest)) this.#newer.delete(next.oid);
    else if (newest !== undefined) this.#wake?.();
  }

  /**
   * A mark in the log: from there on the table is as it says. The versions to write into the stream, in order. Until the
   * stream has them the mark may come again, to a process that knows what is stored alone.
   */
  async takeMark(mark: SchemaMark, { xid, lsn }: MarkPlace): Promise<readonly MarkedVersion<CapturedTable>[]> {
    if (mark.k === 'table' && this.#o.included(mark.row.schema, mark.row.name)) await this.#comeBack(mark.oid);
    const known = this.#tables.get(mark.oid);
    if (mark.k === 'gone') {
      if (known === undefined) return [];
      if (await this.#connection.take(() => this.#isThere(mark.oid, xid))) {
        this.#o.log.warn(
          { table: nameOf(known) },
          'a message said that a table is gone, and it is there: it is read again',
        );
        // Once it really goes, that is still to be said.
        this.#marked.delete(mark.oid);
        await this.#o.read(known, 'again');
        return [];
      }
      await this.#changes.take(async () => {
        await this.#store(known, this.#written.get(mark.oid) ?? writtenOf(known), { lsn: String(lsn) });
        this.#tables.delete(mark.oid);
        this.#written.delete(mark.oid);
      });
      // Where another one has come under its name, that goes on in its place, and is read.
      if (this.byName(known.schema.schema, known.schema.name) !== undefined) return [];
      return [{ table: known, what: mark.why, mark: 'gone' }];
    }
    const next = tableOfRow(mark.row);
    const { schema, name } = next.schema;
    // Of a table that the publication does not have yet nothing can be followed: the next look adds it.
    if (!this.#o.included(schema, name) || (known === undefined && !mark.published)) {
      this.#wake?.();
      return [];
    }
    const former = known?.former ?? (isRenamed(known, next) ? known?.schema : undefined);
    const { schema: formerSchema = '', name: formerName = '' } = former ?? {};
    const ends = former && { lsn: String(lsn), former: { schema: formerSchema, name: formerName } };
    if (differs(known, next)) await this.#accept(known, next, false, ends);
    // What changed behind the mark is compared with what it says.
    this.#comparedAt.delete(next.oid);
    const gone =
      known === undefined || former === undefined
        ? []
        : [
            {
              table: { ...known, schema: { ...known.schema, schema: former.schema, name: former.name } },
              what: `renamed to ${schema}.${name}`,
              mark: 'gone' as const,
            },
          ];
    return [...gone, { table: next, what: '', mark: 'schema' }];
  }

  /** Whether a table is captured by now, of which transaction `xid` says that it is gone. Everybody may write messages. */
  async #isThere(oid: number, xid: number): Promise<boolean> {
    await this.#awaitSeen(xid);
    const found = await readTable(this.#o.client, oid);
    return found !== undefined && this.#o.included(found.row.schema, found.row.name);
  }

  /** Looks for what no relation message tells, until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { client } = this.#o;
    const standby = await this.#connection.take(() => isStandby(client));
    let lastMs = 0;
    while (!signal.aborted) {
      let tookMs = 0;
      let isDone = true;
      await this.#connection.take(async () => {
        const startedMs = performance.now();
        await this.#lookAround();
        tookMs = performance.now() - startedMs;
        if (!standby) isDone = await this.#writeMarks();
      });
      // One look that took long, the first or while the machine stood still, does not tell what looking costs.
      const costMs = isDone ? Math.min(tookMs, lastMs) : 0;
      lastMs = tookMs;
      const pauseMs = Math.min(LONGEST_POLL_MS, Math.max(SHORTEST_POLL_MS, costMs * POLL_PARTS));
      const woken = new AbortController();
      this.#wake = () => woken.abort();
      await abortableDelay(pauseMs, AbortSignal.any([signal, woken.signal]));
      this.#wake = undefined;
    }
  }

  /** False when a table could not be marked: it changed again, or is in use. */
  async #writeMarks(): Promise<boolean> {
    const { included, client, leftOut } = this.#o;
    let isDone = true;
    const without: { schema: string; name: string; reason: string }[] = [];
    // What went first: another table may have its name by now.
    const newer = [...this.#newer].sort(([, a], [, b]) => Number(a !== undefined) - Number(b !== undefined));
    for (const [oid, table] of newer) {
      const known = this.#tables.get(oid);
      const where = table?.schema;
      if (where !== undefined && included(where.schema, where.name)) {
        if (this.#marked.get(oid) === markId(table!)) continue;
        if (known === undefined && !hasIdentity(where)) {
          // Publishing it would make its updates fail at the source.
          without.push({
            schema: where.schema,
            name: where.name,
            reason: `it has no primary key (a deferrable one does not count) and no replica identity; run: ALTER TABLE ${qualifiedName(where)} REPLICA IDENTITY FULL;`,
          });
          continue;
        }
        const refused = known === undefined ? await this.#publish(table!) : undefined;
        if (refused !== undefined) without.push({ schema: where.schema, name: where.name, reason: refused });
        else if (await markTable(client, this.#o.markPrefix, table!)) this.#marked.set(oid, markId(table!));
        else {
          // The next look compares it anew.
          this.#fingerprint = '';
          isDone = false;
        }
      } else if (known !== undefined && this.#marked.get(oid) !== 'gone') {
        const why =
          where === undefined ? 'dropped' : `renamed to ${where.schema}.${where.name}, which is not among the tables`;
        await emitMark(client, this.#o.markPrefix, { k: 'gone', oid, why });
        this.#marked.set(oid, 'gone');
      }
    }
    leftOut(without);
    return isDone;
  }

  /** Why a new table cannot be captured. */
  async #publish(table: CapturedTable): Promise<string | undefined> {
    try {
      const leaves = await leafProblems(this.#o.client, [table]);
      if (leaves.length > 0) return `${describeLeaves(leaves)}; run: ${leaves.map(({ sql }) => sql).join(' ')}`;
      await ensurePublication(this.#o.client, this.#o.publication, [table]);
      return undefined;
    } catch (thrown) {
      // The next look sees that it is gone.
      if (isTableGone(thrown)) return undefined;
      if (!(thrown instanceof ReplicationError) || thrown.code !== 'source_publication') throw thrown;
      return thrown.message;
    }
  }
}
