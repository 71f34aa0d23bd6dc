/** The position of a flow: it lives in the target, next to the data it describes. Invariant 4. */
import { ReplicationError } from '../../core/errors.ts';
import { formatPosition, parsePosition, ORIGIN } from '../../core/position.ts';
import type { Move } from '../batch-store.ts';
import type { FlowPosition, PositionRow } from '../target-store.ts';
import type { MysqlSession } from './session.ts';
import { quoteLiteral } from './sql.ts';
import { targetError } from './target-error.ts';
import { waybillTables } from './waybill-database.ts';

/**
 * Reads the position of a flow; a flow that has none gets the origin. Sequences of another stream, as of another prefix,
 * say nothing of this one: then its own is 0, from before all that is there.
 */
export async function readPosition(
  session: MysqlSession,
  flow: string,
  source: string,
  stream: string,
): Promise<FlowPosition> {
  const select =
    'SELECT position, stream, stream_seq, quarantine_version FROM waybill.position' +
    ` WHERE flow = ${quoteLiteral(flow)} AND source = ${quoteLiteral(source)}`;
  try {
    let [row] = await session.rows(select);
    if (row === undefined) {
      await session.run(
        'INSERT INTO waybill.position (flow, source, position, stream, stream_seq, updated_at) VALUES' +
          ` (${quoteLiteral(flow)}, ${quoteLiteral(source)}, '${formatPosition(ORIGIN)}', ${quoteLiteral(stream)}, 0, UTC_TIMESTAMP(6))` +
          ' ON DUPLICATE KEY UPDATE flow = waybill.position.flow',
      );
      [row] = await session.rows(select);
    }
    const [text, of, seq, version] = row!;
    const position = parsePosition(text!);
    if (position === undefined)
      throw new ReplicationError('internal', `waybill.position of flow ${flow} holds "${text}", not a position`);
    return { position, seq: of === stream ? Number(seq) : 0, quarantineVersion: Number(version) };
  } catch (thrown) {
    throw targetError(thrown, `reading the position of flow ${flow}`);
  }
}

/**
 * Compare-and-set of the position. Invariant 5: it comes first in every target transaction, so its row lock serialises
 * writers, and a writer that another one has overtaken fails before it touches data. The statement finds one row, or the
 * move is refused.
 */
export function advanceSql(move: Move): string {
  const { flow, source, expected, next, stream, seq, commitTimeUs, quarantineVersion } = move;
  const time =
    commitTimeUs === 0
      ? ''
      : `, commit_time = '1970-01-01 00:00:00' + INTERVAL ${Math.trunc(commitTimeUs)} MICROSECOND`;
  return (
    `UPDATE waybill.position SET position = '${formatPosition(next)}', stream = ${quoteLiteral(stream)},` +
    ` stream_seq = ${seq}, updated_at = UTC_TIMESTAMP(6)${time} WHERE flow = ${quoteLiteral(flow)}` +
    ` AND source = ${quoteLiteral(source)} AND position = '${formatPosition(expected)}'` +
    ` AND quarantine_version = ${quarantineVersion}`
  );
}

/** Why a move was refused: `target_fenced`, or `target_conflict` when only the quarantine changed. */
export async function moveRefused(session: MysqlSession, move: Move): Promise<ReplicationError> {
  const [row] = await session.rows(
    `SELECT position FROM waybill.position WHERE flow = ${quoteLiteral(move.flow)} AND source = ${quoteLiteral(move.source)}`,
  );
  const expected = formatPosition(move.expected);
  if (row?.[0] === expected)
    return new ReplicationError('target_conflict', `the quarantine of flow ${move.flow} changed`);
  return new ReplicationError(
    'target_fenced',
    `flow ${move.flow} stands at ${row?.[0] ?? 'nothing'}, not at ${expected}`,
  );
}

/** Every position that this target holds. An empty list when no flow ever wrote here. */
export async function readPositions(session: MysqlSession): Promise<PositionRow[]> {
  try {
    if (!(await waybillTables(session)).has('position')) return [];
    const rows = await session.rows(
      'SELECT flow, source, position, stream, stream_seq, commit_time, quarantine_version, updated_at' +
        ' FROM waybill.position ORDER BY flow, source',
    );
    return rows.map(([flow, source, position, stream, seq, commitTime, version, updatedAt]) => ({
      flow: flow!,
      source: source!,
      position: position!,
      stream: stream!,
      streamSeq: Number(seq),
      commitTime: commitTime === null ? null : utcDate(commitTime!),
      quarantineVersion: Number(version),
      updatedAt: utcDate(updatedAt!),
    }));
  } catch (thrown) {
    throw targetError(thrown, 'reading waybill.position');
  }
}

/** A DATETIME text of a session in UTC. */
export function utcDate(text: string): Date {
  return new Date(`${text.replace(' ', 'T')}Z`);
}
