/** A MySQL or MariaDB target as the command line sees it. */
import type { TargetConfig } from '../../core/config.ts';
import type { Target, TargetDesk } from '../target-kind.ts';
import { targetGrantsSql } from './grants.ts';
import { readPositions } from './position.ts';
import { checkTarget } from './preflight.ts';
import {
  countReasons,
  discardQuarantine,
  editQuarantine,
  listQuarantine,
  pageQuarantine,
  replayQuarantine,
  showQuarantine,
} from './quarantine.ts';
import { countQuarantine } from './quarantine-count.ts';
import { readRow } from './read-row.ts';
import { MysqlSession } from './session.ts';
import { createMysqlStore } from './store.ts';

export function createMysqlTarget(settings: TargetConfig): Target {
  return {
    store: createMysqlStore(settings),
    async openDesk(applicationName): Promise<TargetDesk> {
      const session = await MysqlSession.open(settings, applicationName);
      return {
        readPositions: () => readPositions(session),
        countQuarantine: () => countQuarantine(session),
        listQuarantine: (flow) => listQuarantine(session, flow),
        countReasons: (flow) => countReasons(session, flow),
        pageQuarantine: (flow, slice) => pageQuarantine(session, flow, slice),
        editQuarantine: (flow, id, edit) => editQuarantine(session, flow, id, edit),
        showQuarantine: (id) => showQuarantine(session, id),
        replayQuarantine: (flow, which) => replayQuarantine(session, flow, which),
        discardQuarantine: (flow, ids) => discardQuarantine(session, flow, ids),
        readRow: (...row) => readRow(session, ...row),
        close: () => session.close(),
      };
    },
    check: (name, flows, tables) => checkTarget(name, settings, flows, tables),
    grantsSql: targetGrantsSql,
  };
}
