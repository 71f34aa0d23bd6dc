import { expect, test } from 'vitest';
import { classifyMysqlTypeChange, plainMysqlType } from '../../core/mysql-type-widening.ts';

test.each([
  ['int(11)', 'int', 'same'],
  ['bigint(20) unsigned', 'bigint unsigned', 'same'],
  ['datetime(0)', 'datetime', 'same'],
  ['smallint', 'int', 'rewritten'],
  ['int', 'smallint', 'narrower'],
  ['int unsigned', 'bigint', 'rewritten'],
  ['int', 'bigint unsigned', 'narrower'],
  ['bigint unsigned', 'bigint', 'narrower'],
  ['bigint', 'decimal(65,30)', 'rewritten'],
  ['int', 'decimal(8,2)', 'narrower'],
  ['int', 'double', 'rewritten'],
  ['bigint', 'double', 'narrower'],
  ['decimal(8,2)', 'decimal(12,2)', 'rewritten'],
  ['decimal(8,2)', 'decimal(9,4)', 'narrower'],
  ['varchar(10)', 'varchar(30)', 'rewritten'],
  ['varchar(30)', 'varchar(10)', 'narrower'],
  ['varchar(30)', 'longtext', 'rewritten'],
  ['varchar(100)', 'tinytext', 'narrower'],
  ['text', 'mediumtext', 'rewritten'],
  ['longtext', 'text', 'narrower'],
  ['varbinary(10)', 'blob', 'rewritten'],
  ['varchar(10)', 'blob', 'narrower'],
  ['binary(4)', 'binary(8)', 'narrower'],
  ["enum('a','b')", "enum('a','b','c')", 'rewritten'],
  ["enum('a','b')", "enum('b','a')", 'narrower'],
  ["enum('a','bcd')", 'varchar(3)', 'rewritten'],
  ["enum('a','bcd')", 'varchar(2)', 'narrower'],
  ['date', 'datetime(6)', 'rewritten'],
  ['datetime', 'date', 'narrower'],
  ['datetime', 'timestamp', 'narrower'],
  ['timestamp(3)', 'datetime(3)', 'rewritten'],
  ['time(3)', 'time', 'narrower'],
  ['float', 'double', 'rewritten'],
  ['bit(4)', 'bit(8)', 'rewritten'],
  ['json', 'longtext', 'rewritten'],
  ['point', 'geometry', 'narrower'],
])('%s to %s: %s', (from, to, change) => {
  expect(classifyMysqlTypeChange(from, to)).toBe(change);
});

test('display widths and comments say nothing of values, labels do', () => {
  expect(plainMysqlType('varchar(200) /*M!100301 COMPRESSED*/')).toBe('varchar(200)');
  expect(plainMysqlType("enum('A')")).toBe("enum('A')");
});
