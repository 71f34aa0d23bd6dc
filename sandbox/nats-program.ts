import { join } from 'node:path';
import { cachedPackages, fetchPackage, type DebianPackage, type Unpacked } from './debian.ts';
import { compareVersions, findPrograms, programFolders } from './path.ts';

/** The nats-server program. */
export interface NatsProgram {
  readonly path: string;
  /** '2.15.1' */
  readonly version: string;
  /** Where it comes from, for people: 'Debian sid nats-server 2.15.1-1'. */
  readonly origin: string;
}

/** What we use of it came with this version. */
const oldest = '2.14';

// Written in Go: it needs nothing but a C library, and the machine's will do.
const wanted: DebianPackage = { name: 'nats-server', suite: 'sid' };

/** A nats-server on this machine that is new enough, undefined if there is none. */
export async function installedNats(): Promise<NatsProgram | undefined> {
  const found = await findPrograms('nats-server', programFolders());
  const program = found.find(({ version }) => isEnough(version));
  return program && { ...program, origin: `nats-server ${program.version} at ${program.path}` };
}

/** The newest nats-server among the unpacked Debian packages of the cache, undefined if there is none. */
export async function cachedNats(): Promise<NatsProgram | undefined> {
  const newestFirst = (await cachedPackages(wanted)).sort((a, b) => compareVersions(b.version, a.version));
  for (const unpacked of newestFirst) {
    const program = await programIn(unpacked);
    if (program) return program;
  }
  return undefined;
}

/** The nats-server of Debian sid, fetched. */
export async function fetchedNats(): Promise<NatsProgram> {
  const unpacked = await fetchPackage(wanted);
  const program = await programIn(unpacked);
  if (program) return program;
  throw new Error(`Debian's nats-server ${unpacked.version} does not run here, or is older than ${oldest}`);
}

async function programIn({ root, version }: Unpacked): Promise<NatsProgram | undefined> {
  const folders = ['usr/sbin', 'usr/bin'].map((folder) => join(root, folder));
  const program = (await findPrograms('nats-server', folders)).find((found) => isEnough(found.version));
  return program && { ...program, origin: `Debian ${wanted.suite} nats-server ${version}` };
}

function isEnough(version: string): boolean {
  return compareVersions(version, oldest) >= 0;
}
