/** The statements that make a target table fit the next version of its source table. docs/schema-changes.md. */
import { dialectOf } from '../../core/column-kind.ts';
import type { FlowConfig } from '../../core/config.ts';
import type { ColumnSchema, TableSchema } from '../../core/frame.ts';
import { classifyMysqlTypeChange, plainMysqlType } from '../../core/mysql-type-widening.ts';
import { describeDiff, diffSchemas, isEmptyDiff, spareName, type SchemaDiff } from '../schema-diff.ts';
import type { ColumnMapping } from '../type-mapping.ts';
import { qualifiedName, quoteLiteral, quoteName, typeForDdl } from './sql.ts';
import { columnForms, formSql, mappingsOf, takesDefault, type ColumnForm, type Surroundings } from './table-ddl.ts';
import { typeMisfit, type FoundTable, type TargetColumn } from './table-shape.ts';
import { shapeError } from './target-table.ts';

export interface PlanOptions {
  readonly settings: FlowConfig;
  /** Database of the table in the target. */
  readonly schema: string;
  readonly before: TableSchema;
  readonly after: TableSchema;
  readonly found: FoundTable;
  readonly around: Surroundings;
  readonly kept: readonly string[];
  readonly pending: readonly string[];
  /** The table is about to be read from the beginning: types that cannot be followed are changed all the same. */
  readonly restart: boolean;
  /** With `restart`: nobody asked for it, so that narrower types of what is certainly the same column stop the table. */
  readonly unasked: boolean;
  /** With `unasked`: columns of one name are the same for certain, whatever the versions tell. */
  readonly narrower: boolean;
}

/** One statement; a server that is killed has done it wholly or not at all. */
export interface PlanStep {
  readonly sql: string;
  /** The table's column names behind it, which tell whether it was done. */
  readonly names: string;
  /**
   * What is done when rows are in the way: empty the table and try again; leave the column for later; or stop the table.
   */
  readonly refused: 'empty' | { readonly pending: string } | { readonly reason: string };
}

/** What is to be done to a table, and what the flow remembers of it behind that. */
export interface ChangePlan {
  /** The table's column names before the first step. */
  readonly names: string;
  readonly steps: readonly PlanStep[];
  readonly kept: readonly string[];
  readonly pending: readonly string[];
  /** Rows of the version before can still be written. */
  readonly additive: boolean;
  /** Rows that are there get values: those that are written in the version before would go without. */
  readonly fills: boolean;
}

/** Column names as one text, in whatever order the columns are. */
export function namesOf(names: Iterable<string>): string {
  return [...names]
    .map((name) => name.toLowerCase())
    .sort()
    .join('\n');
}

/** Throws `target_shape` for what cannot be followed. */
export function planChanges(options: PlanOptions): ChangePlan {
  const { before, after, restart, settings, schema, kept, pending, found } = options;
  const diff = diffSchemas(before, after);
  const names = namesOf(found.columns.keys());
  if (isEmptyDiff(diff) && !restart) return { names, steps: [], kept, pending, additive: true, fills: false };
  if (settings.schema_changes === 'stop' && !restart && !isEmptyDiff(diff))
    throw shapeError(schema, after.name, `its source changed (${describeDiff(diff)}), and schema_changes is stop`);
  return new Planner(options, diff, names).plan();
}

type Forms = ReadonlyMap<string, ColumnForm>;

class Planner {
  readonly #o: PlanOptions;
  readonly #diff: SchemaDiff;
  /** The columns to add: also those that the target has lost, where the table is read anew. */
  readonly #added: readonly ColumnSchema[];
  readonly #table: string;
  readonly #forms: { readonly before: Forms; readonly after: Forms };
  readonly #mappings: readonly ColumnMapping[];
  /** By lower-case name: what the columns that are there are called when it is done. */
  readonly #names: Map<string, string>;
  readonly #first: string;
  readonly #clauses: string[] = [];
  /** Columns that are there, by lower-case name, where they get another name or definition. */
  readonly #altered = new Map<string, { from: string; to: string; definition?: string }>();
  readonly #fills: string[] = [];
  readonly #later: PlanStep[] = [];
  readonly #kept: Set<string>;
  readonly #pending: Set<string>;

  constructor(options: PlanOptions, diff: SchemaDiff, names: string) {
    const { before, after, around, found } = options;
    this.#o = options;
    this.#diff = diff;
    this.#first = names;
    const lost = diff.kept.filter((pair) => this.#found(pair.before.name) === undefined);
    this.#added = [...diff.added, ...lost.map((pair) => pair.after)];
    this.#table = qualifiedName(options.schema, after.name);
    this.#forms = { before: columnForms(before, around), after: columnForms(after, around) };
    this.#mappings = mappingsOf(after, around.flavour);
    this.#names = new Map([...found.columns].map(([lower, { name }]) => [lower, name]));
    this.#kept = new Set(options.kept.filter((name) => found.columns.has(name.toLowerCase())));
    this.#pending = new Set(options.pending);
  }

  plan(): ChangePlan {
    const { found } = this.#o;
    const dropped = this.#diff.key ? this.#dropKey() : false;
    this.#drop();
    this.#keep();
    this.#clearNames();
    this.#add();
    const key = this.#diff.key ? this.#addKey(dropped) : '';
    if (key !== '') this.#clauses.push(key);
    const now = (): string => namesOf(this.#names.values());
    const steps: PlanStep[] = [];
    // A change that ends with the names it began with could not be told from one that has not begun.
    if ([...this.#altered.values()].some(isRename) && now() === this.#first) steps.push(this.#park());
    const clauses = [...this.#clauses, ...[...this.#altered.values()].map(alterSql)];
    if (clauses.length > 0)
      steps.push({
        sql: `ALTER TABLE ${this.#table} ${clauses.join(', ')}`,
        names: now(),
        refused: this.#o.restart
          ? 'empty'
          : {
              reason: this.#diff.key
                ? `its rows are not told apart by the new key (${this.#o.after.key.join(', ')}) before they are read again`
                : 'rows that are there do not allow it',
            },
      });
    for (const sql of this.#fills)
      steps.push({ sql, names: now(), refused: { reason: 'its rows could not be filled' } });
    for (const step of this.#later) steps.push({ ...step, names: now() });
    const changedTypes = this.#diff.kept.some((pair) => pair.before.type !== pair.after.type);
    return {
      names: namesOf(found.columns.keys()),
      steps,
      kept: [...this.#kept],
      pending: [...this.#pending],
      additive: this.#diff.dropped.length === 0 && this.#diff.renamed.length === 0 && !this.#diff.key && !changedTypes,
      fills: this.#diff.added.some(({ existing }) => existing !== undefined),
    };
  }

  /** Columns whose names are exchanged go through names that nothing has, in a statement of its own. */
  #park(): PlanStep {
    const there = new Set(this.#o.found.columns.keys());
    const parked: { from: string; to: string }[] = [];
    for (const change of [...this.#altered.values()].filter(isRename)) {
      const to = `waybill_parked_${parked.length}`;
      parked.push({ from: change.from, to });
      there.delete(change.from.toLowerCase());
      there.add(to);
      change.from = to;
    }
    return {
      sql: `ALTER TABLE ${this.#table} ${parked.map(alterSql).join(', ')}`,
      names: namesOf(there),
      refused: { reason: 'its columns could not be renamed' },
    };
  }

  #alter(found: TargetColumn): { from: string; to: string; definition?: string } {
    const lower = found.name.toLowerCase();
    let change = this.#altered.get(lower);
    if (change === undefined) {
      change = { from: found.name, to: found.name };
      this.#altered.set(lower, change);
    }
    return change;
  }

  #found(name: string): TargetColumn | undefined {
    return this.#o.found.columns.get(name.toLowerCase());
  }

  #dropKey(): boolean {
    const { primary } = this.#o.found;
    const key = this.#o.before.key.map((name) => name.toLowerCase());
    if (primary.length === 0 || primary.length !== key.length || !primary.every((name) => key.includes(name)))
      return false;
    this.#clauses.push('DROP PRIMARY KEY');
    return true;
  }

  #drop(): void {
    for (const { name } of this.#diff.dropped) {
      const found = this.#found(name);
      this.#pending.delete(name);
      if (found === undefined) continue;
      if (this.#o.settings.dropped_columns === 'drop') {
        this.#clauses.push(`DROP COLUMN ${quoteName(found.name)}`);
        this.#names.delete(name.toLowerCase());
        continue;
      }
      // New rows have no value for it.
      if (found.notNull && !found.generated)
        this.#alter(found).definition = this.#define(found, this.#formOf(found, this.#forms.before.get(name)), false);
      this.#kept.add(found.name);
    }
  }

  /** A column as it is in the target. */
  #formOf(found: TargetColumn, form: ColumnForm | undefined): ColumnForm {
    // The catalog shows characters beyond the basic plane in labels as question marks.
    const labelled = /^(?:enum|set)\b/i;
    const asSource = form !== undefined && labelled.test(form.type) && labelled.test(found.type);
    return {
      type: asSource ? form.type : typeForDdl(found.type),
      characters: found.collation === undefined ? '' : ` CHARACTER SET ${found.charset} COLLATE ${found.collation}`,
      fallback: found.fallback === undefined ? '' : ` DEFAULT ${found.fallback}`,
    };
  }

  #define(found: TargetColumn, form: ColumnForm, notNull: boolean): string {
    return `${formSql(form, notNull)}${found.autoIncrement ? ' AUTO_INCREMENT' : ''}`;
  }

  /** What both versions have: renamed, of a wider type, with other NULLs and defaults. */
  #keep(): void {
    const { after, schema } = this.#o;
    const problems: string[] = [];
    const own = dialectOf(after) !== 'postgres';
    for (const { before: was, after: is } of this.#diff.kept) {
      const found = this.#found(was.name);
      if (found === undefined) continue;
      if (was.name !== is.name) this.#rename(found, is.name, was.name);
      if (found.generated) continue;
      const type = this.#nextType(was, is, found);
      if (type === 'narrower') {
        problems.push(`column ${is.name} was ${was.type} and is ${is.type}, which may lose values`);
        continue;
      }
      const next = this.#forms.after.get(is.name)!;
      const recast = type === 'other' || was.collation !== is.collation;
      const redefault = own && was.default !== is.default;
      const loosened = found.notNull && was.notNull && !is.notNull && !after.key.includes(is.name);
      const asFound = this.#formOf(found, this.#forms.before.get(was.name));
      const fallback = own && (recast || redefault) ? next.fallback : recast ? '' : asFound.fallback;
      const form = { ...(recast ? next : asFound), fallback };
      if (recast || redefault || loosened)
        this.#alter(found).definition = this.#define(found, form, found.notNull && !loosened);
      if (was.notNull === is.notNull && !this.#pending.has(is.name)) continue;
      this.#pending.delete(is.name);
      if (is.notNull && !found.notNull) this.#tighten(is, form);
    }
    if (problems.length > 0) throw shapeError(schema, after.name, problems.join('. '));
  }

  #rename(found: TargetColumn, to: string, source: string): void {
    this.#alter(found).to = to;
    this.#names.set(found.name.toLowerCase(), to);
    if (this.#pending.delete(source)) this.#pending.add(to);
  }

  /** `same`: stays as it is. A type that somebody chose in the target, and that takes the values, stays. */
  #nextType(was: ColumnSchema, is: ColumnSchema, found: TargetColumn): 'same' | 'other' | 'narrower' {
    const { before, after, restart, unasked, narrower: isSame } = this.#o;
    const [from, to] = [this.#forms.before.get(was.name)!.type, this.#forms.after.get(is.name)!.type];
    const [now, old, next] = [found.type, from, to].map(plainMysqlType);
    const changed = was.type !== is.type || was.portable !== is.portable;
    // Texts of no length have one in a key.
    const key = before.key.includes(was.name) !== after.key.includes(is.name);
    if (now === next) return 'same';
    const narrower = changed && old !== next && classifyMysqlTypeChange(from, to) === 'narrower';
    if (narrower && (!restart || (unasked && (isSame || this.#diff.certain)))) return 'narrower';
    if (now === old || sameLabels(now!, old!)) return (changed || key) && old !== next ? 'other' : 'same';
    const mapping = this.#mappings[after.columns.indexOf(is)]!;
    return restart && typeMisfit(is, mapping, found) !== undefined ? 'other' : 'same';
  }

  /** Rows that have no value yet are being read again: then it waits for the end of that. */
  #tighten({ name }: ColumnSchema, form: ColumnForm): void {
    this.#later.push({
      sql: `ALTER TABLE ${this.#table} MODIFY COLUMN ${quoteName(name)} ${formSql(form, true)}`,
      names: '',
      refused: { pending: name },
    });
  }

  /** A column that stayed behind gives its name up to the one that has it now. */
  #clearNames(): void {
    for (const name of [...this.#diff.added.map((column) => column.name), ...this.#diff.renamed.map(({ to }) => to)]) {
      const kept = [...this.#kept].find((each) => each.toLowerCase() === name.toLowerCase());
      if (kept === undefined || this.#names.get(kept.toLowerCase()) !== kept) continue;
      const taken = new Set(
        [...this.#names.values(), ...this.#o.found.columns.keys()].map((each) => each.toLowerCase()),
      );
      const spare = spareName(kept, (each) => taken.has(each.toLowerCase()));
      this.#rename(this.#found(kept)!, spare, kept);
      this.#kept.delete(kept);
      this.#kept.add(spare);
    }
  }

  #add(): void {
    const { around } = this.#o;
    const own = dialectOf(this.#o.after) !== 'postgres';
    for (const column of this.#added) {
      const there = [...this.#names.values()].some((name) => name.toLowerCase() === column.name.toLowerCase());
      if (there) continue;
      const form = this.#forms.after.get(column.name)!;
      const name = quoteName(column.name);
      const filled = column.existing === undefined ? undefined : this.#literal(column, column.existing);
      const inline = filled !== undefined && takesDefault(form.type, around.flavour);
      const notNull = column.notNull && this.#o.after.key.includes(column.name);
      const wanted = own ? form.fallback : '';
      this.#clauses.push(
        `ADD COLUMN ${name} ${formSql({ ...form, fallback: inline ? ` DEFAULT ${filled}` : wanted }, notNull)}`,
      );
      this.#names.set(column.name.toLowerCase(), column.name);
      if (inline && wanted !== ` DEFAULT ${filled}`)
        this.#fills.push(
          `ALTER TABLE ${this.#table} ALTER COLUMN ${name} ${wanted === '' ? 'DROP DEFAULT' : `SET${wanted}`}`,
        );
      else if (filled !== undefined && !inline) this.#fills.push(`UPDATE ${this.#table} SET ${name} = ${filled}`);
      if (column.notNull && !notNull) this.#tighten(column, { ...form, fallback: wanted });
    }
  }

  #literal(column: ColumnSchema, value: string): string {
    const { carrier, convert } = this.#mappings[this.#o.after.columns.indexOf(column)]!;
    const text = convert === undefined ? value : convert(value);
    if (text === null) return 'NULL';
    if (carrier === 'base64') return `FROM_BASE64('${text}')`;
    return carrier === 'number' ? text : quoteLiteral(text);
  }

  #addKey(dropped: boolean): string {
    const { after, found } = this.#o;
    if (after.key.length === 0) return '';
    const old = after.key.map((name) => {
      const pair = this.#diff.kept.find((each) => each.after.name === name);
      return (pair?.before.name ?? name).toLowerCase();
    });
    const primaryIsKey = (columns: ReadonlySet<string>): boolean =>
      dropped && columns.size === found.primary.length && found.primary.every((name) => columns.has(name));
    const known = found.uniques.some(
      (columns) => columns.size === old.length && old.every((name) => columns.has(name)) && !primaryIsKey(columns),
    );
    if (known) return '';
    const columns = after.key.map(quoteName).join(', ');
    return found.primary.length === 0 || dropped ? `ADD PRIMARY KEY (${columns})` : `ADD UNIQUE (${columns})`;
  }
}

function isRename({ from, to }: { readonly from: string; readonly to: string }): boolean {
  return from !== to;
}

function alterSql(change: { readonly from: string; readonly to: string; readonly definition?: string }): string {
  const [from, to] = [quoteName(change.from), quoteName(change.to)];
  if (change.definition === undefined) return `RENAME COLUMN ${from} TO ${to}`;
  return from === to
    ? `MODIFY COLUMN ${from} ${change.definition}`
    : `CHANGE COLUMN ${from} ${to} ${change.definition}`;
}

/** The catalog shows labels escaped, and not all characters. */
function sameLabels(a: string, b: string): boolean {
  return /^(?:enum|set)\b/i.test(a) && a.slice(0, 4) === b.slice(0, 4);
}
