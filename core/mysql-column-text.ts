/**
 * The canonical text of every column type of MySQL and MariaDB, as frames carry it, and the SQL by which the server
 * itself prints it: snapshot and log have one encoding (and the oracle tests compare the two).
 *
 * The session that runs the SQL has `time_zone = '+00:00'`, `character_set_results = utf8mb4`.
 *
 * | Type                                    | Text                                                                    |
 * | --------------------------------------- | ----------------------------------------------------------------------- |
 * | tinyint … bigint, unsigned, bool        | digits, `-` in front; no leading zeros (also with ZEROFILL)             |
 * | decimal                                 | all digits of its scale: `12.50`                                        |
 * | double                                  | shortest text that reads back as the same value, as the server: `1e20`  |
 * | float                                   | up to six digits where they read back as the same float; else the value as a double |
 * | bit(n)                                  | n binary digits                                                         |
 * | year                                    | four digits, `0000` for the zero year                                   |
 * | date                                    | `2024-02-29`, zero and partial dates as stored: `0000-00-00`            |
 * | time(p)                                 | `[-]hh:mm:ss[.f]`, hours up to 838, exactly p fractional digits         |
 * | datetime(p)                             | `2024-02-29 23:59:59[.f]`                                               |
 * | timestamp(p)                            | the same, in UTC; zero as `0000-00-00 00:00:00`                         |
 * | char, varchar, text                     | UTF-8, char without trailing spaces                                     |
 * | enum, set                               | label, labels joined by commas; `''` for the error value                |
 * | binary, varbinary, blob, vector         | base64; binary(n) padded to n bytes                                     |
 * | geometry                                | base64 of the stored bytes: SRID (4 bytes, little-endian) and WKB       |
 * | json (MySQL)                            | as the server prints it                                                 |
 * | json (MariaDB)                          | it is text there: as stored                                             |
 * | uuid, inet4, inet6 (MariaDB)            | as the server prints them                                               |
 */
/** The two servers that speak the MySQL protocol; their texts differ. */
export type Flavour = 'mysql' | 'mariadb';

/** What the SQL depends on, from information_schema.COLUMNS. */
export interface CatalogColumn {
  readonly name: string;
  /** DATA_TYPE, lower case: `int`, `varchar`, … */
  readonly dataType: string;
  /** COLUMN_TYPE: `int(10) unsigned zerofill`, `bit(5)`, … */
  readonly columnType: string;
}

/** The SQL expression that gives a column's canonical text (or NULL). */
export function columnTextSql(column: CatalogColumn, flavour: Flavour): string {
  const name = `\`${column.name.replaceAll('`', '``')}\``;
  switch (column.dataType) {
    case 'tinyint':
    case 'smallint':
    case 'mediumint':
    case 'int':
    case 'bigint':
    case 'decimal':
      // The text of a ZEROFILL column is padded; its value plus nought is not.
      return /zerofill/i.test(column.columnType) ? `CAST(${name} + 0 AS CHAR)` : `CAST(${name} AS CHAR)`;
    case 'double':
      return doubleSql(name, flavour);
    case 'float': {
      // Multiplied by one a column loses the fixed number of decimals that FLOAT(m,d) has.
      const six = `CAST(CAST(${name} * 1e0 AS FLOAT) AS CHAR)`;
      return `IF(CAST(${six} AS FLOAT) = ${name}, ${doubleSql(`${six} * 1e0`, flavour)}, ${doubleSql(name, flavour)})`;
    }
    case 'bit':
      return `LPAD(BIN(${name} + 0), ${/\((\d+)\)/.exec(column.columnType)?.[1] ?? '1'}, '0')`;
    case 'binary':
    case 'varbinary':
    case 'tinyblob':
    case 'blob':
    case 'mediumblob':
    case 'longblob':
    case 'vector':
    case 'geometry':
    case 'point':
    case 'linestring':
    case 'polygon':
    case 'multipoint':
    case 'multilinestring':
    case 'multipolygon':
    case 'geometrycollection':
    case 'geomcollection':
      return `REPLACE(TO_BASE64(${name}), CHAR(10 USING utf8mb4), '')`;
    case 'json':
      return flavour === 'mysql' ? `CAST(${name} AS CHAR)` : `CONVERT(${name} USING utf8mb4)`;
    case 'char':
    case 'varchar':
    case 'tinytext':
    case 'text':
    case 'mediumtext':
    case 'longtext':
    case 'enum':
    case 'set':
      return `CONVERT(${name} USING utf8mb4)`;
    default:
      return `CAST(${name} AS CHAR)`;
  }
}

/**
 * All digits of a double, in the one form of both servers. MySQL cuts a double that it casts to text down to 22
 * characters; as JSON it is whole, with `.0` behind an integer.
 */
function doubleSql(value: string, flavour: Flavour): string {
  return flavour === 'mysql'
    ? `TRIM(TRAILING '.0' FROM CAST(CAST(${value} AS JSON) AS CHAR))`
    : `CONCAT(${value} * 1e0, '')`;
}
