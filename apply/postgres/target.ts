/** A Postgres target as the command line sees it. */
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
import { openTargetSession } from './session.ts';
import { createPostgresStore } from './store.ts';

export function createPostgresTarget(settings: TargetConfig): Target {
  return {
    store: createPostgresStore(settings),
    async openDesk(applicationName): Promise<TargetDesk> {
      const session = await openTargetSession(settings, applicationName);
      const { client } = session;
      return {
        readPositions: () => readPositions(client),
        countQuarantine: () => countQuarantine(client),
        listQuarantine: (flow) => listQuarantine(client, flow),
        countReasons: (flow) => countReasons(client, flow),
        pageQuarantine: (flow, slice) => pageQuarantine(client, flow, slice),
        editQuarantine: (flow, id, edit) => editQuarantine(client, flow, id, edit),
        showQuarantine: (id) => showQuarantine(client, id),
        replayQuarantine: (flow, which, flowSettings) => replayQuarantine(client, flow, which, flowSettings),
        discardQuarantine: (flow, ids) => discardQuarantine(client, flow, ids),
        readRow: (...row) => readRow(client, ...row),
        close: () => session.close(),
      };
    },
    check: (name, flows, tables) => checkTarget(name, settings, flows, tables),
    grantsSql: targetGrantsSql,
  };
}
