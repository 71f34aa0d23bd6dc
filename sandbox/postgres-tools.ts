/** Client programs of PostgreSQL that must be there: those of this machine, else Debian's, fetched into the cache. */
import { cachedPackages, fetchPackage, type DebianPackage } from './debian.ts';
import { debianProgram, type ProgramCommand } from './debian-program.ts';
import { messageOf } from './errors.ts';
import { compareVersions } from './path.ts';
import { findPostgresTool, type PostgresMajor, type PostgresTool } from './postgres-programs.ts';

/** How to run a client program. What it is told to do follows `args`. */
export interface PostgresToolCommand extends ProgramCommand {
  /** Where it comes from, for people: 'Debian bookworm postgresql-client-15 15.14-0+deb12u1'. */
  readonly origin: string;
}

/** The release of Debian that carries the clients of each major version, or of the next one. */
const PACKAGES: Readonly<Record<PostgresMajor, { readonly major: number; readonly suite: string }>> = {
  14: { major: 15, suite: 'bookworm' },
  15: { major: 15, suite: 'bookworm' },
  16: { major: 17, suite: 'trixie' },
  17: { major: 17, suite: 'trixie' },
  18: { major: 18, suite: 'sid' },
};

/**
 * A client program for a server of major version `major`: one of that version or a later one.
 *
 * @throws Error if it cannot be had on this machine
 */
export async function getPostgresTool(name: PostgresTool, major: PostgresMajor): Promise<PostgresToolCommand> {
  const installed = await findPostgresTool(name, major);
  if (installed !== undefined) return { file: installed, args: [], origin: `${name} at ${installed}` };
  const { major: packaged, suite } = PACKAGES[major];
  const wanted: DebianPackage = { name: `postgresql-client-${packaged}`, suite, dependencies: true };
  const [newest] = (await cachedPackages(wanted)).sort((a, b) => compareVersions(b.version, a.version));
  try {
    const unpacked = newest ?? (await fetchPackage(wanted));
    const command = await debianProgram(unpacked, `usr/lib/postgresql/${packaged}/bin/${name}`);
    return { ...command, origin: `Debian ${suite} ${wanted.name} ${unpacked.version}` };
  } catch (thrown) {
    throw new Error(
      `${name} for PostgreSQL ${major} is needed: install the client programs of PostgreSQL. ${messageOf(thrown)}`,
      {
        cause: thrown,
      },
    );
  }
}
