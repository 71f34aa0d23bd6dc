/** A record of a frame as a message: its subject, and its columns as JSON. */
import type { TableSchema, Value } from '../../core/frame.ts';
import { recordSubject } from '../../core/record-messages.ts';

/** Types whose texts are JSON already. All others are strings: numbers among them, which may be longer than a double. */
const AS_JSON = new Set(['jsonb', 'json', 'boolean']);

/** How the rows of one version of a table become messages. */
export class RecordForm {
  readonly #prefix: string;
  readonly #entity: string;
  readonly #key: readonly number[];
  readonly #columns: readonly { readonly head: string; readonly json: boolean }[];

  constructor(prefix: string, { name, key, columns }: TableSchema) {
    this.#prefix = prefix;
    this.#entity = name;
    this.#key = key.map((column) => columns.findIndex((each) => each.name === column));
    this.#columns = columns.map((column) => ({
      head: `${JSON.stringify(column.name)}:`,
      json: AS_JSON.has(column.portable),
    }));
  }

  subject(image: readonly Value[]): string {
    return recordSubject(
      this.#prefix,
      this.#entity,
      this.#key.map((index) => textOf(image[index]) ?? ''),
    );
  }

  payload(image: readonly Value[]): string {
    const members = this.#columns.map(({ head, json }, index) => {
      const text = textOf(image[index]);
      if (text === null) return `${head}null`;
      return head + (json ? jsonOf(text) : JSON.stringify(text));
    });
    return `{${members.join(',')}}`;
  }
}

function textOf(value: Value | undefined): string | null {
  return typeof value === 'string' ? value : null;
}

/** Booleans are written as `t` and `f` by some. */
function jsonOf(text: string): string {
  if (text === 't') return 'true';
  return text === 'f' ? 'false' : text;
}
