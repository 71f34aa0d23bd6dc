import { existsSync, statfsSync } from 'node:fs';
import { freemem } from 'node:os';

const FOLDER = '/dev/shm';
/** What statfs(2) says of a file system in memory. */
const TMPFS = 0x01021994;
/** More than the servers of the files that run side by side write. */
const ROOM_BYTES = 8 * 2 ** 30;

/**
 * A folder in memory with room for the data of the tests' servers; undefined where there is none. Tests make and remove
 * databases and servers by the hundred, each of them a thousand small files: on a disk, that alone takes a good part of
 * the processor.
 */
export function memoryFolder(): string | undefined {
  if (!existsSync(FOLDER)) return undefined;
  const { type, bavail, bsize } = statfsSync(FOLDER);
  return type === TMPFS && bavail * bsize >= ROOM_BYTES && freemem() >= ROOM_BYTES ? FOLDER : undefined;
}
