/**
 * Whose the flows of a target are. Rows of schema (database) `waybill` go by the name of their flow. Two installations that
 * have a flow of the same name in one target would take each other's position for their own, and pass rows over.
 */
import { ReplicationError } from '../core/errors.ts';

export interface Claim {
  readonly flow: string;
  /** Of this process: core/stale-sessions.ts. */
  readonly installation: string;
  /** A flow of another installation is refused; otherwise it is taken over, as after NATS was lost. */
  readonly exclusive: boolean;
}

/** Throws `target_foreign` where a claim is exclusive and the flow is another's. */
export function requireOwn({ flow, installation, exclusive }: Claim, owner: string): void {
  if (!exclusive || owner === installation) return;
  throw new ReplicationError(
    'target_foreign',
    `flow ${flow} of this target belongs to installation ${owner} of Waybill, and this is ${installation};` +
      ` where that one is gone: DELETE FROM waybill.owner WHERE flow = '${flow}'`,
  );
}

/**
 * Throws `target_foreign` where a flow is that of another installation which is writing it at the moment: `isAtWork` says
 * whether that has a session here. To be asked before anything is done about sessions that were left behind.
 */
export async function requireIdle(
  { flow, installation }: Pick<Claim, 'flow' | 'installation'>,
  owner: string | undefined,
  isAtWork: (owner: string) => Promise<boolean>,
): Promise<void> {
  if (owner === undefined || owner === installation || !(await isAtWork(owner))) return;
  throw new ReplicationError(
    'target_foreign',
    `flow ${flow} of this target is being written by installation ${owner} of Waybill, and this is ${installation}`,
  );
}

/** Why rows of a flow are not removed; undefined where they may be. */
export function keptFor(owner: string | undefined, installation: string): string | undefined {
  if (owner === undefined || owner === installation) return undefined;
  return `installation ${owner} of Waybill has a flow of this name here, too, and they are its own`;
}
