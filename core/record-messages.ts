/** Where records stand as messages of their own: one subject for each record, and the newest message on it is the record. */

/** The name under which the fan-out of a flow of records holds its lease and tells of itself. */
export function fanOutName(flow: string): string {
  return `${flow}.fanout`;
}

export function recordsStreamName(prefix: string, entity: string): string {
  return `${prefix}_records_${entity}`;
}

/** Subject of the message that says how far the records have come; those of records lie below it. */
export function recordsSubject(prefix: string, entity: string): string {
  return `${prefix}.records.${entity}`;
}

/** Subject of the record that has this tenant and key. */
export function recordSubject(prefix: string, entity: string, key: readonly string[]): string {
  return [recordsSubject(prefix, entity), ...key.map(subjectToken)].join('.');
}

/**
 * A text as a token of a subject: letters, digits, `_` and `-` stand for themselves, all other bytes of its UTF-8 as `%2F`;
 * a token cannot be empty, and an empty text is `%`.
 */
function subjectToken(text: string): string {
  if (text === '') return '%';
  return [...Buffer.from(text)]
    .map((byte) => {
      const char = String.fromCharCode(byte);
      return /[\w-]/.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
    })
    .join('');
}

/** `put` or `delete`, in the header of each message of a record. */
export const RECORD_OP = 'Waybill-Op';
