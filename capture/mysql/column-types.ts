/** Type codes of columns in TABLE_MAP events (`enum_field_types`), and how many bytes their values take. */

export const TYPE = {
  tiny: 1,
  short: 2,
  long: 3,
  float: 4,
  double: 5,
  null: 6,
  timestamp: 7,
  longlong: 8,
  int24: 9,
  date: 10,
  time: 11,
  datetime: 12,
  year: 13,
  varchar: 15,
  bit: 16,
  timestamp2: 17,
  datetime2: 18,
  time2: 19,
  typedArray: 20,
  /** MariaDB, columns with the attribute COMPRESSED. */
  blobCompressed: 140,
  varcharCompressed: 141,
  vector: 242,
  json: 245,
  newdecimal: 246,
  enum: 247,
  set: 248,
  tinyBlob: 249,
  mediumBlob: 250,
  longBlob: 251,
  blob: 252,
  varString: 253,
  string: 254,
  geometry: 255,
} as const;

/** Collation id of binary strings. */
export const BINARY_COLLATION = 63;

/** Bytes of type-specific metadata for a type code in a TABLE_MAP event; undefined for an unknown type. */
export function metadataBytes(type: number): number | undefined {
  switch (type) {
    case TYPE.tiny:
    case TYPE.short:
    case TYPE.long:
    case TYPE.longlong:
    case TYPE.int24:
    case TYPE.null:
    case TYPE.timestamp:
    case TYPE.date:
    case TYPE.time:
    case TYPE.datetime:
    case TYPE.year:
      return 0;
    case TYPE.float:
    case TYPE.double:
    case TYPE.timestamp2:
    case TYPE.datetime2:
    case TYPE.time2:
    case TYPE.blob:
    case TYPE.tinyBlob:
    case TYPE.mediumBlob:
    case TYPE.longBlob:
    case TYPE.blobCompressed:
    case TYPE.vector:
    case TYPE.json:
    case TYPE.geometry:
      return 1;
    case TYPE.varchar:
    case TYPE.varString:
    case TYPE.varcharCompressed:
    case TYPE.bit:
    case TYPE.newdecimal:
    case TYPE.string:
    case TYPE.enum:
    case TYPE.set:
      return 2;
    default:
      return undefined;
  }
}

/** Types that the signedness bitmap counts. */
export function isNumeric(type: number): boolean {
  switch (type) {
    case TYPE.tiny:
    case TYPE.short:
    case TYPE.int24:
    case TYPE.long:
    case TYPE.longlong:
    case TYPE.newdecimal:
    case TYPE.float:
    case TYPE.double:
    case TYPE.year:
      return true;
    default:
      return false;
  }
}

/** Types that the list of character sets counts on every server; VECTOR and GEOMETRY come on top on some. */
export function isCharacter(type: number): boolean {
  switch (type) {
    case TYPE.string:
    case TYPE.varString:
    case TYPE.varchar:
    case TYPE.blob:
    case TYPE.tinyBlob:
    case TYPE.mediumBlob:
    case TYPE.longBlob:
    case TYPE.blobCompressed:
    case TYPE.varcharCompressed:
      return true;
    default:
      return false;
  }
}
