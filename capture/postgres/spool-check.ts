/** What `waybill check` says of the place where transactions in progress are to be kept. */
import { statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import type { PostgresSourceConfig } from '../../core/config.ts';
import { asReplicationError } from '../../core/errors.ts';
import type { Add } from '../column-findings.ts';
import { SpoolFile } from './spool-file.ts';

/** `f_type` of a tmpfs on Linux (statfs(2)). */
const TMPFS = 0x01021994;

/** Warns only: without this place transactions are received at their commit. */
export async function checkSpool(
  {
    streaming,
    spool_dir: folder = tmpdir(),
    spool_bytes: bytes,
  }: Pick<PostgresSourceConfig, 'streaming' | 'spool_dir' | 'spool_bytes'>,
  add: Add,
): Promise<void> {
  if (streaming === 'off') return;
  const file = new SpoolFile(folder);
  try {
    await file.write(Buffer.from('waybill check'));
  } catch (thrown) {
    const { message, remedy } = asReplicationError(thrown);
    add('warning', 'spool_dir', message, remedy);
    return;
  } finally {
    await file.close();
  }
  const { type, bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  if (type === TMPFS)
    add('warning', 'spool_dir', `${folder} is a tmpfs, which is memory`, 'Give the source a spool_dir on a disk.');
  else if (free < bytes)
    add(
      'warning',
      'spool_dir',
      `${folder} has ${free} bytes free, and transactions in progress may have ${bytes}`,
      'Free disk, lower spool_bytes of the source, or give it another spool_dir.',
    );
  else add('ok', 'spool_dir', `${folder} can keep transactions in progress`);
}
