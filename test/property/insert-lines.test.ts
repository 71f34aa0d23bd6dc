/** Transactions of inserts, updates and deletes, however the capture lays their rows out in frames. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PendingFrame } from '../../capture/frame-filler.ts';
import type { RelationMessage, TupleRange } from '../../capture/postgres/pgoutput.ts';
import { publishTable, type PublishedTable } from '../../capture/postgres/published-table.ts';
import { TransactionAssembler } from '../../capture/postgres/transaction-assembler.ts';
import { NO_COLUMN_RULES } from '../../core/column-rules.ts';
import { decodeFrame, type RowChange, type TableSchema } from '../../core/frame.ts';
import { IndexedFrame } from '../../core/indexed-frame.ts';
import { comparePositions, formatPosition, pgPosition, type PgPosition } from '../../core/position.ts';

const FRAME_BYTES = 4000;
const LEAST_INSERTS = 1000;
/** The last one is left out by the configuration. */
const TABLES = ['orders', 'lines', 'files', 'hidden'] as const;
const HIDDEN = 3;
type Image = readonly (string | null | 0)[];
type Step = readonly [op: 'i' | 'u' | 'd' | 'relation', table: number, image: Image];

function schemaOf(name: string): TableSchema {
  const columns = ['id', 'note'].map((column) => ({ name: column, type: 'text', portable: 'text', notNull: false }));
  return { schema: 'public', name, version: 'v', identity: 'default', key: ['id'], columns };
}

const tables: PublishedTable[] = TABLES.map((name, index) =>
  publishTable(
    { oid: index + 1, schema: schemaOf(name), binary: [false, name === 'files'], keyIndexes: [0] } as never,
    NO_COLUMN_RULES,
  ),
);

/** What the assembler made of the changes: every frame's payload, as the broker would keep it. */
interface Stored {
  readonly payload: Buffer;
  readonly version: number | undefined;
  readonly start: PgPosition;
  readonly end: PgPosition;
}

class Source {
  readonly frames: Stored[] = [];
  readonly #assembler: TransactionAssembler;

  constructor(resume: PgPosition) {
    const keep = ({ payload, version, start, end, writer }: PendingFrame<PgPosition>): void => {
      this.frames.push({ payload: Buffer.from(payload), version, start, end });
      this.#assembler.recycle(writer);
    };
    this.#assembler = new TransactionAssembler({
      frameBytes: FRAME_BYTES,
      resume,
      markPrefix: 'none',
      resolve: ({ oid }) => (oid - 1 === HIDDEN ? undefined : tables[oid - 1]),
      takeMark: () => {},
      notAMark: () => {},
      tableByOid: (oid) => tables[oid - 1],
      readsChunk: () => false,
      takeChunk: () => undefined,
      chunkDone: () => {},
      onFrame: keep,
    });
    this.#seal = () => {
      const frame = this.#assembler.sealAtBoundary();
      if (frame !== undefined) keep(frame);
    };
  }

  readonly #seal: () => void;

  /** Sends transactions whose commit records begin at 100, 200 … and end 50 behind. */
  send(transactions: readonly (readonly Step[])[]): this {
    for (const [index, steps] of transactions.entries()) {
      const lsn = BigInt((index + 1) * 100);
      this.#assembler.begin(lsn, 1000 + index, index + 1);
      if (index === 0) for (const oid of tables.keys()) this.#assembler.relation(relation(oid + 1));
      for (const step of steps) this.#change(step);
      this.#assembler.commit(lsn, lsn + 50n, 1000 + index);
    }
    this.#seal();
    return this;
  }

  #change([op, table, image]: Step): void {
    const oid = table + 1;
    if (op === 'relation') return this.#assembler.relation(relation(oid));
    const { buffer, range } = tuple(image);
    if (op === 'i') this.#assembler.insert(oid, buffer, range);
    else if (op === 'u') this.#assembler.update(oid, buffer, undefined, range, range);
    else this.#assembler.delete(oid, buffer, 'K', range);
  }
}

function relation(oid: number): RelationMessage {
  return { oid, schema: 'public', name: TABLES[oid - 1]!, identity: 'd', columns: [] };
}

function tuple(image: Image): { buffer: Buffer; range: TupleRange } {
  const parts = [Buffer.from('before')];
  for (const value of image) {
    if (typeof value !== 'string') parts.push(Buffer.from(value === null ? 'n' : 'u'));
    else {
      const head = Buffer.from('t....');
      head.writeUInt32BE(Buffer.byteLength(value), 1);
      parts.push(head, Buffer.from(value));
    }
  }
  return { buffer: Buffer.concat(parts), range: { offset: 6, count: image.length } };
}

/** The row that frames carry of a change. */
function rowOf([op, table, image]: Step): readonly [op: string, table: string, image: unknown] {
  const shown = image.map((value, column) =>
    table === 2 && column === 1 && typeof value === 'string'
      ? Buffer.from(value.slice(2), 'hex').toString('base64')
      : value,
  );
  return [op, TABLES[table]!, shown];
}

function rowsOf(frames: readonly Stored[]): unknown[] {
  return frames.flatMap(({ payload }) => {
    const { rows, tables: named } = decodeFrame(payload, 'here');
    const indexed = IndexedFrame.open(Buffer.from(payload), 'here');
    expect(rows.map((_, row) => indexed.row(row))).toEqual(rows);
    return rows.map(([op, table, after, , before]: RowChange) => [op, named[table]!.name, after ?? before]);
  });
}

const odd = fc.oneof(
  fc.string({ unit: fc.constantFrom('\\', 'N', '.', '\n', '\t', '\r', '\b', '\v', '"', '\u0001', 'ü', '🚚', 'abc') }),
  fc.constant('x'.repeat(40)),
);
const id = fc.nat({ max: 50 }).map(String);
const some = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(fc.constant('i' as const), fc.nat({ max: 1 }), fc.tuple(id, fc.option(odd))) },
  {
    weight: 2,
    arbitrary: fc.tuple(fc.constantFrom('u' as const, 'd' as const), fc.nat({ max: 1 }), fc.tuple(id, odd)),
  },
  { weight: 1, arbitrary: fc.tuple(fc.constant('i' as const), fc.constant(2), fc.constant(['1', '\\xff00'])) },
  { weight: 1, arbitrary: fc.tuple(fc.constant('i' as const), fc.constant(0), fc.constant(['1', 0])) },
  { weight: 1, arbitrary: fc.tuple(fc.constant('relation' as const), fc.nat({ max: 1 }), fc.constant([])) },
) as fc.Arbitrary<Step>;
/** Very many inserts into one table, with texts that differ. */
const many = fc
  .tuple(fc.nat({ max: HIDDEN }), fc.integer({ min: LEAST_INSERTS - 100, max: LEAST_INSERTS + 400 }), odd)
  .map(([table, count, text]) =>
    Array.from({ length: count }, (_, row): Step => [
      'i',
      table,
      [`${row}`, table === 2 ? '\\x01' : row % 9 === 0 ? null : `${text}${row % 3}`],
    ]),
  );
const transaction = fc
  .array(fc.oneof(many, fc.array(some, { maxLength: 8 })), { minLength: 1, maxLength: 4 })
  .map((parts) => parts.flat());

describe('rows of large transactions', () => {
  it('are what the source said, in its order, whether or not they stand as lines', () => {
    fc.assert(
      fc.property(fc.array(transaction, { minLength: 1, maxLength: 3 }), fc.nat(), (transactions, place) => {
        const wanted = transactions.flat().filter(([op, table]) => op !== 'relation' && table !== HIDDEN);
        const { frames } = new Source(pgPosition(0n)).send(transactions);
        const rows = rowsOf(frames);
        expect(rows).toEqual(wanted.map(rowOf));
        for (const [index, frame] of frames.entries()) {
          if (index > 0) expect(formatPosition(frame.start)).toBe(formatPosition(frames[index - 1]!.end));
          if (frame.version === 2) expectLinesAlone(frame);
        }
        // From the end of any frame on the rest is published, and nothing else.
        const kept = frames.length === 0 ? 0 : place % frames.length;
        const resume = kept === 0 ? pgPosition(0n) : frames[kept - 1]!.end;
        const again = new Source(resume).send(transactions).frames;
        expect([...rowsOf(frames.slice(0, kept)), ...rowsOf(again)]).toEqual(rows);
        expect(again.every(({ end }) => comparePositions(end, resume) !== -1)).toBe(true);
      }),
      { numRuns: 25 },
    );
  });

  it('stand as lines once very many were inserted into one table', () => {
    const inserts = Array.from({ length: 3000 }, (_, row): Step => ['i', 0, [`${row}`, 'note']]);
    const small: Step[] = [['i', 1, ['1', 'a']]];
    const { frames } = new Source(pgPosition(0n)).send([inserts, small]);
    const lines = frames.filter(({ version }) => version === 2);
    const rows = lines.reduce((sum, { payload }) => sum + decodeFrame(payload, 'here').rows.length, 0);
    expect(rows).toBeGreaterThan(3000 - LEAST_INSERTS - 300);
    expect(frames.at(-1)!.version).toBe(1);
  });

  it('never stand as lines where a value is not written as the source prints it', () => {
    const inserts = Array.from({ length: 3000 }, (_, row): Step => ['i', 2, [`${row}`, '\\x00']]);
    const { frames } = new Source(pgPosition(0n)).send([inserts]);
    expect(frames.every(({ version }) => version === 1)).toBe(true);
  });
});

/** Whoever reads a frame with lines need not take them apart for the sake of other rows; one that lacks a value aside. */
function expectLinesAlone({ payload }: Stored): void {
  const frame = IndexedFrame.open(Buffer.from(payload), 'here');
  for (let row = 0; row < frame.length; row++) {
    expect(frame.op(row)).toBe('i');
    expect(frame.tableIndex(row)).toBe(0);
  }
}
