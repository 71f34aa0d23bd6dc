/** The exception inbox as the console shows it. */
import type { QuarantineDetail, QuarantineEntry } from '../../apply/quarantine-entry.ts';
import type { TargetDesk } from '../../apply/target-kind.ts';
import { dialectOf, isBinaryColumn } from '../../core/column-kind.ts';
import type { Config } from '../../core/config.ts';
import type { RowChange } from '../../core/frame.ts';
import type { QuarantineDetailView, QuarantineItem, QuarantinePage } from '../../monitoring/console/views.ts';
import { positionText } from './facts.ts';
import { hiddenColumns, shown, type HidesColumn } from './hidden-columns.ts';

const OPS: Readonly<Record<RowChange[0], string>> = {
  i: 'insert',
  u: 'update',
  d: 'delete',
  r: 'snapshot',
  t: 'truncate',
  s: 'mark',
  m: 'message',
};

/**
 * What a database says of a value that it cannot take quotes it, whatever column it is of. Names of columns and keys stay;
 * the values stand below, as far as they are shown.
 */
export function withoutValues(message: string, sqlState: string | null): string {
  const quotes = sqlState === null || /^(22|HY)/.test(sqlState) || message.startsWith('Duplicate entry');
  return quotes
    ? message.replaceAll(/(?<!(?:column|key|constraint|relation|type|table) )("[^"]*"|'[^']*')/gi, '…')
    : message;
}

/** The key, without the values of columns that are not shown. */
function shownKey({ key, keyColumns, schema, table }: QuarantineEntry, hides: HidesColumn): string | null {
  if (key === null || keyColumns === null) return key;
  const values = JSON.parse(key) as (string | null)[];
  // Of which column a value is may not be known: then it may be one that is hidden.
  const isHidden = (name: string | undefined): boolean => name === undefined || hides(schema, table, name);
  return JSON.stringify(values.map((value, index) => shown(value, isHidden(keyColumns[index]))));
}

export function item(entry: QuarantineEntry, hides: HidesColumn): QuarantineItem {
  return {
    id: entry.id,
    table: `${entry.schema}.${entry.table}`,
    key: shownKey(entry, hides),
    op: OPS[entry.op as RowChange[0]] ?? entry.op,
    reason: entry.reason,
    message: entry.message === null ? null : withoutValues(entry.message, entry.sqlState),
    sqlState: entry.sqlState,
    createdAt: entry.createdAt.toISOString(),
  };
}

export async function readPage(
  config: Config,
  desk: TargetDesk,
  flow: string,
  options: { offset: number; limit: number; reason?: string },
): Promise<QuarantinePage> {
  const hides = hiddenColumns(config, flow);
  const reasons = await desk.countReasons(flow);
  const counted = reasons.filter(({ reason }) => options.reason === undefined || reason === options.reason);
  return {
    total: counted.reduce((sum, { count }) => sum + count, 0),
    offset: options.offset,
    items: (await desk.pageQuarantine(flow, options)).map((entry) => item(entry, hides)),
    reasons,
  };
}

export async function readDetail(
  config: Config,
  desk: TargetDesk,
  flow: string,
  id: string,
): Promise<QuarantineDetailView | undefined> {
  const entry = await desk.showQuarantine(id);
  return entry === undefined || entry.flow !== flow ? undefined : detail(entry, hiddenColumns(config, flow));
}

/** What a mapping holds: the source's row by column, where it is known, and the rules that it broke. */
interface HeldByMapping {
  readonly row: Readonly<Record<string, unknown>> | readonly unknown[] | null;
}

/** Whether a change is held by a mapping: it was never on its way to the target, so it cannot be applied as it is. */
export function isHeldByMapping(entry: QuarantineDetail): boolean {
  return !('table' in entry.change);
}

function heldByMapping(entry: QuarantineDetail, hides: HidesColumn): QuarantineDetailView {
  const { row } = entry.change as unknown as HeldByMapping;
  const values = row === null || Array.isArray(row) ? [] : Object.entries(row);
  return {
    ...item(entry, hides),
    flow: entry.flow,
    source: entry.source,
    position: `${positionText(entry.position)} #${entry.ordinal}`,
    target: 'no record yet',
    bytes: Buffer.byteLength(JSON.stringify(entry.change)),
    columns: values.map(([name, value]) => ({
      name,
      type: '',
      key: false,
      notNull: false,
      binary: false,
      before: shown(
        value === null || typeof value === 'string' ? value : JSON.stringify(value),
        hides(entry.schema, entry.table, name),
      ),
    })),
  };
}

function detail(entry: QuarantineDetail, hides: HidesColumn): QuarantineDetailView {
  if (isHeldByMapping(entry)) return heldByMapping(entry, hides);
  const { change, table, target } = entry.change;
  const [, , after, , before] = change;
  return {
    ...item(entry, hides),
    flow: entry.flow,
    source: entry.source,
    position: `${positionText(entry.position)} #${entry.ordinal}`,
    target: `${target.schema}.${target.name}`,
    bytes: Buffer.byteLength(JSON.stringify(entry.change.change)),
    columns: table.columns.map((column, index) => {
      const hidden = hides(table.schema, table.name, column.name);
      return {
        name: column.name,
        type: column.type,
        key: table.key.includes(column.name),
        notNull: column.notNull,
        binary: isBinaryColumn(dialectOf(table), column),
        ...(before === undefined ? {} : { before: shown(before[index], hidden) }),
        ...(after === null ? {} : { after: shown(after[index], hidden) }),
      };
    }),
  };
}
