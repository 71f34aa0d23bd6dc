import { chown } from 'node:fs/promises';
import { run } from './process.ts';

/** The user that servers run as. */
export interface Identity {
  readonly uid: number;
  readonly gid: number;
}

const nobody: Identity = { uid: 65534, gid: 65534 };

/**
 * The user to start servers as: `nobody` when we are root, because PostgreSQL refuses to run as root and no throw-away
 * server needs to; undefined (ourselves) otherwise.
 */
export function serverIdentity(): Identity | undefined {
  return process.getuid?.() === 0 ? nobody : undefined;
}

/** Gives `path` (not what is in it) to the user that servers run as. */
export async function giveToServer(path: string): Promise<void> {
  const identity = serverIdentity();
  if (identity) await chown(path, identity.uid, identity.gid);
}

/** Whether the user that servers run as can execute the file, or enter the folder, at `path`. */
export async function serverCanReach(path: string): Promise<boolean> {
  // Asked of the system itself: modes alone would miss access lists, and any folder on the way may be closed.
  return await run('/bin/sh', ['-c', 'test -x "$1"', 'sh', path], { identity: serverIdentity() }).then(
    () => true,
    () => false,
  );
}
