/** A Postgres target as the command line sees it. */
import type { TargetConfig } from '../../core/config.ts';
import { noticesOf } from '../followed-tables.ts';
import type { Target, TargetDesk } from '../target-kind.ts';
import { outboundFit } from '../outbound/outbound-fit.ts';
import { tablesOf } from '../outbound/outbound-shape.ts';
import { createPostgresOutboundStore } from './outbound-store.ts';
import { outboundTraces } from './outbound-traces.ts';
import { readSystemTables } from './system-table.ts';
import { targetError } from './target-error.ts';
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
import { rebuildFlow } from './rebuild.ts';
import { openTargetSession } from './session.ts';
import { createPostgresStore } from './store.ts';
import { readTableRecords } from './table-records.ts';

export function createPostgresTarget(settings: TargetConfig): Target {
  return {
    store: createPostgresStore(settings),
    outboundStore: (plan) => createPostgresOutboundStore(settings, plan),
    async checkOutbound(plan) {
      const session = await openTargetSession(settings, 'waybill check');
      try {
        return outboundFit(plan, await readSystemTables(session.client, tablesOf(plan)));
      } catch (thrown) {
        throw targetError(thrown, 'reading the tables that an outbound mapping writes to');
      } finally {
        await session.close();
      }
    },
    async outboundTraces(of) {
      const session = await openTargetSession(settings, 'waybill teardown');
      try {
        return await outboundTraces(session.client, of);
      } finally {
        await session.close();
      }
    },
    async openDesk(applicationName): Promise<TargetDesk> {
      const session = await openTargetSession(settings, applicationName);
      const { client } = session;
      return {
        readPositions: () => readPositions(client),
        tableNotices: async (flow) => noticesOf(await readTableRecords(client, flow, true)),
        tableRecords: (flow) => readTableRecords(client, flow),
        rebuild: (options) => rebuildFlow(client, options),
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
