/** The files that the TLS settings of a database name. */
import { readFileSync } from 'node:fs';
import type { TlsConfig } from './config.ts';
import { messageOf, ReplicationError } from './errors.ts';

/** What Node's `tls.connect` takes (`tls.createSecureContext`), as far as the settings say. */
export interface TlsFiles {
  readonly rejectUnauthorized: boolean;
  readonly ca?: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
}

/** Reads the files, anew for each connection: certificates are renewed. Throws `config_invalid`. */
export function readTlsFiles(tls: TlsConfig): TlsFiles {
  const { ca_file: ca, cert_file: cert, key_file: key } = tls;
  return {
    rejectUnauthorized: tls.reject_unauthorized,
    ...(ca === undefined ? {} : { ca: read(ca) }),
    ...(cert === undefined ? {} : { cert: read(cert) }),
    ...(key === undefined ? {} : { key: read(key) }),
  };
}

function read(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new ReplicationError('config_invalid', `${file} of the tls settings cannot be read: ${messageOf(cause)}`, {
      cause,
    });
  }
}
