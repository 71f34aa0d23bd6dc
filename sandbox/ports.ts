import { randomInt } from 'node:crypto';
import { chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { codeOf, PortTakenError } from './errors.ts';
import { serverCanReach } from './identity.ts';
import { isRunning } from './process.ts';

/** A loopback port of ours, and the folder whose existence says so. */
export interface Claim {
  readonly port: number;
  readonly folder: string;
}

// Below the range that systems take ports of outgoing connections from (32768 and up on Linux, 49152 elsewhere). A port
// in that range could be taken while its server is stopped: even by a client of ours that, connecting again and again,
// is given the very port it connects to and so talks to itself.
const lowest = 12_000;
const highest = 32_000;

/**
 * Claims a free loopback port by making the folder `waybill-<port>` in the temporary folder, or in that of
 * `WAYBILL_SANDBOX_DIR`. As only one process can make it, the port stays ours among all sandboxes that use this folder,
 * even while its server is stopped.
 *
 * @throws PortTakenError if the port asked for is in use, or none of many is free
 */
export async function claimPort(wanted?: number): Promise<Claim> {
  const root = await sandboxRoot();
  if (wanted !== undefined) return await claimFixed(root, wanted);
  for (let attempt = 0; attempt < 200; attempt++) {
    const port = randomInt(lowest, highest);
    const folder = join(root, `waybill-${port}`);
    if (!(await makeFolder(folder))) continue;
    if (await isFree(port)) return { port, folder };
    await rm(folder, { recursive: true, force: true });
  }
  throw new PortTakenError(`no free port found between ${lowest} and ${highest}`);
}

async function claimFixed(root: string, port: number): Promise<Claim> {
  const folder = join(root, `waybill-${port}`);
  // The watchdog of an owner that has just died needs a moment to clear up; a folder still there after that is litter.
  const deadline = performance.now() + 12_000;
  while (!(await makeFolder(folder))) {
    const owner = Number(await readFile(join(folder, 'owner'), 'utf8').catch(() => undefined));
    if (Number.isNaN(owner) || (await isRunning(owner))) {
      throw new PortTakenError(`port ${port} belongs to the sandbox of process ${owner}, see ${folder}`);
    }
    if (performance.now() > deadline) await rm(folder, { recursive: true, force: true });
    else await sleep(100);
  }
  if (await isFree(port)) return { port, folder };
  await rm(folder, { recursive: true, force: true });
  throw new PortTakenError(`port ${port} is in use`);
}

async function makeFolder(folder: string): Promise<boolean> {
  try {
    await mkdir(folder);
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  }
  await chmod(folder, 0o755);
  await writeFile(join(folder, 'owner'), String(process.pid));
  return true;
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return await new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** The folder that `WAYBILL_SANDBOX_DIR` names, else the temporary one. */
async function sandboxRoot(): Promise<string> {
  const given = process.env['WAYBILL_SANDBOX_DIR'];
  if (given) {
    if (await serverCanReach(given)) return given;
    throw new Error(`WAYBILL_SANDBOX_DIR=${given}: the user that servers run as cannot enter it; name another folder`);
  }
  const own = tmpdir();
  return (await serverCanReach(own)) ? own : '/tmp';
}
