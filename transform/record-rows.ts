/** Records, and what is held, as the rows of frames. */
import { hash } from 'node:crypto';
import type { FrameWriter } from '../core/frame-writer.ts';
import type { Op, TableSchema, Value } from '../core/frame.ts';
import { CANONICAL_SCHEMA, canonicalTableSchema, lineageValues, type Lineage } from './canonical/envelope.ts';
import type { Entity, RecordValues } from './canonical/entity.ts';
import { describeViolation } from './canonical/validate.ts';
import type { GroupOrigin, GroupSaying, HeldGroup } from './ownership/resolved.ts';

/** The quarantine of a target, as far as what a mapping holds is written there. One row for each group of a key. */
const HELD_TABLE: TableSchema = {
  schema: 'waybill',
  name: 'quarantine',
  version: 'held/1',
  identity: 'default',
  key: ['flow', 'hold'],
  columns: [
    ['flow', 'text'],
    ['hold', 'text'],
    ['source', 'text'],
    ['table_schema', 'text'],
    ['table_name', 'text'],
    ['key', 'text'],
    ['position', 'text'],
    ['ordinal', 'integer'],
    ['op', 'text'],
    ['reason', 'text'],
    ['message', 'text'],
    ['change', 'jsonb'],
  ].map(([name, type]) => ({ name: name!, type: type!, portable: type!, notNull: true })),
};

/** Reasons of what is held, as the quarantine names them. */
export type HeldReason = 'mapping' | 'record';

export class RecordRows {
  readonly #flow: string;
  readonly #entity: Entity;
  readonly #tenant: string;
  readonly #table: TableSchema;
  /** The image of a record, filled for each that is written. */
  readonly #image: Value[];

  constructor(flow: string, entity: Entity, tenant: string) {
    this.#flow = flow;
    this.#entity = entity;
    this.#tenant = tenant;
    this.#table = canonicalTableSchema(entity);
    this.#image = this.#table.columns.map(() => null);
    this.#image[0] = tenant;
  }

  /** Writes a record that is new, changed or (`r`) written anew. `groups` is the JSON of its lineage by group. */
  put(writer: FrameWriter, op: 'i' | 'u' | 'r', values: RecordValues, lineage: Lineage, groups: string | null): void {
    writer.beginRow(op, this.#table);
    const image = this.#image;
    for (let i = 0; i < values.length; i++) image[i + 1] = values[i]!;
    const from = values.length + 1;
    const told = lineageValues(this.#entity, lineage, groups);
    for (let i = 0; i < told.length; i++) image[from + i] = told[i]!;
    writer.writeImage(image);
    writer.endRow();
  }

  /** Writes that a record is gone. */
  remove(writer: FrameWriter, values: RecordValues): void {
    const image: Value[] = this.#table.columns.map(() => null);
    image[0] = this.#tenant;
    for (const index of this.#entity.keyIndexes) image[index + 1] = values[index]!;
    this.#delete(writer, this.#table, image);
  }

  /** Writes what is held under an id, or that nothing is any more. */
  hold(writer: FrameWriter, id: string, held: HeldGroup | undefined): void {
    const name = hash('sha256', id, 'hex');
    if (held === undefined) {
      const image: Value[] = HELD_TABLE.columns.map(() => null);
      image[0] = this.#flow;
      image[1] = name;
      this.#delete(writer, HELD_TABLE, image);
      return;
    }
    const { source, key, group, violations, lineage, content } = held;
    const change = {
      group,
      rules: violations.map(({ field, rule, valueClass }) => ({ field, rule, value: valueClass })),
      lineage,
    };
    // The row is JSON already.
    const text = `${JSON.stringify(change).slice(0, -1)},"row":${content ?? 'null'}}`;
    writer.beginRow('i', HELD_TABLE);
    writer.writeImage([
      this.#flow,
      name,
      source,
      CANONICAL_SCHEMA,
      this.#entity.name,
      JSON.stringify([key, group]),
      lineage.position,
      '0',
      'u',
      reasonOf(id),
      violations.map(describeViolation).join('; '),
      text,
    ]);
    writer.endRow();
  }

  /** Writes the marks between which all records, and all that is held, are written anew. */
  marks(writer: FrameWriter, id: string, mark: 'begin' | 'end'): void {
    this.#mark(writer, this.#table, id, mark);
    this.heldMark(writer, id, mark);
  }

  /** The same for what is held alone. */
  heldMark(writer: FrameWriter, id: string, mark: 'begin' | 'end'): void {
    this.#mark(writer, HELD_TABLE, id, mark);
  }

  #mark(writer: FrameWriter, table: TableSchema, id: string, mark: string): void {
    writer.beginRow('s', table);
    writer.writeImage([id, mark]);
    writer.endRow();
  }

  #delete(writer: FrameWriter, table: TableSchema, image: readonly Value[]): void {
    writer.beginRow('d' satisfies Op, table);
    writer.writeNull();
    writer.before('k');
    writer.writeImage(image);
    writer.endRow();
  }
}

/** Whether one contribution breaks a rule, or the record that several make together. */
export function reasonOf(id: string): HeldReason {
  return id.startsWith('record#') ? 'record' : 'mapping';
}

/** Lineage by group and the values that lost, as JSON for the record's column. */
export function groupsJson(origins: readonly GroupOrigin[]): string {
  return JSON.stringify(
    Object.fromEntries(
      origins
        .filter(({ winner, advisory }) => winner !== undefined || advisory.length > 0)
        .map(({ group, winner, block, rule, merged, advisory }) => [
          group,
          {
            rule,
            ...(winner === undefined ? {} : { ...winner, block }),
            ...(merged.length === 0 ? {} : { merged: sayingsJson(merged) }),
            ...(advisory.length === 0 ? {} : { advisory: sayingsJson(advisory) }),
          },
        ]),
    ),
  );
}

function sayingsJson(sayings: readonly GroupSaying[]): unknown[] {
  return [...sayings]
    .sort((a, b) => (a.lineage.source < b.lineage.source ? -1 : 1))
    .map(({ lineage, values }) => ({ ...lineage, values }));
}
