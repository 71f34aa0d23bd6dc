/**
 * Captured tables that lost what tells their rows apart. Postgres refuses updates and deletes of them for as long as they are
 * published: they leave the publication, and are read again when they come back to it.
 */
import type pg from 'pg';
import type { Logger } from '../../core/logger.ts';
import { hasIdentity, type CapturedTable } from './catalog.ts';
import { HELD, type LeftOut, type MarkWriter } from './mark-writer.ts';
import { qualifiedName, quoteIdent } from './publication.ts';
import { isHeld } from './read-tables.ts';
import { describeMissing, describeProblems, identityProblems } from './replica-identity.ts';
import { sourceError } from './source-error.ts';
import { nameOf } from './table-change.ts';
import { LOCK_TIMEOUT } from './table-mark.ts';
import type { TableNotes } from './table-notes.ts';

export interface WithdrawalsOptions {
  readonly client: pg.Client;
  readonly publication: string;
  readonly log: Logger;
  readonly notes: TableNotes;
  readonly marks: MarkWriter;
  /** Has a table read again; stored when it resolves. */
  readonly readAgain: (table: CapturedTable) => Promise<void>;
}

export class Withdrawals {
  readonly #o: WithdrawalsOptions;
  /** The tables that are not captured since the last look. */
  #leftOut: readonly LeftOut[] = [];

  constructor(options: WithdrawalsOptions) {
    this.#o = options;
  }

  get leftOut(): readonly LeftOut[] {
    return this.#leftOut;
  }

  /** Of captured tables as the catalog has them. False where somebody is in the way of one. */
  async look(tables: readonly CapturedTable[]): Promise<boolean> {
    const { client, notes, publication } = this.#o;
    const without: LeftOut[] = [];
    const problems = await identityProblems(client, publication, tables);
    const listed = tables.length === 0 ? new Set<number>() : await this.#listed();
    let isDone = true;
    for (const table of tables) {
      const its = problems.filter(({ root, fails }) => root === table && fails);
      const why = hasIdentity(table.schema)
        ? its.length > 0 && `${describeProblems(its)}; run: ${its.map(({ sql }) => sql).join(' ')}`
        : describeMissing(table);
      if (why === false) {
        if (!notes.withdrawn.has(table.oid)) continue;
        const refused = await this.#bringBack(table);
        if (refused === HELD) isDone = false;
        else if (refused !== undefined) without.push({ ...place(table), reason: refused });
        continue;
      }
      const refused = listed.has(table.oid) ? await this.#withdraw(table, why) : undefined;
      if (refused === HELD) isDone = false;
      without.push({ ...place(table), reason: typeof refused === 'string' ? `${why} ${refused}` : why });
    }
    this.#leftOut = without;
    return isDone;
  }

  /** The tables that the publication names: those of a schema, or of all, cannot be taken out. */
  async #listed(): Promise<ReadonlySet<number>> {
    try {
      const { rows } = await this.#o.client.query<{ oid: string }>(
        'select r.prrelid::int8::text as oid from pg_publication_rel r join pg_publication p on p.oid = r.prpubid where p.pubname = $1',
        [this.#o.publication],
      );
      return new Set(rows.map(({ oid }) => Number(oid)));
    } catch (thrown) {
      throw sourceError(thrown, `reading publication ${this.#o.publication}`);
    }
  }

  /** What a DBA is to run where this user may not, or `HELD`. */
  async #withdraw(table: CapturedTable, why: string): Promise<string | typeof HELD | undefined> {
    const { client, publication, notes, log } = this.#o;
    const known = notes.tables.get(table.oid)!;
    const sql = `ALTER PUBLICATION ${quoteIdent(publication)} DROP TABLE ${qualifiedName(table.schema)}`;
    // Before it is out: what is not published from then on is to be made up for.
    notes.withdrawn.add(table.oid);
    await notes.store(known);
    try {
      await client.query(`begin; set local lock_timeout = '${LOCK_TIMEOUT}'; ${sql}; commit`);
    } catch (thrown) {
      await client.query('rollback').catch(() => undefined);
      if (isHeld(thrown) || isChanged(thrown)) return HELD;
      const error = sourceError(thrown, `publication ${publication}`);
      if (error.code !== 'source_privilege') throw error;
      return `Until then its updates and deletes fail at the source: this user may not change the publication; run: ${sql};`;
    }
    log.warn({ table: nameOf(table), why }, 'a table is published no longer, or its updates would fail at the source');
    return undefined;
  }

  /** Why it cannot be published again, or `HELD`. */
  async #bringBack(table: CapturedTable): Promise<string | typeof HELD | undefined> {
    const { marks, notes, log, readAgain } = this.#o;
    const refused = await marks.publish(table);
    if (refused !== undefined) return refused;
    log.info({ table: nameOf(table) }, 'a table is published again, and read');
    await readAgain(table);
    notes.withdrawn.delete(table.oid);
    await notes.store(notes.tables.get(table.oid)!);
    return undefined;
  }
}

function place({ schema: { schema, name } }: CapturedTable): { readonly schema: string; readonly name: string } {
  return { schema, name };
}

/** Whether a table, or its place in the publication, is not there any more. */
function isChanged(thrown: unknown): boolean {
  const { code } = (thrown ?? {}) as { code?: unknown };
  return code === '42P01' || code === '3F000' || code === '42704';
}
