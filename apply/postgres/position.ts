/** The position of a flow: it lives in the target, next to the data it describes. Invariant 4. */
import type { ClientBase } from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import { formatPosition, parsePosition, ORIGIN } from '../../core/position.ts';
import type { Move } from '../batch-store.ts';
import type { FlowPosition, PositionRow } from '../target-store.ts';
import { quoteLiteral } from './sql.ts';
import { targetError } from './target-error.ts';

/**
 * Reads the position of a flow; a flow that has none gets the origin. Sequences of another stream, as of another prefix,
 * say nothing of this one: then its own is 0, from before all that is there.
 */
export async function readPosition(
  client: ClientBase,
  flow: string,
  source: string,
  stream: string,
): Promise<FlowPosition> {
  const select = `SELECT position, stream, stream_seq, quarantine_version FROM waybill.position WHERE flow = $1 AND source = $2`;
  type Row = { position: string; stream: string; stream_seq: string; quarantine_version: string };
  try {
    let { rows } = await client.query<Row>(select, [flow, source]);
    if (rows.length === 0) {
      await client.query(
        `INSERT INTO waybill.position (flow, source, position, stream, stream_seq) VALUES ($1, $2, $3, $4, 0)
         ON CONFLICT DO NOTHING`,
        [flow, source, formatPosition(ORIGIN), stream],
      );
      ({ rows } = await client.query<Row>(select, [flow, source]));
    }
    const row = rows[0]!;
    const position = parsePosition(row.position);
    if (position === undefined)
      throw new ReplicationError(
        'internal',
        `waybill.position of flow ${flow} holds "${row.position}", not a position`,
      );
    const seq = row.stream === stream ? Number(row.stream_seq) : 0;
    return { position, seq, quarantineVersion: Number(row.quarantine_version) };
  } catch (thrown) {
    throw targetError(thrown, `reading the position of flow ${flow}`);
  }
}

/** The statement that moves a flow from one position to the next, or fails with WB001 or WB002. */
export function advanceSql(move: Move): string {
  const time =
    move.commitTimeUs === 0
      ? 'NULL'
      : `'epoch'::timestamptz + interval '1 us' * ${Math.trunc(move.commitTimeUs).toString()}`;
  return (
    `SELECT waybill.advance(${quoteLiteral(move.flow)}, ${quoteLiteral(move.source)},` +
    ` '${formatPosition(move.expected)}', '${formatPosition(move.next)}', ${quoteLiteral(move.stream)},` +
    ` ${move.seq}, ${time}, ${move.quarantineVersion})`
  );
}

/** Every position that this target holds. An empty list when no flow ever wrote here. */
export async function readPositions(client: ClientBase): Promise<PositionRow[]> {
  try {
    const known = await client.query<{ there: boolean }>(`SELECT to_regclass('waybill.position') IS NOT NULL AS there`);
    if (known.rows[0]?.there !== true) return [];
    const { rows } = await client.query<{
      flow: string;
      source: string;
      position: string;
      stream: string;
      stream_seq: string;
      commit_time: Date | null;
      quarantine_version: string;
      updated_at: Date;
    }>('SELECT * FROM waybill.position ORDER BY flow, source');
    return rows.map((row) => ({
      flow: row.flow,
      source: row.source,
      position: row.position,
      stream: row.stream,
      streamSeq: Number(row.stream_seq),
      commitTime: row.commit_time,
      quarantineVersion: Number(row.quarantine_version),
      updatedAt: row.updated_at,
    }));
  } catch (thrown) {
    throw targetError(thrown, 'reading waybill.position');
  }
}
