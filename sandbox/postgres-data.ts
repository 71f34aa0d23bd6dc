import { createHash } from 'node:crypto';
import { appendFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { cached } from './cache.ts';
import { giveToServer, serverIdentity } from './identity.ts';
import type { PostgresPrograms } from './postgres-programs.ts';
import { run } from './process.ts';

/**
 * Makes `dataDir`, owned by the servers' user, as a copy of a template data folder of that version: `initdb` takes a
 * second, copying its 31 MB next to nothing.
 */
export async function createDataFolder(programs: PostgresPrograms, dataDir: string): Promise<void> {
  const template = await templateFolder(programs);
  await run('cp', [...cloningCopy, join(template, 'data'), dataDir]);
}

// -a keeps the owner and the modes, which PostgreSQL insists on; where the file system can, the copy shares its blocks.
const cloningCopy = process.platform === 'linux' ? ['-a', '--reflink=auto'] : ['-a'];

async function templateFolder(programs: PostgresPrograms): Promise<string> {
  const identity = serverIdentity();
  const builder = createHash('sha256').update(programs.origin).digest('hex').slice(0, 8);
  const owner = identity?.uid ?? process.getuid?.() ?? 0;
  return await cached(`postgres-template/${programs.version}-${builder}-user${owner}`, async (folder) => {
    const dataDir = join(folder, 'data');
    await mkdir(dataDir, { mode: 0o700 });
    await giveToServer(dataDir);
    const initdb = async (locale: string): Promise<string> =>
      await run(
        join(programs.bin, 'initdb'),
        [
          ['-D', dataDir],
          ['-U', 'postgres', '-A', 'trust'],
          ['-E', 'UTF8', `--locale=${locale}`, '--lc-messages=C'],
          ['--no-sync', '--wal-segsize=1'],
        ].flat(),
        // The machine's time zone and language would otherwise find their way into the configuration.
        { env: { ...process.env, TZ: 'UTC', LC_ALL: 'C' }, identity },
      );
    // A failed initdb removes what it made and leaves the folder empty. Not every system knows C.UTF-8.
    await initdb('C.UTF-8').catch(() => initdb('C'));
  });
}

const defaultSettings: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '100',
  shared_buffers: '128MB',
  wal_level: 'logical',
  max_wal_senders: '20',
  max_replication_slots: '20',
  min_wal_size: '64MB',
  max_wal_size: '1GB',
  // The data is thrown away: it has to outlive a killed server, never a machine without power.
  fsync: 'off',
};

/** The lines of postgresql.conf for a sandbox: its own settings, `settings` over them, those in `without` left out. */
export function settingsText(settings: Readonly<Record<string, string>>, without: readonly string[] = []): string {
  return Object.entries({ ...defaultSettings, ...settings })
    .filter(([name]) => !without.includes(name))
    .map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`)
    .join('');
}

/**
 * Writes the settings of a server into its configuration file, not its command line, so that `ALTER SYSTEM` can change
 * them.
 */
export async function writeSettings(dataDir: string, settings: Readonly<Record<string, string>>): Promise<void> {
  await appendFile(join(dataDir, 'postgresql.conf'), `\n# waybill sandbox\n${settingsText(settings)}`);
}
