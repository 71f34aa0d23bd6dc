import { spawn } from 'node:child_process';

/** Outlives this process to clear up after it. */
export interface Watchdog {
  /** The server to end if we die, undefined for none. */
  watch(pid: number | undefined): void;
  /** Ends the watchdog: the caller has cleared up itself. */
  dismiss(): Promise<void>;
}

// Reads process ids until end of file, which comes when this process has died, by whatever cause. Then it ends the last
// one named, and with it what is left of its process group, and deletes the folder. 'done' is our own farewell.
const script = `
trap '' HUP INT TERM
# One that has ended and only waits to be reaped does not run; where there is no /proc, such a one is waited for.
runs() { kill -0 "$1" 2>/dev/null && ! grep -q ') Z ' "/proc/$1/stat" 2>/dev/null; }
pid=
while read -r line; do pid=$line; done
[ "$pid" = done ] && exit 0
if [ -n "$pid" ]; then
  kill -s "$2" "$pid" 2>/dev/null
  turns=0
  while runs "$pid" && [ $turns -lt 100 ]; do sleep 0.1; turns=$((turns + 1)); done
  kill -s KILL -- "-$pid" 2>/dev/null
fi
rm -rf -- "$1" 2>/dev/null || { sleep 1; rm -rf -- "$1"; }
`;

/**
 * Starts a helper that, should this process die without stopping its server, sends that server `signal` and deletes
 * `folder`. It works for SIGKILL too: the helper sits in a session of its own and waits for the end of a pipe.
 */
export function startWatchdog(folder: string, signal: 'QUIT' | 'KILL' | 'TERM'): Watchdog {
  const helper = spawn('/bin/sh', ['-c', script, 'waybill-sandbox-watchdog', folder, signal], {
    cwd: '/',
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  const gone = new Promise<void>((resolve) => {
    helper.once('exit', () => resolve());
    helper.once('error', () => resolve());
  });
  // A helper that someone killed must not bring us down with it.
  helper.stdin.on('error', () => undefined);
  helper.unref();
  if ('unref' in helper.stdin && typeof helper.stdin.unref === 'function') helper.stdin.unref();
  return {
    watch(pid) {
      helper.stdin.write(`${pid ?? ''}\n`);
    },
    async dismiss() {
      helper.ref();
      helper.stdin.end('done\n');
      await gone;
    },
  };
}
