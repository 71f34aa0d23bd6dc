/**
 * TABLE_MAP events: what the log says of a table's shape (mysql-server `Table_map_event`, with the optional metadata
 * of `binlog_row_metadata=FULL`).
 */
import { ReplicationError } from '../../core/errors.ts';
import type { Flavour } from './binlog-handler.ts';
import { ByteReader } from './byte-reader.ts';
import { decodeText, type Charsets } from './charset.ts';
import { BINARY_COLLATION, isCharacter, isNumeric, metadataBytes, TYPE } from './column-types.ts';

/**
 * What `information_schema` knows and the log does not say: what a column of MariaDB really is; or `omit`: it is left
 * out of what is written. Generated columns must be on MariaDB, whose log has them in inserts and, since 11.8, not in
 * updates and deletes.
 */
export type ColumnHint = 'uuid' | 'inet4' | 'inet6' | 'omit';

export interface BinlogColumn {
  /** '' when the log carries no names (`binlog_row_metadata` is not FULL). */
  readonly name: string;
  /** Type code of the log, the real one of STRING columns (enum 247, set 248, char 254) resolved. */
  readonly type: number;
  /**
   * Type-specific metadata: bytes of the length (blob, json, geometry, vector), of the longest value (char, varchar),
   * of the value (enum, set), precision << 8 | scale (decimal), fractional digits (time2, …), number of bits (bit).
   */
  readonly meta: number;
  readonly unsigned: boolean;
  readonly nullable: boolean;
  /** Collation id of character columns, enums and sets; 63 is binary; undefined where the log gives none. */
  readonly collation: number | undefined;
  /** Bytes of the longest character of its character set; 1 where there is none. */
  readonly characterBytes: number;
  /** Labels of an enum or set. */
  readonly labels: readonly string[] | undefined;
  /** False for invisible columns (MySQL). */
  readonly visible: boolean;
}

export interface TableMap {
  readonly id: number;
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly BinlogColumn[];
  /** Positions of the primary key's columns, in key order; empty where there is none or the log does not say. */
  readonly primaryKey: readonly number[];
  /** Whether names, character sets and labels are given: `binlog_row_metadata=FULL`. Rows of others cannot be written. */
  readonly fullMetadata: boolean;
  /** What columns really are, by position. */
  readonly hints: ReadonlyMap<number, ColumnHint>;
  /** Says what a column really is; call before its rows are written. */
  hint(index: number, hint: ColumnHint): void;
}

type Draft = { -readonly [K in keyof BinlogColumn]: BinlogColumn[K] };

/** Bytes in front of the schema's name: table id and flags. */
const ID_BYTES = 6;
const FLAG_BYTES = 2;

const META = {
  signedness: 1,
  defaultCharset: 2,
  columnCharset: 3,
  columnName: 4,
  setLabels: 5,
  enumLabels: 6,
  geometryType: 7,
  simplePrimaryKey: 8,
  primaryKeyWithPrefix: 9,
  enumAndSetDefaultCharset: 10,
  enumAndSetColumnCharset: 11,
  visibility: 12,
  vectorDimensions: 13,
} as const;

/** MariaDB Knowledge Base, "Sequence Overview": what a sequence is as a table. */
const SEQUENCE_COLUMNS =
  'next_not_cached_value,minimum_value,maximum_value,start_value,increment,cache_size,cycle_option,cycle_count';

/** Whether a map of MariaDB is one of a sequence, of whose kind the log says nothing. */
export function hasColumnsOfSequence({ columns, primaryKey }: TableMap): boolean {
  return primaryKey.length === 0 && columns.map(({ name }) => name).join(',') === SEQUENCE_COLUMNS;
}

/** The table id that a TABLE_MAP or rows event starts with. */
export function readTableId(buffer: Buffer, start: number): number {
  return buffer.readUIntLE(start, ID_BYTES);
}

/** Decodes the body of a TABLE_MAP event in `buffer[start, end)`. Throws `source_protocol`. */
export function decodeTableMap(
  buffer: Buffer,
  start: number,
  end: number,
  flavour: Flavour,
  charsets: Charsets,
): TableMap {
  const reader = new ByteReader(buffer, start, end, 'a TABLE_MAP event');
  const id = reader.uint(ID_BYTES);
  reader.skip(FLAG_BYTES);
  const schema = reader.text(reader.uint8());
  reader.skip(1);
  const name = reader.text(reader.lengthEncoded());
  reader.skip(1);
  const columns = readColumns(reader, `${schema}.${name}`);
  const more = new OptionalMetadata(columns, `${schema}.${name}`, flavour, charsets);
  while (reader.left > 0) more.read(reader);
  more.finish();
  const hints = new Map<number, ColumnHint>();
  return {
    id,
    schema,
    name,
    columns,
    primaryKey: more.primaryKey,
    fullMetadata: more.named,
    hints,
    hint: (index, hint) => hints.set(index, hint),
  };
}

function readColumns(reader: ByteReader, table: string): Draft[] {
  const types = reader.bytes(reader.lengthEncoded());
  const metadata = new ByteReader(reader.buffer, reader.at, reader.end, `the metadata of ${table}`);
  const metadataLength = metadata.lengthEncoded();
  const metadataEnd = metadata.at + metadataLength;
  const columns: Draft[] = [];
  for (const [index, code] of types.entries()) {
    const column: Draft = {
      name: '',
      type: code,
      meta: 0,
      unsigned: false,
      nullable: false,
      collation: undefined,
      characterBytes: 1,
      labels: undefined,
      visible: true,
    };
    readMetadata(metadata, column, table, index);
    columns.push(column);
  }
  if (metadata.at !== metadataEnd)
    throw new ReplicationError(
      'source_protocol',
      `the metadata of ${table} has ${metadataLength} bytes, ${metadata.at - metadataEnd} more than known`,
    );
  reader.skip(metadataEnd - reader.at);
  const nulls = reader.bytes((columns.length + 7) >> 3);
  for (const [index, column] of columns.entries()) column.nullable = ((nulls[index >> 3]! >> (index & 7)) & 1) === 1;
  return columns;
}

function readMetadata(reader: ByteReader, column: Draft, table: string, index: number): void {
  const bytes = metadataBytes(column.type);
  if (bytes === undefined)
    // Invariant 7: the rows of such a table could not even be stepped over.
    throw new ReplicationError('source_protocol', `column ${index + 1} of ${table} has unknown type ${column.type}`);
  if (bytes === 0) return;
  if (bytes === 1) {
    column.meta = reader.uint8();
    return;
  }
  const first = reader.uint8();
  const second = reader.uint8();
  switch (column.type) {
    case TYPE.string:
      // The two high bits of a length above 255 hide, inverted, in the type that comes first.
      if ((first & 0x30) !== 0x30) {
        column.type = first | 0x30;
        column.meta = second | (((first & 0x30) ^ 0x30) << 4);
      } else {
        column.type = first;
        column.meta = second;
      }
      break;
    case TYPE.bit:
      column.meta = second * 8 + first;
      break;
    case TYPE.newdecimal:
      column.meta = (first << 8) | second;
      break;
    case TYPE.enum:
    case TYPE.set:
      column.meta = second;
      break;
    default:
      column.meta = first | (second << 8);
  }
}

/** The optional metadata, field by field; lists are for those columns only that they are about. */
class OptionalMetadata {
  readonly #columns: Draft[];
  readonly #table: string;
  readonly #flavour: Flavour;
  readonly #charsets: Charsets;
  #labels: { columns: Draft[]; bytes: Buffer[][] }[] = [];
  primaryKey: number[] = [];
  named = false;

  constructor(columns: Draft[], table: string, flavour: Flavour, charsets: Charsets) {
    this.#columns = columns;
    this.#table = table;
    this.#flavour = flavour;
    this.#charsets = charsets;
  }

  read(reader: ByteReader): void {
    const kind = reader.uint8();
    const length = reader.lengthEncoded();
    const start = reader.skip(length);
    const field = new ByteReader(
      reader.buffer,
      start,
      start + length,
      `field ${kind} of the metadata of ${this.#table}`,
    );
    switch (kind) {
      case META.signedness:
        return this.#signedness(field);
      case META.defaultCharset:
        return this.#defaultCharset(field, this.#characterColumns());
      case META.columnCharset:
        return this.#columnCharset(field);
      case META.columnName:
        for (const column of this.#columns) column.name = field.text(field.lengthEncoded());
        this.named = true;
        return;
      case META.setLabels:
      case META.enumLabels:
        return this.#readLabels(field, kind === META.setLabels ? TYPE.set : TYPE.enum);
      case META.simplePrimaryKey:
        while (field.left > 0) this.primaryKey.push(field.lengthEncoded());
        return;
      case META.primaryKeyWithPrefix:
        while (field.left > 0) {
          this.primaryKey.push(field.lengthEncoded());
          field.lengthEncoded();
        }
        return;
      case META.enumAndSetDefaultCharset:
        return this.#defaultCharset(field, this.#labelled());
      case META.enumAndSetColumnCharset:
        for (const column of this.#labelled()) column.collation = field.lengthEncoded();
        return;
      case META.visibility:
        for (const [index, column] of this.#columns.entries())
          column.visible = ((field.buffer[field.at + (index >> 3)]! >> (7 - (index & 7))) & 1) === 1;
        return;
      case META.geometryType:
      case META.vectorDimensions:
        return;
      default:
      // Fields that only later servers know describe the table further; none changes how rows are stored.
    }
  }

  #signedness(field: ByteReader): void {
    let bit = 0;
    for (const column of this.#columns) {
      if (!isNumeric(column.type)) continue;
      column.unsigned = ((field.buffer[field.at + (bit >> 3)]! >> (7 - (bit & 7))) & 1) === 1;
      bit += 1;
    }
  }

  #labelled(): Draft[] {
    return this.#columns.filter(({ type }) => type === TYPE.enum || type === TYPE.set);
  }

  #characterColumns(): Draft[] {
    const extra = this.#flavour === 'mysql' ? TYPE.vector : TYPE.geometry;
    return this.#columns.filter(({ type }) => isCharacter(type) || type === extra);
  }

  #defaultCharset(field: ByteReader, columns: Draft[]): void {
    const collation = field.lengthEncoded();
    for (const column of columns) column.collation = collation;
    while (field.left > 0) {
      const column = columns[field.lengthEncoded()];
      if (column === undefined) throw this.#mismatch();
      column.collation = field.lengthEncoded();
    }
  }

  #columnCharset(field: ByteReader): void {
    for (const column of this.#characterColumns()) column.collation = field.lengthEncoded();
    if (field.left > 0) throw this.#mismatch();
  }

  #mismatch(): ReplicationError {
    return new ReplicationError(
      'source_protocol',
      `the log's list of character sets of ${this.#table} does not fit its columns`,
    );
  }

  #readLabels(field: ByteReader, type: number): void {
    const columns = this.#columns.filter((column) => column.type === type);
    const bytes = columns.map(() => {
      const labels: Buffer[] = [];
      for (let n = field.lengthEncoded(); n > 0; n--) labels.push(Buffer.from(field.bytes(field.lengthEncoded())));
      return labels;
    });
    this.#labels.push({ columns, bytes });
  }

  /** Labels are in the character set of their column, which may come after them. */
  finish(): void {
    for (const column of this.#columns)
      if (column.collation !== undefined) column.characterBytes = this.#charsets.mostBytes(column.collation);
    for (const { columns, bytes } of this.#labels)
      for (const [index, column] of columns.entries()) {
        const charset = this.#charsets.of(
          column.collation ?? BINARY_COLLATION,
          `column ${column.name} of ${this.#table}`,
        );
        column.labels = bytes[index]!.map((label) => decodeText(charset, label));
      }
  }
}
