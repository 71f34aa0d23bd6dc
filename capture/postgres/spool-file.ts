/**
 * A file for one transaction in progress. It has no name: it is removed as soon as it is open, so that nothing is left
 * of it when this process ends, however it ends. What it holds is encrypted under a key that is in memory alone: rows
 * come as the source has them, before column rules are applied. It is never the only copy: the source sends it again.
 */
import { createCipheriv, createDecipheriv, randomBytes, randomUUID, type Cipher, type Decipher } from 'node:crypto';
import { mkdir, open, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { buffersUsed } from '../../core/buffer-memory.ts';
import { spoolError } from '../spool-error.ts';

const CIPHER = 'aes-256-ctr';

/** Bytes from a place on, up to the next segment: a place that is written again has another key stream. */
interface Segment {
  readonly at: number;
  readonly iv: Buffer;
}

export class SpoolFile {
  readonly #folder: string;
  readonly #key = randomBytes(32);
  readonly #segments: Segment[] = [];
  #cipher: Cipher | undefined;
  #handle: FileHandle | undefined;
  #size = 0;
  #isClosed = false;
  #readTo = 0;
  #segmentsRead = 0;
  #decipher: Decipher | undefined;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** How often it was cut and written again: each time is kept in memory. */
  get segments(): number {
    return this.#segments.length;
  }

  /** Appends bytes. Throws `spool_full` where the disk is, `spool_failed` on any other failure. */
  async write(bytes: Buffer): Promise<void> {
    try {
      const handle = this.#handle ?? (await this.#open());
      this.#cipher ??= this.#beginSegment();
      const sealed = this.#cipher.update(bytes);
      for (let at = 0; at < sealed.length;)
        at += (await handle.write(sealed, at, sealed.length - at, this.#size + at)).bytesWritten;
      this.#size += sealed.length;
      buffersUsed(sealed.length);
    } catch (thrown) {
      throw spoolError(thrown, `writing ${bytes.length} bytes in ${this.#folder}`);
    }
  }

  #beginSegment(): Cipher {
    const iv = randomBytes(16);
    this.#segments.push({ at: this.#size, iv });
    return createCipheriv(CIPHER, this.#key, iv);
  }

  /** Forgets what was written from `size` on. */
  async cut(size: number): Promise<void> {
    try {
      await this.#handle?.truncate(size);
    } catch (thrown) {
      throw spoolError(thrown, `cutting a file in ${this.#folder}`);
    }
    this.#size = size;
    this.#cipher = undefined;
    while ((this.#segments.at(-1)?.at ?? -1) >= size) this.#segments.pop();
  }

  /** Reads on from where the last call ended, into `buffer` from `from` on: so many bytes; 0 at the end. */
  async read(buffer: Buffer, from: number): Promise<number> {
    const next = this.#segments[this.#segmentsRead];
    if (next?.at === this.#readTo) {
      this.#decipher = createDecipheriv(CIPHER, this.#key, next.iv);
      this.#segmentsRead += 1;
    }
    const until = this.#segments[this.#segmentsRead]?.at ?? this.#size;
    const wanted = Math.min(buffer.length - from, until - this.#readTo);
    try {
      for (let done = 0; done < wanted;) {
        const { bytesRead } = await this.#handle!.read(buffer, from + done, wanted - done, this.#readTo + done);
        if (bytesRead === 0) throw new Error(`it ends at ${this.#readTo + done}, not at ${this.#size}`);
        done += bytesRead;
      }
      if (wanted > 0) this.#decipher!.update(buffer.subarray(from, from + wanted)).copy(buffer, from);
    } catch (thrown) {
      throw spoolError(thrown, `reading a file in ${this.#folder}`);
    }
    buffersUsed(wanted);
    this.#readTo += wanted;
    return wanted;
  }

  async #open(): Promise<FileHandle> {
    const handle = await openNameless(this.#folder);
    if (!this.#isClosed) return (this.#handle = handle);
    await handle.close();
    throw new Error('the file was closed meanwhile');
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    const handle = this.#handle;
    this.#handle = undefined;
    try {
      await handle?.close();
    } catch (thrown) {
      throw spoolError(thrown, `closing a file in ${this.#folder}`);
    }
  }
}

async function openNameless(folder: string): Promise<FileHandle> {
  await mkdir(folder, { recursive: true });
  const path = join(folder, `waybill-spool-${randomUUID()}`);
  const handle = await open(path, 'wx+', 0o600);
  try {
    await unlink(path);
  } catch (thrown) {
    await handle.close();
    throw thrown;
  }
  return handle;
}
