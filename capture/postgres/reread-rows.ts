/** Reads single rows of a table again. What others of it are there stays as it is: no begin, no end. */
import { abortableDelay } from '../../core/run-service.ts';
import type { TableProgress } from '../snapshot-request.ts';
import type { TableNews } from '../table-news.ts';
import type { ChunkReader } from './chunk-reader.ts';
import { absentSql, keysSql } from './chunk-sql.ts';
import type { PublishedTable } from './published-table.ts';
import type { SnapshotPorts } from './snapshot-ports.ts';
import { keyOf, MOST_ATTEMPTS, nameOf } from './table-job.ts';
import { whyUnreadable } from './unreadable-tables.ts';

interface RereadPorts extends Pick<SnapshotPorts, 'log' | 'rules' | 'tableByName' | 'storedBehind' | 'signal'> {
  readonly task: Pick<TableNews, 'setAside' | 'readAnew'>;
  readonly stopped: () => boolean;
}

/** Reads the rows of which `table` names the keys. */
export async function rereadRows(
  reader: ChunkReader,
  table: TableProgress,
  first: PublishedTable,
  { log, task, rules, tableByName, storedBehind, signal, stopped }: RereadPorts,
): Promise<void> {
  const wanted = table.keys ?? [];
  // Keys of rows that were moved are stored as cursors are.
  const opened = table.needed === true ? wanted.map((key) => rules.openCursor(first.publication, key)) : wanted;
  const keys = opened.filter((key) => key !== null);
  // They were sealed under another secret.
  if (keys.length < wanted.length) return task.readAnew(table);
  const groups = [keys];
  // Those that come from now on are another entry's.
  table.state = 'running';
  table.rows = 0;
  let captured = first;
  for (let attempt = 1; groups.length > 0 && !stopped();) {
    const keys = groups[0]!;
    // Under another key they name nothing any more.
    if (captured.keyIndexes.length === 0 || keyOf(captured) !== keyOf(first)) break;
    let refused: string | undefined;
    const [read] = await reader.read([
      {
        table: captured,
        sql: keysSql(captured, keys),
        absentKeysSql: absentSql(captured, keys),
        whenRefused: async (error) => {
          refused = (await whyUnreadable(reader.client, captured)) ?? error.message;
        },
      },
    ]);
    if (read !== undefined) {
      await storedBehind(read.outcome.commitLsn);
      groups.shift();
      attempt = 1;
      // Which of them there was no room for only the source could tell.
      if (read.chunk.rows.isCut && keys.length > 1) {
        const half = Math.ceil(keys.length / 2);
        groups.unshift(keys.slice(0, half), keys.slice(half));
      } else table.rows += read.rows;
      continue;
    }
    if (refused !== undefined || attempt === MOST_ATTEMPTS) {
      task.setAside(table, refused ?? `${MOST_ATTEMPTS} times running rows changed while they were read again`);
      return;
    }
    attempt += 1;
    const current = tableByName(table.schema, table.name);
    if (current === undefined) break;
    captured = current;
    await abortableDelay(20 * attempt, signal);
  }
  if (stopped()) return;
  log.info({ table: nameOf(table), rows: table.rows, keys: table.keys?.length }, 'rows read again');
  table.state = 'done';
}
