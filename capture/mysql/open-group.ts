/** A group of the log while its events come. */
import { ReplicationError } from '../../core/errors.ts';
import type { RowChange } from '../../core/frame.ts';
import { partOf, type FrameWriter } from '../../core/frame-writer.ts';
import { formatGtid, type Gtid } from '../../core/gtid.ts';
import type { GroupInfo, Xid } from './binlog-handler.ts';
import { HeldRows } from './held-rows.ts';

export class OpenGroup {
  readonly gtid: Gtid;
  readonly info: GroupInfo;
  /** pass: the stream has it, or its turn comes after another one. */
  mode: 'live' | 'held' | 'pass';
  held: HeldRows | undefined;
  /** Known to end in a commit, so that its parts may be published. */
  sure: boolean;
  /** Changes seen so far, as positions count them. */
  ordinal = 0;
  /** Changes at the start that the stream holds already. */
  readonly skip: number;
  /** Where its rows begin in the writer at hand, while none of them was published. */
  mark: { readonly bytes: number; readonly rows: number } | undefined;
  /** Ordinals of its rows in the writer: first and length of each run. */
  runs: number[] = [];
  /** Made for the few that have one. */
  #savepoints: Map<string, number> | undefined;
  /** Set where Waybill wrote it. */
  origin: string | undefined;
  /** The XA transaction whose second phase this is. */
  xid: Xid | undefined;
  /** Whether its first change lies in the frame being written. */
  beganHere: boolean;
  rowsHere = 0;
  firstOrdinal: number;

  constructor(gtid: Gtid, info: GroupInfo, mode: 'live' | 'pass', skip: number, mark: OpenGroup['mark']) {
    this.gtid = gtid;
    this.info = info;
    this.mode = mode;
    this.sure = info.transactional;
    this.skip = skip;
    this.mark = mark;
    this.beganHere = skip === 0;
    this.firstOrdinal = skip;
  }

  /** From here on its rows wait for its end. */
  hold(): HeldRows {
    this.mode = 'held';
    this.held ??= new HeldRows();
    return this.held;
  }

  savepoint(name: string): void {
    this.#savepoints ??= new Map();
    this.#savepoints.set(name, this.ordinal);
  }

  get hasSavepoint(): boolean {
    return this.#savepoints !== undefined;
  }

  /** The number of changes before a savepoint. */
  ordinalAt(savepoint: string): number {
    const at = this.#savepoints?.get(savepoint);
    if (at === undefined)
      throw new ReplicationError(
        'source_protocol',
        `the log rolls back to savepoint ${savepoint}, which it did not set`,
        { context: { gtid: formatGtid(this.gtid) } },
      );
    return at;
  }

  /** Ends its entry in the frame at hand; `ends`: the transaction ends there, too. */
  close(writer: FrameWriter, ends: boolean): void {
    const part = partOf(this.beganHere, ends);
    // A part without rows says nothing, except that the transaction has ended.
    if (this.rowsHere === 0 && part !== 'last') return;
    const name = formatGtid(this.gtid);
    const { origin, rowsHere, firstOrdinal } = this;
    const { commitTimeUs } = this.info;
    if (origin === undefined) writer.addNamedTransaction(name, commitTimeUs, rowsHere, part, firstOrdinal);
    else writer.addTransaction([0, name, name, commitTimeUs, rowsHere, part, firstOrdinal, origin]);
  }

  /** A part of it was given away: what follows is the next part. */
  wasCut(): void {
    this.mark = undefined;
    this.beganHere = false;
    this.rowsHere = 0;
    this.firstOrdinal = this.ordinal;
  }

  /** Takes its rows out of a writer again, each with its ordinal. */
  *takeBack(writer: FrameWriter): Generator<{ change: RowChange; ordinal: number }> {
    if (this.mark === undefined || this.rowsHere === 0) return;
    const text = writer.textFrom(this.mark.bytes);
    const changes = JSON.parse(`[${text.startsWith(',') ? text.slice(1) : text}]`) as RowChange[];
    let at = 0;
    for (let run = 0; run < this.runs.length; run += 2)
      for (let i = 0; i < this.runs[run + 1]!; i++) yield { change: changes[at++]!, ordinal: this.runs[run]! + i };
    writer.rewind(this.mark);
    this.rowsHere = 0;
    this.runs = [];
  }
}
