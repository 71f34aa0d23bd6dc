/** Turns decoded pgoutput messages into frames: cuts, positions, ordinals, and the windows of snapshot chunks. */
import { ReplicationError } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoint.ts';
import { partOf, type FrameWriter } from '../../core/frame-writer.ts';
import type { Op, Value } from '../../core/frame.ts';
import { rangeMark } from '../../core/key-order.ts';
import { isWaybillOrigin, ORIGIN_MESSAGE } from '../../core/origin.ts';
import type { Transactions } from '../../core/pg-snapshot.ts';
import { comparePositions, formatHexLsn, pgPosition, type PgPosition } from '../../core/position.ts';
import { FrameFiller, type PendingFrame } from '../frame-filler.ts';
import type { FrameSource } from '../publish-loop.ts';
import { beginContent } from '../snapshot-request.ts';
import type { ChunkOutcome } from './chunk-reader.ts';
import type { CopyRows } from './copy-lines.ts';
import { ChunkWindows, type Chunk } from './chunk-windows.ts';
import { DDL_PREFIX, parseMark, type Mark, type MarkedVersion, type MarkPlace, type SchemaMark } from './log-marks.ts';
import { LEAST_INSERTS_AS_LINES, type OpenTransaction } from './open-transaction.ts';
import type { PgOutputHandler, RelationMessage, TupleRange } from './pgoutput.ts';
import { PassedTransactions } from './passed-transactions.ts';
import { isPlain, keyImage, type PublishedTable } from './published-table.ts';
import { hasUnchanged, writeGuardedTuple, writeLine, writeTuple } from './tuple-writer.ts';

export interface AssemblerOptions {
  readonly frameBytes: number;
  readonly resume: PgPosition;
  /** Prefix of the logical messages that are ours. */
  readonly markPrefix: string;
  /**
   * The table of a relation message in transaction `xid`, which commits at `lsn`; undefined for one that the configuration
   * leaves out, or whose look-up holds the log until it is described again.
   */
  readonly resolve: (relation: RelationMessage, lsn: bigint, xid: number) => PublishedTable | undefined;
  /** A schema mark. Holds the log until `write` has been called with what goes into the stream. */
  readonly takeMark: (mark: SchemaMark, at: MarkPlace, write: (versions: readonly MarkedVersion[]) => void) => void;
  /** A message has the prefix of marks, and is none: somebody else wrote it. */
  readonly notAMark: (prefix: string, lsn: bigint) => void;
  /** A captured table by oid, for marks. */
  readonly tableByOid: (oid: number) => PublishedTable | undefined;
  /** Whether this process reads the chunk of a low watermark: the log may hold those of one that was killed. */
  readonly readsChunk: (chunk: string) => boolean;
  /** The chunk that a high watermark closes; undefined when this process did not read it. */
  readonly takeChunk: (chunk: string) => Chunk | undefined;
  readonly chunkDone: (chunk: string, outcome: ChunkOutcome) => void;
  readonly moved?: (table: PublishedTable, buffer: Buffer, before: TupleRange, after: TupleRange) => void;
  readonly onFrame: (frame: PendingFrame<PgPosition>) => void;
}

interface Relation {
  readonly table: PublishedTable;
  readonly counts: Partial<Record<Op, number>>;
}

export class TransactionAssembler implements PgOutputHandler, FrameSource<PgPosition> {
  readonly #options: AssemblerOptions;
  readonly #relations = new Map<number, Relation | undefined>();
  /** Described inside transactions that the stream holds: what they were then is of no account. */
  readonly #unresolved = new Map<number, RelationMessage>();
  readonly #frame: FrameFiller<PgPosition>;
  readonly #windows = new ChunkWindows();
  #commitLsn = 0n;
  #open: OpenTransaction | undefined;
  /** Set while a transaction that the stream holds whole is passed over. */
  #passing = false;
  /** End of what has been written, at the last transaction boundary. */
  #boundary: PgPosition;
  /** End of the newest commit record seen: commits come in order, so that an earlier one is a repeat. */
  #lastCommitEnd = 0n;
  readonly #passed = new PassedTransactions();
  #progressDue = false;
  #unmovedDue = false;

  constructor(options: AssemblerOptions) {
    this.#options = options;
    this.#frame = new FrameFiller(options.frameBytes, options.resume);
    this.#boundary = options.resume;
  }

  /** End of the log that this assembler has seen, at a transaction boundary. */
  get boundary(): PgPosition {
    return this.#boundary;
  }

  get outstanding(): boolean {
    return this.#open !== undefined || comparePositions(this.#boundary, this.#frame.sealed) > 0;
  }

  get inTransaction(): boolean {
    return this.#open !== undefined || this.#passing;
  }

  get newestTimeUs(): number {
    return this.#frame.newestTimeUs;
  }

  /** Starts or stops to remember the ids of transactions that pass: chunks need them. */
  trackTransactions(on: boolean): void {
    this.#passed.track(on);
    if (!on) this.#windows.clear();
  }

  /** Forgets those that a chunk has seen of which the high watermark has passed. */
  forgetTransactions(unseen: Transactions): void {
    this.#passed.forgetAllBut(unseen);
  }

  /** The log is empty up to `lsn` (a keepalive said so). */
  advance(lsn: bigint): void {
    if (this.inTransaction) return;
    const position = pgPosition(lsn);
    if (comparePositions(position, this.#boundary) > 0) this.#boundary = position;
  }

  /** Makes the next seal happen even when it only brings the position forward; `unmoved`: or not even that. */
  requestProgress({ unmoved = false } = {}): void {
    this.#progressDue = true;
    this.#unmovedDue ||= unmoved;
  }

  /** Row counts by table and operation since the last call. */
  *takeCounts(): Generator<{ table: PublishedTable; op: Op; count: number }> {
    for (const relation of this.#relations.values()) {
      if (relation === undefined) continue;
      for (const op of Object.keys(relation.counts) as Op[]) {
        const count = relation.counts[op]!;
        if (count > 0) yield { table: relation.table, op, count };
        relation.counts[op] = 0;
      }
    }
  }

  recycle(writer: FrameWriter): void {
    this.#frame.recycle(writer);
  }

  sealAtBoundary(): PendingFrame<PgPosition> | undefined {
    if (this.#open !== undefined) return undefined;
    const moved = comparePositions(this.#boundary, this.#frame.sealed) > 0;
    if (!(moved || this.#unmovedDue) || (this.#frame.writer.empty && !this.#progressDue)) return undefined;
    this.#progressDue = false;
    this.#unmovedDue = false;
    return this.#frame.seal(this.#boundary);
  }

  /** Seals a frame that is full, when the transaction goes on: one that ends there shall end with it. */
  #cut(open: OpenTransaction): void {
    this.#closeEntry(open, undefined);
    this.#options.onFrame(this.#frame.seal(pgPosition(open.commitLsn, open.ordinal)));
    open.beganHere = false;
    open.rowsHere = 0;
    open.firstOrdinal = open.ordinal;
    failpoint('capture.mid-transaction');
  }

  #closeEntry(open: OpenTransaction, endLsn: bigint | undefined): void {
    const part = partOf(open.beganHere, endLsn !== undefined);
    // A part without rows says nothing, except that the transaction has ended.
    if (open.rowsHere === 0 && (part === 'whole' || part === 'first' || part === 'middle')) return;
    const { xid, commitLsn, timeUs, rowsHere, firstOrdinal, origin } = open;
    const end = endLsn ?? commitLsn;
    if (origin === undefined)
      this.#frame.writer.addLsnTransaction(xid, commitLsn, end, timeUs, rowsHere, part, firstOrdinal);
    else
      this.#frame.writer.addTransaction([
        xid,
        formatHexLsn(commitLsn),
        formatHexLsn(end),
        timeUs,
        rowsHere,
        part,
        firstOrdinal,
        origin,
      ]);
  }

  /** Counts a change and says whether it is to be written. `inserts`: the table that it inserts into, by oid. */
  #take(inserts = 0): OpenTransaction | undefined {
    const open = this.#open;
    if (open === undefined) {
      if (this.#passing) return undefined;
      throw new ReplicationError('source_protocol', 'a change came outside of a transaction');
    }
    const goesOn = inserts !== 0 && inserts === open.insertsInto;
    if (this.#frame.full || (open.asLines && !goesOn)) {
      this.#cut(open);
      const table = this.#relations.get(inserts)?.table;
      open.asLines = goesOn && open.inserts >= LEAST_INSERTS_AS_LINES && table !== undefined && isPlain(table);
    }
    if (!goesOn) {
      open.insertsInto = inserts;
      open.inserts = 0;
    }
    open.inserts += 1;
    open.ordinal += 1;
    return open.ordinal > open.skip ? open : undefined;
  }

  #relation(oid: number): Relation | undefined {
    const relation = this.#relations.get(oid);
    if (relation === undefined && !this.#relations.has(oid))
      throw new ReplicationError('source_protocol', `a change names relation ${oid}, which was not described`);
    return relation;
  }

  begin(finalLsn: bigint, commitTimeUs: number, xid: number): void {
    const { resume } = this.#options;
    // Invariant 4 begins here: what the stream holds, or what came before in this session, is not published again.
    if (finalLsn < resume.lsn || finalLsn < this.#lastCommitEnd) {
      this.#passing = true;
      return;
    }
    this.#commitLsn = finalLsn;
    const skip = finalLsn === resume.lsn ? resume.ordinal : 0;
    this.#open = {
      xid,
      commitLsn: finalLsn,
      timeUs: commitTimeUs,
      ordinal: 0,
      skip,
      beganHere: skip === 0,
      rowsHere: 0,
      firstOrdinal: skip,
      insertsInto: 0,
      inserts: 0,
      asLines: false,
    };
    if (this.#unresolved.size > 0) {
      const relations = [...this.#unresolved.values()];
      this.#unresolved.clear();
      for (const relation of relations) this.relation(relation);
    }
  }

  commit(_commitLsn: bigint, endLsn: bigint, commitTimeUs: number): void {
    const open = this.#open;
    if (open === undefined) {
      this.#passing = false;
      return;
    }
    this.#closeEntry(open, endLsn);
    this.#passed.add(open.xid);
    this.#open = undefined;
    this.#frame.newestTimeUs = commitTimeUs;
    this.#boundary = pgPosition(endLsn);
    this.#lastCommitEnd = endLsn;
    if (this.#frame.full || open.asLines) this.#options.onFrame(this.#frame.seal(this.#boundary));
  }

  relation(relation: RelationMessage): void {
    if (this.#passing) {
      this.#unresolved.set(relation.oid, relation);
      this.#relations.set(relation.oid, undefined);
      return;
    }
    // Whatever the columns are from here on: what stands as lines ends.
    if (this.#open?.insertsInto === relation.oid) this.#open.insertsInto = 0;
    const table = this.#options.resolve(relation, this.#commitLsn, this.#open?.xid ?? 0);
    const counts = this.#relations.get(relation.oid)?.counts ?? {};
    this.#relations.set(relation.oid, table === undefined ? undefined : { table, counts });
  }

  insert(oid: number, buffer: Buffer, after: TupleRange): void {
    const open = this.#take(oid);
    const relation = this.#relation(oid);
    if (relation === undefined) return;
    const { table } = relation;
    if (this.#windows.concern(table.oid)) this.#windows.touch(table, buffer, after);
    if (open === undefined) return;
    if (open.asLines && !hasUnchanged(buffer, after)) {
      writeLine(this.#frame.writer, buffer, after, table.published);
      this.#count(open, relation, 'i');
      return;
    }
    this.#frame.writer.beginRow('i', table.published);
    this.#writeTuple(buffer, after, table);
    this.#endRow(open, relation, 'i');
  }

  update(oid: number, buffer: Buffer, kind: 'K' | 'O' | undefined, before: TupleRange, after: TupleRange): void {
    const open = this.#take();
    const relation = this.#relation(oid);
    if (relation === undefined) return;
    const { table } = relation;
    if (this.#windows.concern(table.oid)) {
      if (kind !== undefined) this.#windows.touch(table, buffer, before);
      this.#windows.touch(table, buffer, after);
    }
    if (open === undefined) return;
    if (kind === 'K') this.#options.moved?.(table, buffer, before, after);
    this.#frame.writer.beginRow('u', table.published);
    this.#writeTuple(buffer, after, table);
    if (kind !== undefined) {
      this.#frame.writer.before(kind === 'K' ? 'k' : 'f');
      this.#writeTuple(buffer, before, table);
    }
    this.#endRow(open, relation, 'u');
  }

  delete(oid: number, buffer: Buffer, kind: 'K' | 'O', before: TupleRange): void {
    const open = this.#take();
    const relation = this.#relation(oid);
    if (relation === undefined) return;
    const { table } = relation;
    if (this.#windows.concern(table.oid)) this.#windows.touch(table, buffer, before);
    if (open === undefined) return;
    this.#frame.writer.beginRow('d', table.published);
    this.#frame.writer.writeNull();
    this.#frame.writer.before(kind === 'K' ? 'k' : 'f');
    this.#writeTuple(buffer, before, table);
    this.#endRow(open, relation, 'd');
  }

  truncate(oids: readonly number[], cascade: boolean, restartIdentity: boolean): void {
    for (const oid of oids) {
      const open = this.#take();
      const relation = this.#relation(oid);
      if (relation === undefined) continue;
      // Everything that a chunk read before the truncation is gone.
      if (this.#windows.concern(oid)) this.#windows.truncate(oid);
      if (open === undefined) continue;
      this.#frame.writer.beginRow('t', relation.table.published);
      const options = [cascade ? 'cascade' : '', restartIdentity ? 'restart_identity' : ''].filter(
        (option) => option !== '',
      );
      this.#frame.writer.writeJson(Buffer.from(JSON.stringify(options)));
      this.#endRow(open, relation, 't');
    }
  }

  message(transactional: boolean, lsn: bigint, prefix: string, content: Buffer): void {
    if (prefix === this.#options.markPrefix || (transactional && prefix === DDL_PREFIX)) {
      const mark = parseMark(content.toString('utf8'));
      const isOurs = mark !== undefined && (prefix !== DDL_PREFIX || mark.k === 'table' || mark.k === 'gone');
      if (!isOurs) this.#options.notAMark(prefix, lsn);
      else if (this.#open !== undefined) this.#mark(mark);
      return;
    }
    if (!transactional) return;
    if (prefix === ORIGIN_MESSAGE) {
      this.origin(0n, content.toString('utf8'));
      return;
    }
    const open = this.#take();
    if (open === undefined) return;
    this.#frame.writer.beginRow('m', undefined);
    this.#frame.writer.writeJson(Buffer.from(JSON.stringify([prefix, content.toString('base64')])));
    this.#endRow(open, undefined, 'm');
  }

  #mark(mark: Mark): void {
    if (mark.k === 'heartbeat') {
      this.#progressDue = true;
      return;
    }
    if (mark.k === 'table' || mark.k === 'gone') {
      this.#schemaMark(mark);
      return;
    }
    const table = this.#options.tableByOid(mark.oid);
    if (table === undefined) {
      // Who reads a chunk of a table that is gone by now waits for its fate all the same.
      if (mark.k === 'high') this.#forgetChunk(mark.chunk);
      return;
    }
    switch (mark.k) {
      case 'begin':
      case 'end':
      case 'cancel':
      case 'cancel_range': {
        this.#writeMark(
          table,
          mark.k === 'begin' ? beginContent(mark.id, mark.unasked === true ? { needed: true } : {}) : [mark.id, mark.k],
        );
        return;
      }
      case 'begin_range':
      case 'end_range':
        this.#writeMark(table, rangeMark(mark.id, mark.k, mark));
        return;
      case 'low':
        if (this.#options.readsChunk(mark.chunk)) this.#windows.open(mark.chunk, mark.oid, this.#passed.ids);
        return;
      case 'high':
        if (mark.changed === true) this.#forgetChunk(mark.chunk);
        else this.#closeWindow(mark.chunk, mark.end, mark.more === true);
    }
  }

  #writeMark(table: PublishedTable, content: readonly Value[]): void {
    const open = this.#take();
    if (open === undefined) return;
    this.#frame.writer.beginRow('s', table.published);
    this.#frame.writer.writeJson(Buffer.from(JSON.stringify(content)));
    this.#endRow(open, undefined, 's');
  }

  /**
   * Takes one place in its transaction, however many rows it brings: the same place whenever the log is read. No frame is
   * cut between them.
   */
  #schemaMark(mark: SchemaMark): void {
    const open = this.#take();
    if (open === undefined) return;
    const at = { xid: open.xid, lsn: open.commitLsn };
    this.#options.takeMark(mark, at, (versions) => {
      for (const { table, what, mark: kind } of versions) {
        this.#relations.set(table.oid, { table, counts: this.#relations.get(table.oid)?.counts ?? {} });
        this.#frame.writer.beginRow('s', table.published);
        this.#frame.writer.writeJson(Buffer.from(JSON.stringify([what, kind])));
        this.#frame.writer.endRow();
        open.rowsHere += 1;
      }
    });
  }

  /**
   * Publishes what is left of a chunk, or of a piece of it, at the place of its high watermark, and behind it that the reading
   * `end` ends.
   */
  #closeWindow(id: string, end: string | undefined, goesOn: boolean): void {
    const chunk = this.#options.takeChunk(id);
    if (chunk === undefined) return this.#forgetChunk(id);
    const { table, rows } = chunk;
    const rest = this.#windows.close(id, chunk, this.#options.tableByOid(table.oid), goesOn);
    if (rest === undefined) return this.#options.chunkDone(id, undefined);
    const relation: Relation = this.#relations.get(table.oid) ?? { table, counts: {} };
    this.#relations.set(table.oid, relation);
    const asLines = rest.whole && rows.plain && this.#writeLines(rows, relation);
    let kept = asLines ? rows.length : 0;
    for (let row = 0; row < rows.length && !asLines; row++) {
      if (!rest.keeps(row)) continue;
      kept += 1;
      const open = this.#take();
      if (open === undefined) continue;
      this.#frame.writer.beginRow('r', table.published);
      rows.write(row, this.#frame.writer);
      this.#endRow(open, relation, 'r');
    }
    for (const key of rest.absent) {
      const open = this.#take();
      if (open === undefined) continue;
      this.#frame.writer.beginRow('d', table.published);
      this.#frame.writer.writeNull();
      this.#frame.writer.before('k');
      this.#frame.writer.writeJson(keyImage(table, key));
      this.#endRow(open, relation, 'd');
    }
    if (end !== undefined) this.#writeMark(table, [end, 'end']);
    // Who reads the chunk waits until the stream has come to this place, also where it brought nothing.
    if (kept === 0 && rest.absent.length === 0) this.#progressDue = true;
    this.#options.chunkDone(id, { kept, commitLsn: this.#open!.commitLsn });
  }

  #forgetChunk(id: string): void {
    this.#options.takeChunk(id);
    this.#windows.drop(id);
    this.#options.chunkDone(id, undefined);
  }

  /** Publishes all rows of a chunk as the lines that they came as. False inside of what the stream holds already. */
  #writeLines(rows: CopyRows, { table, counts }: Relation): boolean {
    const open = this.#open!;
    if (open.ordinal < open.skip) return false;
    for (let row = 0; row < rows.length;) {
      if (this.#frame.full) this.#cut(open);
      const next = rows.writeLines(row, this.#frame.room, table.published, this.#frame.writer);
      open.ordinal += next - row;
      open.rowsHere += next - row;
      counts.r = (counts.r ?? 0) + next - row;
      row = next;
    }
    return true;
  }

  #writeTuple(buffer: Buffer, tuple: TupleRange, { binary, writes }: PublishedTable): void {
    const { writer } = this.#frame;
    if (writes === undefined) writeTuple(writer, buffer, tuple, binary);
    else writeGuardedTuple(writer, buffer, tuple, binary, writes);
  }

  #endRow(open: OpenTransaction, relation: Relation | undefined, op: Op): void {
    this.#frame.writer.endRow();
    this.#count(open, relation, op);
  }

  #count(open: OpenTransaction, relation: Relation | undefined, op: Op): void {
    open.rowsHere += 1;
    if (relation !== undefined) relation.counts[op] = (relation.counts[op] ?? 0) + 1;
  }

  /** It stands at the start of a transaction. Those of others' replication are of no account here. */
  origin(_originLsn: bigint, name: string): void {
    if (this.#open !== undefined && isWaybillOrigin(name)) this.#open.origin = name;
  }

  type(): void {}

  twoPhase(): void {
    throw new ReplicationError(
      'source_protocol',
      'the source sent a prepared transaction, which this connection did not ask for',
    );
  }
}
