/**
 * Named places at which a test may kill this process, to prove what survives there. They cost one property read when
 * off. Switched on by WAYBILL_FAILPOINT=name[:nth], read once by the command line.
 */
export type Failpoint =
  | 'capture.published-before-ack'
  | 'capture.acked'
  | 'capture.mid-transaction'
  | 'capture.mid-snapshot'
  | 'capture.block-spooled'
  | 'capture.mid-replay'
  | 'capture.before-reread'
  | 'apply.table-changed'
  | 'apply.before-commit'
  | 'apply.committed'
  | 'transform.mid-snapshot'
  | 'transform.snapshot-saved';

let armed: { name: string; remaining: number } | undefined;

/** Arms a failpoint: the process kills itself with SIGKILL at the nth time it is passed. */
export function armFailpoint(name: string, nth = 1): void {
  armed = { name, remaining: nth };
}

/** Passes a failpoint. Does nothing unless it is armed. */
export function failpoint(name: Failpoint): void {
  if (armed === undefined || armed.name !== name) return;
  armed.remaining -= 1;
  if (armed.remaining <= 0) process.kill(process.pid, 'SIGKILL');
}
