/** Texts of MariaDB's uuid, inet4 and inet6 from their stored bytes, as the server prints them. */
import { formatUuid } from '../../core/mysql-gtid-set.ts';

/** 16 bytes as stored. */
export function uuidText(bytes: Buffer): string {
  return formatUuid(bytes, 0);
}

export function inet4Text(bytes: Buffer): string {
  return bytes.join('.');
}

/** Sixteen bytes: the longest run of zero groups shortened, IPv4 notation for mapped and compatible addresses. */
export function inet6Text(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(i * 2));
  let [start, length] = [-1, 0];
  for (let i = 0; i < 8;) {
    let n = i;
    while (n < 8 && groups[n] === 0) n += 1;
    if (n - i > length) [start, length] = [i, n - i];
    i = n + 1;
  }
  let text = '';
  for (let i = 0; i < 8; i++) {
    if (i === start) {
      text += '::';
      i += length - 1;
      continue;
    }
    if (text !== '' && !text.endsWith(':')) text += ':';
    // ::a.b.c.d and ::ffff:a.b.c.d
    if (i === 6 && start === 0 && (length === 6 || (length === 5 && groups[5] === 0xffff)))
      return text + inet4Text(bytes.subarray(12));
    text += groups[i]!.toString(16);
  }
  return text;
}
