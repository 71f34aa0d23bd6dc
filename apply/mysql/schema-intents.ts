/**
 * `waybill.schema_changes`: changes of target tables that are under way. DDL commits by itself, so what is to be done is
 * stored first, and each step when it is done; after a kill the table's column names tell whether the step at hand was.
 */
import type { TableSchema } from '../../core/frame.ts';
import type { ChangePlan } from './change-plan.ts';
import type { MysqlSession } from './session.ts';
import { quoteLiteral } from './sql.ts';

/** A change of one table that has begun. */
export interface Intent {
  /** Database of the table in the target. */
  readonly schema: string;
  readonly definition: TableSchema;
  readonly plan: ChangePlan;
  /** Number of steps that are known to be done. */
  done: number;
}

/** Versions that the table has left behind in the middle of a source transaction, which begins again at `at`. */
export interface Superseded {
  readonly versions: readonly string[];
  /** The flow's position before that transaction. */
  readonly at: string;
}

interface TableName {
  readonly schema: string;
  readonly name: string;
}

export class SchemaIntents {
  readonly #session: MysqlSession;
  readonly #flow: string;
  readonly #source: string;

  constructor(session: MysqlSession, flow: string, source: string) {
    this.#session = session;
    this.#flow = flow;
    this.#source = source;
  }

  async #read<T>(column: 'plan' | 'superseded'): Promise<Map<string, T>> {
    const rows = await this.#session.rows(
      `SELECT table_schema, table_name, ${column} FROM waybill.schema_changes WHERE ${this.#mine()} AND ${column} IS NOT NULL`,
    );
    return new Map(rows.map(([schema, name, json]) => [`${schema}.${name}`, JSON.parse(json!) as T]));
  }

  #mine(): string {
    return `flow = ${quoteLiteral(this.#flow)} AND source = ${quoteLiteral(this.#source)}`;
  }

  #of({ schema, name }: TableName): string {
    return `${this.#mine()} AND table_schema = ${quoteLiteral(schema)} AND table_name = ${quoteLiteral(name)}`;
  }

  async intents(): Promise<Map<string, Intent>> {
    return await this.#read<Intent>('plan');
  }

  async superseded(): Promise<Map<string, Superseded>> {
    return await this.#read<Superseded>('superseded');
  }

  async store(table: TableName, intent: Intent): Promise<void> {
    await this.#put(table, 'plan', JSON.stringify(intent));
  }

  async #put({ schema, name }: TableName, column: 'plan' | 'superseded', json: string): Promise<void> {
    await this.#session.run(
      `INSERT INTO waybill.schema_changes (flow, source, table_schema, table_name, ${column}) VALUES` +
        ` (${[this.#flow, this.#source, schema, name, json].map(quoteLiteral).join(', ')})` +
        ` ON DUPLICATE KEY UPDATE ${column} = ${quoteLiteral(json)}`,
    );
  }

  /** Statements that say that a change is over. */
  overSql(table: TableName): string {
    return `UPDATE waybill.schema_changes SET plan = NULL WHERE ${this.#of(table)}`;
  }

  /** Adds a version to those that the table has left behind in the transaction that begins again at `at`; gives all. */
  async supersede(table: TableName, version: string, at: string): Promise<readonly string[]> {
    const known = (await this.superseded()).get(`${table.schema}.${table.name}`);
    // One transaction may change a table several times.
    const versions = new Set(known?.at === at ? known.versions : []).add(version);
    const superseded: Superseded = { versions: [...versions], at };
    await this.#put(table, 'superseded', JSON.stringify(superseded));
    return superseded.versions;
  }

  /** Forgets what is over. */
  async clear(): Promise<void> {
    await this.#session.run(`DELETE FROM waybill.schema_changes WHERE ${this.#mine()} AND plan IS NULL`);
  }
}
