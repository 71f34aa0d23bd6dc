/** What becomes of a value before it may enter the stream: a keyed hash, a mask, or a ciphertext. */
import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto';
import { ReplicationError } from './errors.ts';

/** Turns the values of one column into what the stream carries instead. NULL stays NULL. */
export interface ColumnGuard {
  readonly rule: 'hash' | 'mask' | 'encrypt';
  /** Takes the UTF-8 bytes of a value's canonical text (of a binary column: its bytes), gives text. */
  readonly apply: (value: Uint8Array) => string;
}

/**
 * HMAC-SHA-256 (RFC 2104) as 64 hexadecimal digits. Equal values have equal hashes, in every column and every source
 * that has the same salt, so that joins still work; without the salt nobody can try values out.
 */
export function hashGuard(salt: string): ColumnGuard {
  const key = Buffer.from(salt, 'utf8');
  return { rule: 'hash', apply: (value) => createHmac('sha256', key).update(value).digest('hex') };
}

const HIDDEN = '****';

/** Keeps some characters at the ends; `****` stands for the rest, however long, and for all of a value that has no more. */
export function maskGuard({ keepFirst, keepLast }: { keepFirst: number; keepLast: number }): ColumnGuard {
  return {
    rule: 'mask',
    apply: (value) => {
      const text = Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('utf8');
      const characters = Array.from(text);
      if (characters.length <= keepFirst + keepLast) return HIDDEN;
      const last = keepLast === 0 ? '' : characters.slice(-keepLast).join('');
      return characters.slice(0, keepFirst).join('') + HIDDEN + last;
    },
  };
}

const CIPHER = 'aes-256-gcm';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Version of the form `wb1.<key id>.<base64 of nonce, ciphertext, tag>`. */
const FORM = 'wb1';

/** AES-256-GCM (NIST SP 800-38D) with a random nonce; form and key id are authenticated with the value. */
export function encryptGuard(keyId: string, key: Uint8Array): ColumnGuard {
  const head = `${FORM}.${keyId}`;
  return { rule: 'encrypt', apply: (value) => `${head}.${seal(key, head, value).toString('base64')}` };
}

/**
 * The bytes that an `encrypt` rule was given. `keys` by key id, 32 bytes each. Throws `config_invalid` for a text that
 * is not such a value, a key that is not given, and a value that was changed.
 */
export function decryptValue(text: string, keys: ReadonlyMap<string, Uint8Array>): Buffer {
  const [form, keyId = '', sealed] = text.split('.');
  const key = keys.get(keyId);
  if (form !== FORM || sealed === undefined)
    throw new ReplicationError('config_invalid', 'the text is not an encrypted value of this form');
  if (key === undefined) throw new ReplicationError('config_invalid', `there is no key ${keyId}`);
  try {
    return unseal(key, `${FORM}.${keyId}`, Buffer.from(sealed, 'base64'));
  } catch (cause) {
    throw new ReplicationError('config_invalid', `the value was not encrypted with this key ${keyId}`, { cause });
  }
}

/** Nonce, ciphertext and tag. */
export function seal(key: Uint8Array, context: string, value: Uint8Array): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, key, nonce).setAAD(Buffer.from(context, 'utf8'));
  return Buffer.concat([nonce, cipher.update(value), cipher.final(), cipher.getAuthTag()]);
}

/** What `seal` was given. Throws what node:crypto throws for anything else. */
export function unseal(key: Uint8Array, context: string, sealed: Buffer): Buffer {
  const decipher = createDecipheriv(CIPHER, key, sealed.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES })
    .setAAD(Buffer.from(context, 'utf8'))
    .setAuthTag(sealed.subarray(-TAG_BYTES));
  return Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()]);
}
