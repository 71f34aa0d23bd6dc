/**
 * Turns the groups of a binlog into frames: cuts, positions, ordinals, resume, and what must wait.
 *
 * Rows go straight into the frame at hand. A server writes a transaction into its log at commit, but for two cases,
 * whose rows are held (HeldRows) until it is known that they stand (invariant 2, no phantom):
 *
 * - XA transactions are logged when they are prepared, and committed or rolled back by a later group. Until then every
 *   frame says from where the log must be read again (`replay`), so that a restart holds the same rows again.
 * - A transaction that also changed non-transactional tables may be logged with its rollback. Small groups are taken
 *   out of the frame again; before a larger one is cut, `endsInCommit` is asked, and without a clear yes it is held.
 */
import { ReplicationError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoint.ts';
import type { FrameWriter } from '../../core/frame-writer.ts';
import type { Op } from '../../core/frame.ts';
import { containsGtid, gtidPosition, readName, sameGtid, type GtidPosition } from '../../core/gtid-position.ts';
import { GtidCursor, type GtidSet } from '../../core/gtid-set.ts';
import { formatGtid, type Gtid } from '../../core/gtid.ts';
import { originOfMarker } from '../../core/origin.ts';
import { FrameFiller, type PendingFrame } from '../frame-filler.ts';
import type { FrameSource } from '../publish-loop.ts';
import { RowCounts } from '../row-counts.ts';
import type { BinlogHandler, GroupEnd, GroupInfo, LoggedStatement, Xid } from './binlog-handler.ts';
import type { LoggedTable } from './catalog.ts';
import type { ReadRows } from './chunk-rows.ts';
import type { ChunkWindow } from './chunk-window.ts';
import { DomainNumbers, requireOtherDomain } from './domain-numbers.ts';
import { addOrdinal, writeChange, type HeldRow } from './held-rows.ts';
import { OpenGroup } from './open-group.ts';
import { PreparedTransactions } from './prepared-transactions.ts';
import { writeImages } from './row-images.ts';
import type { RowReader } from './row-reader.ts';
import type { TableMap } from './table-map.ts';

export interface AssemblerOptions {
  readonly frameBytes: number;
  readonly resume: GtidPosition;
  /** Where the log is read from: before `resume` while XA transactions are in doubt. */
  readonly start: GtidSet;
  /** The table of a map; undefined for one that is left out. Called when the map is first used. */
  readonly tableOf: (map: TableMap) => LoggedTable | undefined;
  /** Called for each new map, so that the catalog can be asked before its rows come. */
  readonly onTableMap: (map: TableMap) => void;
  readonly truncatedTable: (schema: string, name: string) => LoggedTable | undefined;
  readonly onStatement: (statement: LoggedStatement, gtid: Gtid) => void;
  /** Whether a group that has become large is known to end in a commit. */
  readonly endsInCommit: (info: GroupInfo) => Promise<boolean>;
  /** Delivery stands still until `work` is done. */
  readonly hold: (work: Promise<void>) => void;
  /** Resolves when frames that wait have been published. */
  readonly room: () => Promise<void>;
  /** The second phase of an XA transaction whose changes were never seen. The group waits for it. */
  readonly onUnknownXa: (xid: Xid) => Promise<void>;
  readonly onFrame: (frame: PendingFrame<GtidPosition>) => void;
  /** A group has ended. */
  readonly onBoundary: () => void;
}

export class GroupAssembler implements BinlogHandler, FrameSource<GtidPosition> {
  readonly #options: AssemblerOptions;
  readonly #cursor: GtidCursor;
  readonly #tables = new WeakMap<TableMap, { readonly table: LoggedTable | undefined }>();
  /** Tables by what frames carry of them. */
  readonly #tableOfSchema = new WeakMap<object, LoggedTable>();
  readonly #counts = new RowCounts<LoggedTable>();
  readonly #frame: FrameFiller<GtidPosition>;
  readonly #prepared: PreparedTransactions;
  readonly #numbers: DomainNumbers;
  #open: OpenGroup | undefined;
  #releasing = false;
  /** Work that groups wait for, and the group that ends once it is done. */
  #works = 0;
  #ending: OpenGroup | undefined;
  /** The transaction that the stream holds in part: nothing else is taken before it. */
  #unfinished: GtidPosition['open'];
  #passedOver = false;
  #reads: number;
  #moved = false;
  #progressDue = false;
  #file = '';
  #offset = 0;
  window: ChunkWindow | undefined;

  constructor(options: AssemblerOptions) {
    this.#options = options;
    this.#frame = new FrameFiller(options.frameBytes, options.resume);
    const { start } = options;
    this.#prepared = new PreparedTransactions(start);
    this.#numbers = new DomainNumbers(start);
    this.#cursor = new GtidCursor(options.resume.gtids);
    this.#reads = options.resume.reads;
    this.#unfinished = options.resume.open;
  }

  get inGroup(): boolean {
    return this.#open !== undefined || this.#releasing;
  }

  /** What has been taken whole. */
  get taken(): GtidSet {
    return this.#cursor.toSet();
  }

  /** Whether transactions were passed over that must be read again, by a new stream from `taken`. */
  get mustReconnect(): boolean {
    return this.#passedOver && this.#unfinished === undefined && !this.inGroup;
  }

  get outstanding(): boolean {
    return this.inGroup || this.#moved || !this.#frame.writer.empty;
  }

  get newestTimeUs(): number {
    return this.#frame.newestTimeUs;
  }

  /** End of the last group delivered, in the source's files; '' before the first. */
  get logPlace(): { readonly file: string; readonly offset: number } {
    return { file: this.#file, offset: this.#offset };
  }

  /** The log's place at the end of a group, as the stream knows it. */
  noteLogPlace(file: string, offset: number): void {
    this.#file = file;
    this.#offset = offset;
  }

  requestProgress(): void {
    this.#progressDue = true;
  }

  takeCounts(): Iterable<{ table: LoggedTable; op: Op; count: number }> {
    return this.#counts.take();
  }

  recycle(writer: FrameWriter): void {
    this.#frame.recycle(writer);
  }

  sealAtBoundary(): PendingFrame<GtidPosition> | undefined {
    if (this.inGroup || (this.#frame.writer.empty && !this.#progressDue)) return undefined;
    this.#progressDue = false;
    return this.#seal(this.#boundary());
  }

  #boundary(): GtidPosition {
    return gtidPosition(this.#cursor.toSet(), this.#reads, this.#unfinished);
  }

  #seal(end: GtidPosition): PendingFrame<GtidPosition> {
    const replay = this.#prepared.replayFrom(() => this.#cursor.toSet());
    this.#moved = false;
    return this.#frame.seal(end, {
      ...(this.#file === '' ? {} : { log: `${this.#file}:${this.#offset}` }),
      ...(replay === undefined ? {} : { replay: replay.toString() }),
    });
  }

  gtid(gtid: Gtid, info: GroupInfo): void {
    const { resume } = this.#options;
    if (gtid.kind === 'mariadb') this.#numbers.next(gtid);
    let mode: 'live' | 'pass' = 'live';
    let skip = 0;
    if (containsGtid(resume.gtids, gtid)) mode = 'pass';
    else if (this.#unfinished !== undefined) {
      if (sameGtid(this.#unfinished.gtid, gtid)) skip = this.#unfinished.ordinal;
      else {
        requireOtherDomain(this.#unfinished.gtid, gtid);
        mode = 'pass';
        this.#passedOver = true;
      }
    }
    this.#open = new OpenGroup(gtid, info, mode, skip, this.#frame.writer.mark());
  }

  xaStart(): void {
    const open = this.#open!;
    // Passed over for another one: it is read again. Taken already: its second phase may still need the rows.
    if (open.mode === 'pass' && !containsGtid(this.#options.resume.gtids, open.gtid)) return;
    open.hold();
  }

  /**
   * Delivery stands still until `work` is done, and the group at hand does not count as taken before: a restart meets
   * what asked for the work again (invariant 1). For use inside handler calls.
   */
  hold(work: Promise<void>): void {
    this.#works += 1;
    this.#options.hold(
      work.then(() => {
        this.#works -= 1;
        if (this.#works > 0 || this.#ending === undefined) return;
        const open = this.#ending;
        this.#ending = undefined;
        this.#finish(open);
      }),
    );
  }

  tableMap(map: TableMap): void {
    this.#options.onTableMap(map);
  }

  #table(map: TableMap): LoggedTable | undefined {
    let known = this.#tables.get(map);
    if (known === undefined) {
      known = { table: this.#options.tableOf(map) };
      this.#tables.set(map, known);
    }
    return known.table;
  }

  /** What a map means is asked for again. */
  forget(map: TableMap): void {
    this.#tables.delete(map);
  }

  rows(rows: RowReader): void {
    const open = this.#open!;
    if (open.mode === 'pass') return;
    const table = this.#table(rows.map);
    if (table === undefined) {
      // Only where it is one: the usual table that is left out costs no look at its name.
      open.origin ??= originOfMarker(rows.map.schema, rows.map.name);
      open.ordinal += rows.count();
      return;
    }
    if (!rows.complete)
      throw new ReplicationError(
        'source_binlog_settings',
        `rows of ${table.schema.schema}.${table.schema.name} were logged without all their columns (binlog_row_image is not FULL)`,
        { context: { gtid: formatGtid(open.gtid) } },
      );
    const window = this.window?.concerns(table) === true ? this.window : undefined;
    let { op } = rows;
    const { rowEnd } = table;
    let written = 0;
    while (rows.next()) {
      open.ordinal += 1;
      if (rowEnd !== undefined) {
        const present = rows.presentOp(rowEnd);
        if (present === undefined) continue;
        if (present !== op) {
          if (written > 0) this.#count(table, op, written);
          [op, written] = [present, 0];
        }
      }
      if (open.mode === 'held') {
        const writer = open.held!.beginRow(op, table, open.ordinal);
        writeImages(writer, rows, table, op);
        open.held!.endRow();
        continue;
      }
      window?.touch(table, rows);
      if (open.ordinal <= open.skip) continue;
      const writer = this.#frame.writer;
      writer.beginRow(op, table.schema);
      writeImages(writer, rows, table, op);
      writer.endRow();
      this.#countRow(open);
      written += 1;
      if (open.sure && this.#frame.full) this.#cut(open);
    }
    if (written === 0) return;
    this.#count(table, op, written);
    if (!open.sure && this.#frame.full) this.hold(this.#decide(open));
  }

  #countRow(open: OpenGroup): void {
    open.rowsHere += 1;
    if (open.sure) return;
    addOrdinal(open.runs, open.ordinal);
  }

  #count(table: LoggedTable, op: Op, rows: number): void {
    this.#tableOfSchema.set(table.schema, table);
    this.#counts.add(table, op, rows);
  }

  /** A group has outgrown a frame: it is cut when all of it is known to be committed, else held to its end. */
  async #decide(open: OpenGroup): Promise<void> {
    // What came behind a savepoint may be undone in what ends in a commit, too.
    if (!open.hasSavepoint && (await this.#options.endsInCommit(open.info))) {
      open.sure = true;
      open.runs = [];
      this.#cut(open);
    } else this.#toHeld(open);
  }

  /** Takes the rows of an open group out of the frame again; they wait for its end. */
  #toHeld(open: OpenGroup): void {
    if (open.mode === 'held') return;
    const held = open.hold();
    const { tables } = this.#frame.writer;
    for (const { change, ordinal } of open.takeBack(this.#frame.writer)) {
      const table = this.#tableOfSchema.get(tables[change[1]]!)!;
      held.add({ change, table, ordinal });
      this.#count(table, change[0], -1);
    }
  }

  #cut(open: OpenGroup): void {
    open.close(this.#frame.writer, false);
    this.#options.onFrame(
      this.#seal(gtidPosition(this.#cursor.toSet(), this.#reads, { gtid: open.gtid, ordinal: open.ordinal })),
    );
    this.#unfinished = { gtid: open.gtid, ordinal: open.ordinal };
    open.wasCut();
    failpoint('capture.mid-transaction');
  }

  statement(statement: LoggedStatement): void {
    const open = this.#open!;
    if (open.mode === 'pass') return;
    const { truncates } = statement;
    if (truncates !== undefined) {
      const table = this.#options.truncatedTable(truncates.schema, truncates.name);
      if (table === undefined) return;
      open.ordinal += 1;
      if (this.window?.concerns(table) === true) this.window.truncate();
      if (open.ordinal <= open.skip) return;
      this.#frame.writer.beginRow('t', table.schema);
      this.#frame.writer.writeJson(Buffer.from('[]'));
      this.#frame.writer.endRow();
      this.#countRow(open);
      this.#count(table, 't', 1);
      return;
    }
    this.#options.onStatement(statement, open.gtid);
  }

  savepoint(name: string): void {
    const open = this.#open!;
    if (open.mode === 'pass') return;
    open.savepoint(name);
    // What follows may be undone, and could not be taken back once a part was published.
    if (open.mode === 'live' && open.mark === undefined && !open.info.transactional) open.hold();
  }

  rollbackTo(name: string): void {
    const open = this.#open!;
    if (open.mode === 'pass') return;
    const at = open.ordinalAt(name);
    this.#toHeld(open);
    open.held!.undo(at, open.ordinal);
  }

  end(end: GroupEnd): void {
    const open = this.#open!;
    // The usual one: no need to ask what the stream holds.
    if (end.kind === 'commit' && open.held === undefined) return this.#finish(open);
    const taken = open.mode === 'pass' || containsGtid(this.#options.resume.gtids, open.gtid);
    switch (end.kind) {
      case 'xa-prepare': {
        if (open.held !== undefined) this.#prepared.add(end.xid, open.gtid, open.held);
        open.held = undefined;
        return this.#finish(open);
      }
      case 'xa-commit':
      case 'xa-rollback': {
        const held = this.#prepared.rowsOf(end.xid);
        if (open.mode === 'pass' && !taken) return this.#finish(open);
        open.xid = end.xid;
        if (taken) {
          held?.dispose();
          return this.#finish(open);
        }
        if (held === undefined) {
          if (end.kind === 'xa-commit') this.hold(this.#options.onUnknownXa(end.xid));
          return this.#finish(open);
        }
        open.mode = 'held';
        open.held = held;
        if (end.kind === 'xa-rollback') open.held.undo(0, Infinity);
        return this.hold(this.#release(open));
      }
      case 'rollback':
        if (open.mode !== 'pass') {
          this.#toHeld(open);
          open.held!.undo(0, open.ordinal);
        }
        break;
      case 'commit':
    }
    if (open.held === undefined) return this.#finish(open);
    if (taken) {
      open.held.dispose();
      return this.#finish(open);
    }
    this.hold(this.#release(open));
  }

  /** Writes held rows that stand into frames, no faster than these are published. */
  async #release(open: OpenGroup): Promise<void> {
    this.#releasing = true;
    open.sure = true;
    for (const rows of open.held!.read()) {
      for (const row of rows) this.#writeHeld(open, row);
      await this.#options.room();
    }
    open.held!.dispose();
    open.held = undefined;
    this.#releasing = false;
    this.#finish(open);
  }

  #writeHeld(open: OpenGroup, row: HeldRow): void {
    const { change, table, ordinal } = row;
    open.ordinal = ordinal;
    if (this.window?.concerns(table) === true) this.window.touchHeld(row);
    if (ordinal <= open.skip) return;
    this.#frame.writer.beginRow(change[0], table.schema);
    writeChange(this.#frame.writer, change);
    this.#frame.writer.endRow();
    this.#countRow(open);
    this.#count(table, change[0], 1);
    if (this.#frame.full) this.#cut(open);
  }

  #finish(open: OpenGroup): void {
    if (this.#works > 0) {
      this.#ending = open;
      return;
    }
    const { gtid } = open;
    this.#open = undefined;
    this.#prepared.ended(gtid);
    const passed = open.mode === 'pass' || containsGtid(this.#options.resume.gtids, gtid);
    // Not earlier: a restart inside of the second phase needs the rows again.
    if (open.xid !== undefined && !(passed && !containsGtid(this.#options.resume.gtids, gtid)))
      this.#prepared.forget(open.xid);
    if (!passed) {
      open.close(this.#frame.writer, true);
      this.#cursor.add(gtid);
      this.#moved = true;
      this.#frame.newestTimeUs = open.info.commitTimeUs;
      if (this.#unfinished !== undefined && sameGtid(this.#unfinished.gtid, gtid)) this.#unfinished = undefined;
    }
    this.#options.onBoundary();
    if (this.#frame.full) this.#options.onFrame(this.#seal(this.#boundary()));
  }

  rotate(file: string, offset: number): void {
    if (!this.inGroup) this.noteLogPlace(file, offset);
  }

  heartbeat(): void {
    this.#options.onBoundary();
  }

  /** Publishes what was read of a table: rows (`r`), marks (`s`), keys that are gone (`d`). Between groups only. */
  publishRead(table: LoggedTable, op: 'r' | 's' | 'd', rows: readonly Buffer[], timeUs: number): void {
    this.#publishRead(timeUs, rows.length, (row) => {
      const { writer } = this.#frame;
      writer.beginRow(op, table.schema);
      if (op === 'd') {
        writer.writeNull();
        writer.before('k');
      }
      writer.writeJson(rows[row]!);
      writer.endRow();
      return row + 1;
    });
    if (rows.length > 0) this.#count(table, op, rows.length);
  }

  /** Publishes those of the rows of a table that are kept, as lines. Between groups only. */
  publishLines(table: LoggedTable, rows: ReadRows, keeps: (row: number) => boolean, timeUs: number): void {
    let kept = 0;
    this.#publishRead(timeUs, rows.length, (row) => {
      if (!keeps(row)) return row + 1;
      const next = rows.writeLines(row, this.#frame.room, keeps, table.schema, this.#frame.writer);
      kept += next - row;
      return next;
    });
    if (kept > 0) this.#count(table, 'r', kept);
  }

  /** `write` writes a row, or more of them, and gives the row behind these. */
  #publishRead(timeUs: number, rows: number, write: (row: number) => number): void {
    if (this.inGroup) throw new ReplicationError('internal', 'rows of a table were to be published inside of a group');
    let before = this.#frame.writer.rows;
    const close = (): void => {
      const here = this.#frame.writer.rows - before;
      if (here === 0) return;
      this.#reads += 1;
      const name = readName(this.#reads);
      this.#frame.writer.addTransaction([0, name, name, timeUs, here, 'whole', 0]);
      this.#moved = true;
      before += here;
    };
    for (let row = 0; row < rows;) {
      row = write(row);
      if (!this.#frame.full) continue;
      close();
      this.#options.onFrame(this.#seal(this.#boundary()));
      before = 0;
    }
    close();
  }

  /** The number of reads that have been published or are in the frame at hand. */
  get reads(): number {
    return this.#reads;
  }
}
