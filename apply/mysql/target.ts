/** A MySQL or MariaDB target as the command line sees it. */
import type { TargetConfig } from '../../core/config.ts';
import { noticesOf } from '../followed-tables.ts';
import type { Target, TargetDesk } from '../target-kind.ts';
import { outboundFit } from '../outbound/outbound-fit.ts';
import { tablesOf } from '../outbound/outbound-shape.ts';
import { createMysqlOutboundStore } from './outbound-store.ts';
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
import { databaseOf, MysqlSession } from './session.ts';
import { createMysqlStore } from './store.ts';
import { readTableRecords } from './table-records.ts';

export function createMysqlTarget(settings: TargetConfig): Target {
  return {
    store: createMysqlStore(settings),
    outboundStore: (plan) => createMysqlOutboundStore(settings, plan),
    async checkOutbound(plan) {
      const session = await MysqlSession.open(settings, 'waybill check');
      try {
        return outboundFit(plan, await readSystemTables(session, databaseOf(settings.url), tablesOf(plan)));
      } catch (thrown) {
        throw targetError(thrown, 'reading the tables that an outbound mapping writes to');
      } finally {
        await session.close();
      }
    },
    async outboundTraces(of) {
      const session = await MysqlSession.open(settings, 'waybill teardown');
      try {
        return await outboundTraces(session, of);
      } finally {
        await session.close();
      }
    },
    async openDesk(applicationName): Promise<TargetDesk> {
      const session = await MysqlSession.open(settings, applicationName);
      return {
        readPositions: () => readPositions(session),
        tableNotices: async (flow) => noticesOf(await readTableRecords(session, flow, true)),
        tableRecords: (flow) => readTableRecords(session, flow),
        rebuild: (options) => rebuildFlow(session, options),
        countQuarantine: () => countQuarantine(session),
        listQuarantine: (flow) => listQuarantine(session, flow),
        countReasons: (flow) => countReasons(session, flow),
        pageQuarantine: (flow, slice) => pageQuarantine(session, flow, slice),
        editQuarantine: (flow, id, edit) => editQuarantine(session, flow, id, edit),
        showQuarantine: (id) => showQuarantine(session, id),
        replayQuarantine: (flow, which, { deletes }) => replayQuarantine(session, flow, which, deletes),
        discardQuarantine: (flow, ids) => discardQuarantine(session, flow, ids),
        readRow: (...row) => readRow(session, ...row),
        close: () => session.close(),
      };
    },
    check: (name, flows, tables) => checkTarget(name, settings, flows, tables),
    grantsSql: (user, schemas, outbound) => targetGrantsSql(user, schemas, outbound, databaseOf(settings.url)),
  };
}
