/** Looks at the catalog for the log, which waits meanwhile: only when something changed, and waiting for nobody who holds a table. */
import type pg from 'pg';
import { PgSnapshot } from '../../core/pg-snapshot.ts';
import type { CapturedTable } from './catalog.ts';
import { FINGERPRINT } from './catalog-fingerprint.ts';
import { readTables, type Defaults } from './read-tables.ts';
import { sourceError } from './source-error.ts';

export class CatalogLook {
  readonly #client: pg.Client;
  readonly #isChosen: (schema: string, name: string, oid: number) => boolean;
  #fingerprint = '';
  /** What the last looks found, for tables that are locked. */
  readonly #defaults: Defaults = new Map();
  #upTo = -1n;
  /** But for transactions that could not be seen yet: the log has a commit a moment before others see it. */
  #snapshot: PgSnapshot | undefined;
  /** And that are waited for no longer. */
  readonly #givenUp = new Set<number>();

  constructor(client: pg.Client, isChosen: (schema: string, name: string, oid: number) => boolean) {
    this.#client = client;
    this.#isChosen = isChosen;
  }

  /** Whether the catalog has been looked at since the commit at `lsn`, of transaction `xid`. */
  hasSeen(lsn: bigint, xid: number): boolean {
    return lsn <= this.#upTo && !this.isUnseen(xid);
  }

  isUnseen(xid: number): boolean {
    return this.#snapshot?.has(xid) === true && !this.#givenUp.has(xid);
  }

  /** A transaction that is still unseen is waited for no longer. */
  giveUp(xid: number): void {
    this.#givenUp.add(xid);
  }

  hasGivenUp(xid: number): boolean {
    return this.#givenUp.has(xid);
  }

  /** Whether there is nothing in the log that could not be seen. */
  get hasSeenAll(): boolean {
    return this.#givenUp.size === 0;
  }

  /** What has been looked at is of a place as far as this, whatever the source says: a standby lags behind. */
  passTo(lsn: bigint): void {
    if (lsn > this.#upTo) this.#upTo = lsn;
  }

  /** The next look reads the catalog whether it changed or not. */
  forget(): void {
    this.#fingerprint = '';
  }

  /**
   * Reads the chosen tables when something changed since the last time, for `compare`. False where the default of a column is
   * the last one known, or missing, because somebody holds the table: then the next look reads it again.
   */
  async look(compare: (tables: readonly CapturedTable[]) => Promise<void>): Promise<boolean> {
    const client = this.#client;
    try {
      const position = await client.query<{ lsn: string }>(
        `select (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end - '0/0')::text as lsn`,
      );
      const { rows } = await client.query<{ fingerprint: string; snapshot: string }>(FINGERPRINT);
      const { fingerprint, snapshot } = rows[0]!;
      let isWhole = true;
      if (fingerprint !== this.#fingerprint) {
        const found = await readTables(client, this.#isChosen, this.#defaults);
        ({ isWhole } = found);
        await compare(found.tables);
        this.#fingerprint = isWhole ? fingerprint : '';
      }
      this.passTo(BigInt(position.rows[0]!.lsn));
      this.#snapshot = PgSnapshot.parse(snapshot);
      // What has ended by now was given up for the last time.
      for (const xid of this.#givenUp) if (!this.#snapshot.has(xid)) this.#givenUp.delete(xid);
      return isWhole;
    } catch (thrown) {
      throw sourceError(thrown, 'looking for changed tables');
    }
  }
}
