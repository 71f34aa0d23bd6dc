/** Which server the demo's ERP runs on. */
import { ServerUnavailableError } from '../errors.ts';
import { startMysql, type MysqlServer } from '../mysql.ts';

/** `none`: the demo goes without an ERP. */
export type ErpChoice = 'mysql' | 'mariadb' | 'none';

/**
 * Starts the server asked for. Without a wish it is MySQL, and MariaDB where MySQL cannot be had: Debian has MySQL in
 * its unstable release only, which moves.
 *
 * @param log is told where the server came from, and why it is not MySQL
 * @throws ServerUnavailableError where neither can be had; its message says what to install
 */
export async function startErpServer(
  choice: ErpChoice | undefined,
  log: (line: string) => void,
): Promise<MysqlServer | undefined> {
  if (choice === 'none') return undefined;
  if (choice !== undefined) return await startMysql({ flavour: choice, log });
  try {
    return await startMysql({ flavour: 'mysql', log });
  } catch (missing) {
    if (!(missing instanceof ServerUnavailableError)) throw missing;
    log(`${missing.message}\n  MariaDB takes its place.`);
    try {
      return await startMysql({ flavour: 'mariadb', log });
    } catch (thrown) {
      if (!(thrown instanceof ServerUnavailableError)) throw thrown;
      throw new ServerUnavailableError(
        `${missing.message}\n${thrown.message}\nOr leave the ERP out: npm run demo -- --erp none`,
        { cause: thrown },
      );
    }
  }
}
