/**
 * The tables of a source as the stream carries them, and how they come to change. Relation messages of the log tell
 * names and types at their place; NULLs, defaults, new and dropped tables, and renames are looked up in the catalog and
 * written into the log as marks, which have a place too: while a mark is written, the table is locked against changes
 * of its definition, so that a mark says what is true exactly there.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import type { ColumnRules } from '../../core/column-rules.ts';
import type { Logger } from '../../core/logger.ts';
import { abortableDelay } from '../../core/run-service.ts';
import type { TableRegistry } from '../table-registry.ts';
import { Turns } from '../turns.ts';
import { fits, readTypes, reconcile, tableOfRow, type CapturedTable, type NameEnd } from './catalog.ts';
import { CatalogLook } from './catalog-look.ts';
import type { RelationMessage } from './pgoutput.ts';
import { readTables } from './read-tables.ts';
import { isStandby } from './connection.ts';
import { readPublication } from './publication.ts';
import type { MarkedVersion, MarkPlace, SchemaMark } from './log-marks.ts';
import { MarkWriter } from './mark-writer.ts';
import { addedParts, differs, hasSameIds, isRenamed, nameOf, rereadReason } from './table-change.ts';
import { TableNotes, type Owed } from './table-notes.ts';
import { hasColumnsOf, unloggedReason, writtenOf, type Written } from './unlogged-values.ts';
import { Withdrawals } from './withdrawals.ts';

/** What was captured under the registry's versions. */
export interface SchemaWatchOptions {
  readonly client: pg.Client;
  readonly publication: string;
  readonly markPrefix: string;
  readonly included: (schema: string, name: string) => boolean;
  readonly rules: ColumnRules;
  readonly registry: TableRegistry<number, CapturedTable>;
  /** The versions that the stream carries last. */
  readonly tables: ReadonlyMap<number, CapturedTable>;
  readonly log: Logger;
  /** Has a table read that is new to the capture, or again; stored when it resolves. */
  readonly read: (table: CapturedTable, how: 'new' | 'again' | 'unsure') => Promise<void>;
  readonly readPart: (table: CapturedTable, part: { schema: string; name: string }) => Promise<void>;
  readonly leftOut: (tables: readonly { schema: string; name: string; reason: string }[]) => void;
}

/** A version that the log told. */
interface ToldVersion {
  readonly table: CapturedTable;
  /** Where the commit is that told it. */
  readonly lsn: bigint;
  /** Its columns may be others. */
  readonly uncertain?: boolean;
  readonly ends?: NameEnd;
}

const UNSURE = 'its columns changed more than once';
const SHORTEST_POLL_MS = 1000;
const LONGEST_POLL_MS = 10_000;
/** The share of time that looking may take is one part in this many. */
const POLL_PARTS = 30;
/** So long the log waits for a transaction to be seen that waits, for one, for a synchronous standby. */
const UNSEEN_MS = 10_000;
const UNSEEN_PAUSE_MS = 10;

export class SchemaWatch {
  readonly #o: SchemaWatchOptions;
  readonly #notes: TableNotes;
  readonly #tables: Map<number, CapturedTable>;
  /** The catalog, where it differs from what the stream carries; undefined: not there any more. */
  readonly #newer = new Map<number, CapturedTable | undefined>();
  /** The catalog, where it is as the stream has it, but was changed in between. */
  readonly #restamped = new Map<number, CapturedTable>();
  /** What the catalog has of the rows by now where they are to be read again, but the stream does not have their columns yet. */
  readonly #unlogged = new Map<number, { readonly why: string; readonly written: Written }>();
  /** Counts the readings of the catalog, and which of them each table was compared with. */
  #reading = 0;
  readonly #comparedAt = new Map<number, number>();
  readonly #marks: MarkWriter;
  /** Relations that are no tables of their own (partitions), or no longer there. */
  readonly #ignored = new Set<number>();
  /** The partitions of each table when the catalog was read last. */
  readonly #seenParts = new Map<number, ReadonlySet<number>>();
  /** The table of the last relation message: before each partition its root is described. */
  #root: CapturedTable | undefined;
  readonly #catalog: CatalogLook;
  readonly #withdrawals: Withdrawals;
  /** What the last reading of the catalog found, until it is seen which tables can be published. */
  #found: readonly CapturedTable[] | undefined;
  #standby: boolean | undefined;
  #wake: (() => void) | undefined;
  /** One use of the connection at a time: a mark is written in a transaction. */
  readonly #connection = new Turns();
  /** One change of what is known and stored at a time. */
  readonly #changes = new Turns();

  constructor(options: SchemaWatchOptions) {
    this.#o = options;
    this.#marks = new MarkWriter(options);
    this.#notes = new TableNotes(options.registry, options.tables);
    this.#tables = this.#notes.tables;
    const isChosen = (schema: string, name: string, oid: number): boolean =>
      options.included(schema, name) || this.#tables.has(oid);
    this.#catalog = new CatalogLook(options.client, isChosen);
    const readAgain = (table: CapturedTable): Promise<void> => options.read(table, 'again');
    this.#withdrawals = new Withdrawals({ ...options, notes: this.#notes, marks: this.#marks, readAgain });
  }

  byOid(oid: number): CapturedTable | undefined {
    return this.#tables.get(oid);
  }

  /** The newest table of this name: of one before it the stream may not have told yet that it is gone. */
  byName(schema: string, name: string): CapturedTable | undefined {
    return this.#notes.byName({ schema, name });
  }

  /** Whether the source has a table of this name by now, captured or published, of which the log is yet to tell. */
  async isToCome(schema: string, name: string): Promise<boolean> {
    const { client, publication } = this.#o;
    return await this.#connection.take(async () => {
      await this.#lookAround();
      // The log may have told of it just now.
      if (this.byName(schema, name) !== undefined) return true;
      const isMeant = (table: CapturedTable | undefined): boolean =>
        table?.schema.schema === schema && table.schema.name === name;
      const found = [...this.#newer.values()].find(isMeant);
      if (found === undefined || !this.#o.included(schema, name)) return false;
      if (this.#tables.has(found.oid)) return true;
      return (await readPublication(client, publication))?.tables.has(`${schema}.${name}`) === true;
    });
  }

  /** The table of a relation message in transaction `xid`, which commits at `lsn`; `look` when `look` must run before. */
  resolve(relation: RelationMessage, lsn: bigint, xid: number): CapturedTable | undefined | 'look' {
    const known = this.#tables.get(relation.oid);
    const isAway = !this.#o.included(relation.schema, relation.name);
    if (isAway !== (known?.away === true) && known !== undefined) return 'look';
    if (isAway) return undefined;
    const looked = this.#catalog.hasSeen(lsn, xid);
    if (known === undefined && this.#ignored.has(relation.oid) && looked) return undefined;
    if (known === undefined || !looked || !fits(known, relation) || this.#notes.isAhead(relation.oid, lsn))
      return 'look';
    if (this.#catalog.hasGivenUp(xid) && !this.#notes.owed.has(relation.oid)) return 'look';
    const changed = this.#newer.has(relation.oid) || this.#restamped.has(relation.oid);
    if (changed && this.#comparedAt.get(relation.oid) !== this.#reading) return 'look';
    this.#root = known;
    return known;
  }

  /** Looks at the catalog, and takes the table of a relation message as it is at its place in the log. */
  async look(relation: RelationMessage, lsn: bigint, xid: number): Promise<void> {
    await this.#connection.take(() => this.#look(relation, lsn, xid));
  }

  /** Looks at the catalog until it shows what a transaction of the log did to it. */
  async #awaitSeen(xid: number, lsn?: bigint): Promise<void> {
    const givenUpMs = performance.now() + UNSEEN_MS;
    await this.#lookAround();
    while (this.#catalog.isUnseen(xid) && performance.now() < givenUpMs) {
      await delay(UNSEEN_PAUSE_MS);
      await this.#lookAround();
    }
    if (!this.#catalog.isUnseen(xid)) return;
    this.#catalog.giveUp(xid);
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
    this.#catalog.passTo(lsn);
    const { oid } = relation;
    const known = this.#tables.get(oid);
    const hasCome = !this.#catalog.hasGivenUp(xid);
    // What the transaction did to the table comes later, and may be more than its message tells.
    if (!hasCome && known !== undefined)
      await this.#changes.take(() => this.#owe(known, 'its definition could not be seen'));
    const restamped = this.#restamped.get(oid);
    const isAhead = this.#notes.isAhead(oid, lsn);
    const isKnown = known !== undefined && fits(known, relation);
    if (isKnown && !isAhead && !this.#newer.has(oid) && restamped === undefined) return;
    if (known === undefined && this.#newer.get(oid) === undefined) {
      this.#ignored.add(oid);
      await this.#lostPartition(oid);
      return;
    }
    const catalog = this.#newer.has(oid) ? this.#newer.get(oid) : (restamped ?? known);
    const types = await readTypes(
      client,
      relation.columns.map(({ typeOid, typmod }) => [typeOid, typmod] as const),
    );
    const width = Math.max(this.#unlogged.get(oid)?.written.width ?? 0, this.#notes.written.get(oid)?.width ?? 0);
    const { table, sure } = reconcile(relation, { known, isAhead, catalog, width, hasCome }, types);
    this.#comparedAt.set(oid, this.#reading);
    this.#notes.caughtUp(oid);
    // Nobody knows what came before, but that it is what is known.
    if (isKnown && isAhead && sure && hasSameIds(known, table)) return;
    await this.#acceptRelation(known, { table, lsn, uncertain: !sure });
  }

  /** Under a name that is not among the tables its changes are passed over, and are to be made up for if it comes back. */
  async #noteAway(oid: number): Promise<void> {
    await this.#changes.take(async () => {
      const known = this.#tables.get(oid);
      if (known === undefined || known.away === true) return;
      const away: CapturedTable = { ...known, away: true };
      await this.#notes.store(away);
      this.#tables.set(oid, away);
      // It may be back by now, and no row of it follow.
      this.#catalog.forget();
      this.#wake?.();
    });
  }

  async #comeBack(oid: number): Promise<void> {
    await this.#changes.take(async () => {
      const known = this.#tables.get(oid);
      if (known?.away !== true) return;
      const { away: _, ...back } = known;
      this.#o.log.info({ table: nameOf(back) }, 'a table was under another name: it is read again');
      await this.#owe(back, 'it was under another name', true);
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

  /** Reads the catalog when something in it changed since the last time; false where somebody is in the way of a part of it. */
  async #lookAround(): Promise<boolean> {
    const owed = [...this.#notes.owed];
    const isWhole = await this.#catalog.look((tables) => this.#compare(tables));
    for (const [oid, each] of owed) await this.#changes.take(() => this.#settle(oid, each));
    return isWhole;
  }

  /** Compares what the catalog has by now with what the stream has. */
  async #compare(tables: readonly CapturedTable[]): Promise<void> {
    const { included } = this.#o;
    const found = new Map(tables.map((table) => [table.oid, table]));
    this.#newer.clear();
    this.#ignored.clear();
    this.#restamped.clear();
    this.#reading += 1;
    this.#found = tables;
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
  }

  /** As `#accept`, of a table whose new name, if it has one, a relation message told: a mark tells the old one later. */
  async #acceptRelation(known: CapturedTable | undefined, told: ToldVersion): Promise<void> {
    const former = known?.former ?? (isRenamed(known, told.table) ? known?.schema : undefined);
    const { schema = '', name = '' } = former ?? {};
    const table = former === undefined ? told.table : { ...told.table, former: { schema, name } };
    await this.#accept(known, { ...told, table });
  }

  /** Notes that a table is to be read again when its next version comes; with `now` also at once. */
  async #owe(table: CapturedTable, why: string, now = false): Promise<void> {
    this.#notes.owed.set(table.oid, { why });
    if (now) await this.#o.read(table, 'again');
    await this.#notes.store(table);
  }

  /** No version comes that has to be read where the stream has the one of the catalog. */
  async #settle(oid: number, owed: Owed): Promise<void> {
    const known = this.#tables.get(oid);
    if (known === undefined || this.#notes.owed.get(oid) !== owed || !this.#isNewest(known)) return;
    this.#notes.owed.delete(oid);
    await this.#notes.store(known);
  }

  #isNewest(table: CapturedTable): boolean {
    const newest = this.#newer.get(table.oid);
    return this.#catalog.hasSeenAll && (newest === undefined || !differs(table, newest));
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
    const [before, written] = [this.#notes.writtenOf(known), writtenOf(now)];
    if (JSON.stringify(before) === JSON.stringify(written)) return;
    const why = unloggedReason(before, now, this.#o.rules);
    if (why !== undefined && differs(known, now)) {
      this.#unlogged.set(oid, { why, written });
      return;
    }
    if (why !== undefined) {
      this.#o.log.info({ table: nameOf(known), why }, 'a table is read again');
      await this.#o.read(known, 'again');
    }
    await this.#notes.store(known, written);
  }

  /** From its place in the log on the table is as told. Everything that must outlive this process is stored when it resolves. */
  async #accept(known: CapturedTable | undefined, told: ToldVersion): Promise<void> {
    await this.#changes.take(() => this.#acceptAlone(known, told));
  }

  async #acceptAlone(known: CapturedTable | undefined, told: ToldVersion): Promise<void> {
    const { table: next, uncertain = false, ends } = told;
    const { oid } = next;
    const { log, read, readPart } = this.#o;
    let written = this.#notes.writtenOf(next);
    // Before the snapshot that is planned looks for its name, or its partition, and finds neither.
    if (isRenamed(known, next)) await this.#leaveName(known!, () => this.#notes.begin(next));
    else this.#notes.begin(next);
    if (known === undefined) {
      log.info({ table: nameOf(next) }, 'a table is new');
      await read(next, 'new');
      // It may have come and gone while the log waited.
      this.#catalog.forget();
    } else {
      // The log is behind what was known of it: what was known comes again.
      if (!this.#newer.has(oid)) {
        this.#newer.set(oid, this.#restamped.get(oid) ?? known);
        // The mark of that version came before.
        this.#marks.forget(oid);
      }
      const unlogged = this.#unlogged.get(oid);
      const isComplete = unlogged !== undefined && hasColumnsOf(next, unlogged.written);
      const why =
        (uncertain ? UNSURE : rereadReason(known, next, this.#notes.lastKey.get(oid))) ??
        (isComplete ? unlogged.why : undefined) ??
        this.#notes.owed.get(oid)?.why;
      this.#notes.noteKey(known, next);
      log.info({ table: nameOf(next), version: next.schema.version, why }, 'a table changed');
      // Targets may have been told of other columns than there are: what looks like another type of one may be another one.
      if (why !== undefined) await read(next, why === UNSURE ? 'unsure' : 'again');
      else for (const part of addedParts(known, next)) await readPart(next, part);
      if (isComplete) {
        written = unlogged.written;
        this.#unlogged.delete(oid);
      }
    }
    if (this.#isNewest(next)) this.#notes.owed.delete(oid);
    // With columns that are others the rows may be read before the true ones come.
    else if (uncertain) this.#notes.owed.set(oid, { why: UNSURE });
    this.#notes.cameAt(oid, told.lsn);
    await this.#notes.store(next, written, ends);
    this.#restamped.delete(oid);
    const newest = this.#newer.get(oid);
    if (newest !== undefined && !differs(next, newest)) this.#newer.delete(oid);
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
        this.#marks.forget(mark.oid);
        await this.#changes.take(() => this.#owe(known, 'it was said to be gone', true));
        return [];
      }
      const isOther = await this.#changes.take(() => this.#end(known, lsn));
      return isOther ? [] : [{ table: known, what: mark.why, mark: 'gone' }];
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
    if (differs(known, next)) await this.#accept(known, { table: next, lsn, ...(ends && { ends }) });
    // What changed behind the mark is compared with what it says.
    this.#comparedAt.delete(next.oid);
    // Of a name that another table has come to by now nothing is gone: that one goes on under it, and is read.
    const gone =
      known === undefined || former === undefined || this.#notes.byName(former) !== undefined
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

  /** A table is gone. Whether another one has its name, goes on in its place, and is read. */
  async #end(table: CapturedTable, lsn: bigint): Promise<boolean> {
    await this.#notes.store(table, undefined, { lsn: String(lsn) });
    await this.#leaveName(table, () => this.#notes.forget(table.oid));
    return this.#notes.byName(table.schema) !== undefined;
  }

  /** One that comes back to its name without having been told to be away has there what the stream tells of the one before. */
  async #leaveName({ oid, schema }: CapturedTable, leave: () => void): Promise<void> {
    const hadName = this.#notes.byName(schema)?.oid === oid;
    leave();
    const other = hadName ? this.#notes.byName(schema) : undefined;
    if (other !== undefined) await this.#owe(other, 'another table had its name', true);
  }

  /** Whether a table is captured by now, of which transaction `xid` says that it is gone. Everybody may write messages. */
  async #isThere(oid: number, xid: number): Promise<boolean> {
    await this.#awaitSeen(xid);
    const { included, client } = this.#o;
    return (await readTables(client, (schema, name, each) => each === oid && included(schema, name))).tables.length > 0;
  }

  /**
   * Has the log told what the catalog has by now and no relation message tells. `isDone` is false where a table could not be
   * marked: it changed again, or is in use.
   */
  async tell(): Promise<{ readonly isDone: boolean; readonly tookMs: number }> {
    return await this.#connection.take(async () => {
      this.#standby ??= await isStandby(this.#o.client);
      const startedMs = performance.now();
      const isWhole = await this.#lookAround();
      const tookMs = performance.now() - startedMs;
      const isTold = this.#standby || (await this.#write());
      const isDone = isWhole && isTold;
      // The next look compares anew what could not be marked.
      if (!isDone) this.#catalog.forget();
      return { isDone, tookMs };
    });
  }

  /** False where a table could not be marked, published or taken out of the publication. */
  async #write(): Promise<boolean> {
    const { included } = this.#o;
    const found = this.#found?.filter(
      ({ oid, schema }) => this.#tables.has(oid) && included(schema.schema, schema.name),
    );
    const isPublished = found === undefined || (await this.#changes.take(() => this.#withdrawals.look(found)));
    if (isPublished) this.#found = undefined;
    return (await this.#marks.write(this.#newer, this.#tables, this.#withdrawals.leftOut)) && isPublished;
  }

  /** Looks for what no relation message tells, until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    let lastMs = 0;
    while (!signal.aborted) {
      const { isDone, tookMs } = await this.tell();
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
}
