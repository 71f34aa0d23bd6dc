/** The marks that tell targets what is read: where the reading of a table begins, and how it ends. */
import type { ColumnRules } from '../../core/column-rules.ts';
import { isOrdered, rangeMark } from '../../core/key-order.ts';
import {
  beginContent,
  cancelMark,
  isUnasked,
  nameReading,
  type SnapshotProgress,
  type TableProgress,
} from '../snapshot-request.ts';
import type { CapturedTable } from './catalog.ts';
import { readExecuted } from './executed.ts';
import type { LogPort } from './log-boundary.ts';
import { publishRead } from './published-table.ts';
import type { SnapshotPorts } from './snapshot-ports.ts';

/** So often the log is waited for while it tells of more and more changes of tables. */
const MOST_ATTEMPTS = 20;

/**
 * Has the reading of a table begin where the log has come to the version that the catalog has: targets make the table fit it
 * there, and rows of a version before that, behind it, would have it change back and forth. Gives the table; undefined where it
 * is gone by then, or is not to be read any more.
 */
export async function beginReading(
  ports: SnapshotPorts,
  table: TableProgress,
  id: string,
  isWanted: () => boolean,
): Promise<CapturedTable | undefined> {
  const { atBoundary, begins, changes, flavour, log, lookups, readTable, rules } = ports;
  for (let attempt = 1; ; attempt++) {
    const before = changes();
    const captured = await readTable(table.schema, table.name);
    if (captured === 'absent' || captured === undefined) {
      log.warn({ table: placeOf(table) }, 'a table of the snapshot is gone; left out');
      table.state = 'done';
      return undefined;
    }
    const place = await readExecuted(lookups, flavour);
    const outcome = await atBoundary(
      (port) => port.contains(place),
      (port) => {
        if (!isWanted()) return 'left';
        if (changes() !== before && attempt < MOST_ATTEMPTS) return 'again';
        // One without a key begins with its only chunk.
        if (captured.schema.key.length > 0) markReading(port, rules, captured, id, 'begin', table);
        if (table.span === undefined && !isUnasked(table)) begins(table);
        return 'begun';
      },
    );
    if (outcome !== 'again') return outcome === 'begun' ? captured : undefined;
  }
}

/** Tells targets what is read: of a range, where they can tell which rows those are. */
export function markReading(
  port: LogPort,
  rules: ColumnRules,
  table: CapturedTable,
  id: string,
  kind: 'begin' | 'end',
  progress: TableProgress,
): void {
  const { span } = progress;
  const published = publishRead(table, rules).table;
  if (span !== undefined && !isOrdered(published.schema, span)) return;
  const whole = kind === 'begin' ? beginContent(id, progress) : [id, kind];
  const content = span === undefined ? whole : rangeMark(id, `${kind}_range`, span);
  port.publish(published, 's', [Buffer.from(JSON.stringify(content))]);
}

/** The content of the mark of a reading that is not brought to its end. */
export function cancelContent(progress: SnapshotProgress, table: TableProgress): Buffer {
  return Buffer.from(JSON.stringify([nameReading(progress, table, placeOf(table)), cancelMark(table)]));
}

export function placeOf({ schema, name }: TableProgress): string {
  return `${schema}.${name}`;
}
