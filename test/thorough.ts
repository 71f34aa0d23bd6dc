/**
 * The tests that `npm test` leaves to `npm run test:all` (and `.ci/run`): whoever changes a line wants an answer within ten
 * minutes, and all of them together keep two cores busy for half an hour. What a change is likely to break is tested by the
 * others: every stage, both kinds of databases, whole installations under fire. These ask the same of more servers and
 * directions, for longer, or for what seldom happens.
 */

/** The same on the other servers, versions and directions. */
const OTHER_SERVERS = [
  'integration/apply-mysql-restart',
  'integration/audit-mysql',
  'integration/bad-mysql',
  'integration/drift-mysql',
  'integration/erp-workload',
  'integration/mysql-catalog',
  'integration/mysql-grants',
  'integration/oldest-postgres',
  'integration/outbound-mysql',
  'integration/packs-mysql',
  'integration/rebuild',
  'integration/sandbox-mysql',
  'integration/snapshot-key-range',
  'integration/snapshot-lines-mysql',
  'integration/soft-deletes',
  'integration/type-mapping',
  'e2e/mysql-failover',
  'e2e/mysql-sources',
  'e2e/packs',
];

/** Many rows, many rounds, random sequences. */
const AT_LENGTH = [
  'integration/batches-at-random',
  'integration/capture-restart',
  'integration/capture-streaming',
  'integration/drift-records',
  'integration/fan-out',
  'integration/held-drain',
  'integration/large-inserts',
  'integration/large-values',
  'integration/mysql-oracle',
  'integration/outbound-heartbeats',
  'integration/postgres-oracle',
  'integration/privacy',
  'integration/rule-bursts',
  'integration/snapshot-memory',
  'fault/schema-fuzz',
  'fault/streaming',
  'e2e/compose',
  'e2e/retailer',
];

/** What goes wrong seldom, or in one part alone. */
const SELDOM = [
  'integration/alert-causes',
  'integration/alerts',
  'integration/audit',
  'integration/bad-broker',
  'integration/bad-source',
  'integration/bad-target',
  'integration/console-quarantine',
  'integration/console-records',
  'integration/drift-while-loading',
  'integration/exit-status',
  'integration/health-http',
  'integration/mysql-reread',
  'integration/outbound-exchanges',
  'integration/outbound-retries',
  'integration/outbound-row-owners',
  'integration/outbound-rows-taken-for-one',
  'integration/outbound-shared-rows',
  'integration/outbound-teardown',
  'integration/source-teardown',
  'integration/webhooks',
  'fault/mysql-capture',
  'fault/mysql-log',
  'fault/silent-broker',
  'fault/silent-source',
  'fault/silent-target',
  'fault/zombie',
];

/** Files below `test/`, without `.test.ts`. */
export const THOROUGH: readonly string[] = [...OTHER_SERVERS, ...AT_LENGTH, ...SELDOM];
