/** Random transactions of a source as frames carry them: rows, and tables that change, go, come back and are read again. */
import { createHash } from 'node:crypto';
import type { RowChange, TableSchema } from '../../core/frame.ts';
import type { Random } from '../../sandbox/demo/random.ts';

/** Columns behind the key, by their numbers: `n` as it may become, and one that may come and go. */
const SHAPES = [
  [[2, 'n', 'integer']],
  [[2, 'n', 'smallint']],
  [[2, 'n', 'bigint']],
  [
    [2, 'n', 'integer'],
    [3, 'm', 'integer'],
  ],
] as const;
const NAMES = ['items', 'goods', 'other'] as const;
type Name = (typeof NAMES)[number];

interface SourceTable {
  readonly id: number;
  shape: number;
  readonly rows: Map<number, number>;
}

/** A reading that is to be done, or under way. */
interface Reading {
  readonly table: SourceTable;
  readonly id: string;
  readonly asked: boolean;
  step: number;
}

export interface Change {
  readonly table: TableSchema;
  /** Of table 0. */
  readonly row: RowChange;
}

export class RandomChanges {
  readonly #random: Random;
  readonly #tables = new Map<Name, SourceTable>();
  readonly #transactions: Change[][] = [];
  #open: Change[] = [];
  #readings: Reading[] = [];
  #ids = 100;
  #keys = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  /** What the source has in the end, by table. */
  get contents(): ReadonlyMap<string, ReadonlyMap<number, number>> {
    return new Map([...this.#tables].map(([name, { rows }]) => [name, rows]));
  }

  /** About so many transactions, behind which each table has been read that had to be. */
  make(count: number): readonly (readonly Change[])[] {
    for (const name of NAMES.slice(0, 2)) {
      this.#tables.set(name, { id: this.#ids++, shape: 0, rows: new Map() });
      this.#insert(name);
    }
    this.#commit();
    while (this.#transactions.length < count) {
      this.#act();
      if (this.#random.chance(0.7)) this.#commit();
    }
    this.#commit();
    while (this.#readings.length > 0) {
      this.#readOn();
      this.#commit();
    }
    return this.#transactions;
  }

  #commit(): void {
    if (this.#open.length > 0) this.#transactions.push(this.#open);
    this.#open = [];
  }

  #act(): void {
    const name = this.#random.pick(NAMES);
    const table = this.#tables.get(name);
    if (table === undefined) {
      if (this.#random.chance(0.5)) this.#create(name, { id: this.#ids++, shape: this.#shape(), rows: new Map() });
      return;
    }
    const act = this.#random.next();
    if (act < 0.4) this.#insert(name);
    else if (act < 0.55) this.#alterRow(name, table);
    else if (act < 0.7) this.#readOn();
    else if (act < 0.76) this.#alter(name, table);
    else if (act < 0.8) this.#ask(table, true);
    else if (act < 0.84) this.#truncate(name, table);
    else if (act < 0.92) this.#leave(name, table);
    else this.#rename(name, table);
  }

  #shape(): number {
    return this.#random.between(0, SHAPES.length - 1);
  }

  #schemaOf(name: Name, { id, shape }: SourceTable): TableSchema {
    const columns = [[1, 'id', 'integer'] as const, ...SHAPES[shape]!].map(([number, column, type]) => ({
      id: number,
      name: column,
      type,
      portable: type,
      notNull: number === 1,
    }));
    const version = createHash('sha256')
      .update(JSON.stringify([name, id, columns]))
      .digest('hex')
      .slice(0, 12);
    return { schema: 'public', name, id, version, identity: 'default', key: ['id'], columns };
  }

  #push(name: Name, table: SourceTable, row: RowChange): void {
    this.#open.push({ table: this.#schemaOf(name, table), row });
  }

  #image(table: SourceTable, key: number): (string | null)[] {
    return [String(key), String(table.rows.get(key)), ...(SHAPES[table.shape]!.length > 1 ? [null] : [])];
  }

  #insert(name: Name): void {
    const table = this.#tables.get(name)!;
    const key = ++this.#keys;
    table.rows.set(key, key * 2);
    this.#push(name, table, ['i', 0, this.#image(table, key)]);
  }

  #alterRow(name: Name, table: SourceTable): void {
    if (table.rows.size === 0) return;
    const key = this.#random.pick([...table.rows.keys()]);
    if (this.#random.chance(0.5)) {
      table.rows.set(key, table.rows.get(key)! + 1);
      this.#push(name, table, ['u', 0, this.#image(table, key)]);
    } else {
      const image = this.#image(table, key).map((value, index) => (index === 0 ? value : null));
      table.rows.delete(key);
      this.#push(name, table, ['d', 0, null, 'k', image]);
    }
  }

  #truncate(name: Name, table: SourceTable): void {
    table.rows.clear();
    this.#push(name, table, ['t', 0, []]);
  }

  /** Another definition, which a mark may tell before a row does; the table may have to be read. */
  #alter(name: Name, table: SourceTable): void {
    table.shape = this.#shape();
    if (this.#random.chance(0.5)) this.#push(name, table, ['s', 0, ['', 'schema']]);
    if (this.#random.chance(0.5)) this.#ask(table, false);
  }

  /** It goes, and may come back at once: as it was, or as another one. */
  #leave(name: Name, table: SourceTable): void {
    const why = this.#random.pick(['dropped', 'renamed', 'renamed to away.x, which is not among the tables']);
    this.#push(name, table, ['s', 0, [why, 'gone']]);
    this.#tables.delete(name);
    this.#readings = this.#readings.filter((reading) => reading.table !== table);
    if (this.#random.chance(0.5)) this.#commit();
    if (this.#random.chance(0.3)) return;
    const id = this.#random.chance(0.6) ? table.id : this.#ids++;
    this.#create(name, { id, shape: this.#random.chance(0.7) ? table.shape : this.#shape(), rows: new Map() });
  }

  #create(name: Name, table: SourceTable): void {
    this.#tables.set(name, table);
    if (this.#random.chance(0.4)) this.#push(name, table, ['s', 0, ['', 'schema']]);
    this.#ask(table, false);
    if (this.#random.chance(0.6)) this.#insert(name);
  }

  #rename(name: Name, table: SourceTable): void {
    const to = NAMES.find((other) => !this.#tables.has(other));
    if (to === undefined) return;
    const mark: Change = {
      table: this.#schemaOf(name, table),
      row: ['s', 0, [`renamed to public.${to}`, 'gone']],
    };
    this.#tables.delete(name);
    this.#tables.set(to, table);
    // A row may tell of the new name before the mark tells of the old one.
    if (this.#random.chance(0.5)) this.#open.push(mark);
    this.#push(to, table, ['s', 0, ['', 'schema']]);
    if (this.#random.chance(0.5)) this.#insert(to);
    if (!this.#open.includes(mark)) this.#open.push(mark);
    this.#ask(table, false);
  }

  #ask(table: SourceTable, asked: boolean): void {
    this.#readings = this.#readings.filter((reading) => reading.table !== table);
    this.#readings.push({ table, id: `r${this.#ids++}`, asked, step: 0 });
  }

  /** Begins the reading that has waited longest, or brings its rows, or ends it. */
  #readOn(): void {
    const [reading] = this.#readings;
    if (reading === undefined) return;
    const { table, id, asked } = reading;
    const [name] = [...this.#tables].find(([, other]) => other === table)!;
    if (reading.step === 0) this.#push(name, table, ['s', 0, [id, 'begin', ...(asked ? [] : ['unasked'])]]);
    else if (reading.step === 1)
      for (const key of table.rows.keys()) this.#push(name, table, ['r', 0, this.#image(table, key)]);
    else {
      this.#push(name, table, ['s', 0, [id, 'end']]);
      this.#readings.shift();
    }
    reading.step += 1;
  }
}
