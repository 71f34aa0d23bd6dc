/** Certificates for servers under test, made by openssl. */
import { execFile } from 'node:child_process';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** The files of an authority, of a server that it vouches for, and of an authority that knows nothing of the server. */
export class Certificates {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** For a server at `localhost` and 127.0.0.1. */
  static async make(): Promise<Certificates> {
    const folder = await mkdtemp(join(tmpdir(), 'waybill-tls-'));
    // Servers run as a user of their own.
    await chmod(folder, 0o755);
    const openssl = async (...args: string[]): Promise<unknown> =>
      await promisify(execFile)('openssl', args, { cwd: folder });
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    for (const name of ['ca', 'stranger'])
      await openssl('req', '-x509', ...key, '-keyout', `${name}.key`, '-out', `${name}.pem`, '-subj', `/CN=${name}`);
    await openssl('req', ...key, '-keyout', 'server.key', '-out', 'server.csr', '-subj', '/CN=server');
    await writeFile(join(folder, 'names'), 'subjectAltName = DNS:localhost, IP:127.0.0.1\n');
    const signed = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-extfile', 'names'];
    await openssl('x509', '-req', '-in', 'server.csr', ...signed, '-out', 'server.pem');
    await chmod(join(folder, 'server.key'), 0o644);
    return new Certificates(folder);
  }

  get ca(): string {
    return join(this.#folder, 'ca.pem');
  }

  get strangersCa(): string {
    return join(this.#folder, 'stranger.pem');
  }

  /** Settings of a server. */
  get settings(): { readonly ssl_ca: string; readonly ssl_cert: string; readonly ssl_key: string } {
    return { ssl_ca: this.ca, ssl_cert: join(this.#folder, 'server.pem'), ssl_key: join(this.#folder, 'server.key') };
  }

  async dispose(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
  }
}
