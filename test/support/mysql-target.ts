/** A database of MySQL or MariaDB as the target of a flow that is fed by hand. */
import { randomUUID } from 'node:crypto';
import { readPositions } from '../../apply/mysql/position.ts';
import { MysqlSession } from '../../apply/mysql/session.ts';
import { createMysqlStore } from '../../apply/mysql/store.ts';
import type { TargetConfig } from '../../core/config.ts';
import type { MysqlServer } from '../../sandbox/mysql.ts';
import { FrameFeed } from './frame-feed.ts';

export interface MysqlTarget {
  readonly target: TargetConfig;
  readonly session: MysqlSession;
  readonly feed: FrameFeed;
}

/** A database of its own (or `url`), a stream, and nothing of what Waybill kept in this server before. */
export async function openMysqlTarget(
  server: MysqlServer,
  natsUrl: string,
  flow: Record<string, unknown>,
  url?: string,
): Promise<MysqlTarget> {
  const target = { kind: server.flavour, url: url ?? (await server.createDatabase(`vis_${randomUUID().slice(0, 8)}`)) };
  const session = await MysqlSession.open(target, 'test');
  await session.run('DROP DATABASE IF EXISTS waybill');
  const feed = await FrameFeed.open({
    natsUrl,
    target,
    flow,
    createStore: createMysqlStore,
    readPosition: async () => (await readPositions(session))[0]?.position,
  });
  return { target, session, feed };
}
