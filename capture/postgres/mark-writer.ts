/** Writes marks into the log for tables of which the stream is behind the catalog. */
import type pg from 'pg';
import { hasIdentity, type CapturedTable } from './catalog.ts';
import { emitMark } from './log-marks.ts';
import { ensurePublication, isTableGone, qualifiedName } from './publication.ts';
import { describeMissing, describeProblems, identityProblems } from './replica-identity.ts';
import { markId } from './table-change.ts';
import { isHeld } from './read-tables.ts';
import { sourceError } from './source-error.ts';
import { LOCK_TIMEOUT, markTable } from './table-mark.ts';
import { whyUnreadable } from './unreadable-tables.ts';

/** A table that is not captured. */
export interface LeftOut {
  readonly schema: string;
  readonly name: string;
  readonly reason: string;
}

export interface MarkWriterOptions {
  readonly client: pg.Client;
  readonly publication: string;
  readonly markPrefix: string;
  readonly included: (schema: string, name: string) => boolean;
  readonly leftOut: (tables: readonly LeftOut[]) => void;
}

/** Somebody holds the table, and it is looked at again. */
export const HELD = Symbol('held');

export class MarkWriter {
  readonly #o: MarkWriterOptions;
  /** The version of each table that a mark was written for in this session. */
  readonly #marked = new Map<number, string>();

  constructor(options: MarkWriterOptions) {
    this.#o = options;
  }

  /** Has a mark written for a table again, though there was one for the same version. */
  forget(oid: number): void {
    this.#marked.delete(oid);
  }

  /**
   * `newer` has tables as they are in the catalog, and undefined for those that are gone; `tables` are as the stream has them.
   * `withdrawn` are left out, too. False when a table could not be marked: it changed again, or is in use.
   */
  async write(
    newer: ReadonlyMap<number, CapturedTable | undefined>,
    tables: ReadonlyMap<number, CapturedTable>,
    withdrawn: readonly LeftOut[] = [],
  ): Promise<boolean> {
    const { included, client, leftOut } = this.#o;
    let isDone = true;
    const without: LeftOut[] = [...withdrawn];
    // What went first: another table may have its name by now.
    const inOrder = [...newer].sort(([, a], [, b]) => Number(a !== undefined) - Number(b !== undefined));
    for (const [oid, table] of inOrder) {
      const known = tables.get(oid);
      const where = table?.schema;
      if (where !== undefined && included(where.schema, where.name)) {
        if (this.#marked.get(oid) === markId(table!)) continue;
        if (known === undefined && !hasIdentity(where)) {
          // Publishing it would make its updates fail at the source.
          without.push({ schema: where.schema, name: where.name, reason: describeMissing(table!) });
          continue;
        }
        const refused = known === undefined ? await this.publish(table!) : undefined;
        if (refused === HELD) isDone = false;
        else if (refused !== undefined) without.push({ schema: where.schema, name: where.name, reason: refused });
        else {
          const marked = await markTable(client, this.#o.markPrefix, table!);
          if (marked === true) this.#marked.set(oid, markId(table!));
          else if (marked === false) isDone = false;
          else {
            // Looked at again each time, until the right is there.
            const why = (await whyUnreadable(client, table!)) ?? 'this user may not read it';
            without.push({ schema: where.schema, name: where.name, reason: why });
          }
        }
      } else if (known !== undefined && this.#marked.get(oid) !== 'gone') {
        const why =
          where === undefined ? 'dropped' : `renamed to ${where.schema}.${where.name}, which is not among the tables`;
        await emitMark(client, this.#o.markPrefix, { k: 'gone', oid, why });
        this.#marked.set(oid, 'gone');
      }
    }
    leftOut(without);
    return isDone;
  }

  /** Adds a table to the publication. Why it cannot be captured, or `HELD`. */
  async publish(table: CapturedTable): Promise<string | typeof HELD | undefined> {
    const { client, publication } = this.#o;
    try {
      const problems = await identityProblems(client, publication, [table]);
      if (problems.length > 0) return `${describeProblems(problems)}; run: ${problems.map(({ sql }) => sql).join(' ')}`;
      await client.query(`begin; set local lock_timeout = '${LOCK_TIMEOUT}'`);
      await ensurePublication(client, publication, [table]);
      await client.query('commit');
      return undefined;
    } catch (thrown) {
      await client.query('rollback').catch(() => undefined);
      if (isHeld(thrown)) return HELD;
      // The next look sees that it is gone.
      if (isTableGone(thrown)) return undefined;
      const error = sourceError(thrown, `publishing ${qualifiedName(table.schema)}`);
      if (error.code !== 'source_publication') throw error;
      return error.message;
    }
  }
}
