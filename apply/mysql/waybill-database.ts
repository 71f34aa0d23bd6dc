/** What Waybill keeps in a target: the database `waybill`, made when it is missing. */
import type { MysqlSession } from './session.ts';
import { targetError } from './target-error.ts';

const CHARACTERS = 'CHARACTER SET utf8mb4 COLLATE utf8mb4_bin';
const NAME = `varchar(64) ${CHARACTERS} NOT NULL`;

const TABLES: Readonly<Record<string, string>> = {
  position: `flow ${NAME}, source ${NAME}, position mediumtext ${CHARACTERS} NOT NULL, stream varchar(255) NOT NULL,
    stream_seq bigint NOT NULL, commit_time datetime(6), quarantine_version bigint NOT NULL DEFAULT 0,
    updated_at datetime(6) NOT NULL, PRIMARY KEY (flow, source)`,
  quarantine: `id bigint NOT NULL AUTO_INCREMENT PRIMARY KEY, flow ${NAME}, source ${NAME}, table_schema ${NAME},
    table_name ${NAME}, \`key\` longtext, position mediumtext NOT NULL, ordinal int NOT NULL, op char(1) NOT NULL,
    reason varchar(40) NOT NULL, \`sqlstate\` char(5), message text, \`change\` longtext NOT NULL,
    created_at datetime(6) NOT NULL, KEY quarantine_key (flow, table_schema, table_name, id)`,
  quarantine_piece: `id bigint NOT NULL, n int NOT NULL, piece longtext ${CHARACTERS} NOT NULL, PRIMARY KEY (id, n)`,
  snapshot: `flow ${NAME}, table_schema ${NAME}, table_name ${NAME}, seen_table varchar(64) NOT NULL,
    PRIMARY KEY (flow, table_schema, table_name)`,
  snapshot_range: `flow ${NAME}, table_schema ${NAME}, table_name ${NAME}, seen_table varchar(64) NOT NULL,
    id varchar(255) ${CHARACTERS} NOT NULL, PRIMARY KEY (flow, table_schema, table_name)`,
  tables: `flow ${NAME}, source ${NAME}, table_schema ${NAME}, table_name ${NAME}, definition longtext ${CHARACTERS},
    kept longtext ${CHARACTERS} NOT NULL, pending longtext ${CHARACTERS} NOT NULL, state varchar(10) NOT NULL,
    reason text ${CHARACTERS}, updated_at datetime(6) NOT NULL, PRIMARY KEY (flow, source, table_schema, table_name)`,
  schema_changes: `flow ${NAME}, source ${NAME}, table_schema ${NAME}, table_name ${NAME}, plan longtext ${CHARACTERS},
    superseded longtext ${CHARACTERS}, PRIMARY KEY (flow, source, table_schema, table_name)`,
  owner: `flow ${NAME} PRIMARY KEY, installation ${NAME}`,
  outbound_rows: `flow ${NAME}, row_id char(32) CHARACTER SET ascii NOT NULL, record_id char(32) CHARACTER SET ascii NOT NULL,
    \`key\` longtext ${CHARACTERS} NOT NULL, PRIMARY KEY (flow, row_id), KEY outbound_rows_record (flow, record_id)`,
};

/** Where the mappings of flows of records hold rows; it is made with the first of them. */
export const HELD_TABLE = 'held';

export async function waybillTables(session: MysqlSession): Promise<ReadonlySet<string>> {
  const rows = await session.rows("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'waybill'");
  return new Set(rows.map(([name]) => name!));
}

/** Makes what is missing. Throws `target_privilege` when this user may not. */
export async function prepareWaybillDatabase(session: MysqlSession): Promise<void> {
  try {
    const there = await waybillTables(session);
    const missing = Object.entries(TABLES).filter(([name]) => !there.has(name));
    if (missing.length === 0) return;
    if (there.size === 0) {
      const [row] = await session.rows("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'waybill'");
      if (row === undefined) await session.run('CREATE DATABASE IF NOT EXISTS `waybill` CHARACTER SET utf8mb4');
    }
    for (const [name, columns] of missing)
      await session.run(
        `CREATE TABLE IF NOT EXISTS \`waybill\`.\`${name}\` (${columns}) ENGINE=InnoDB CHARACTER SET utf8mb4`,
      );
  } catch (thrown) {
    throw targetError(thrown, 'creating database waybill in the target');
  }
}
