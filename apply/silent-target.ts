/**
 * Notices a target that no longer answers. A server that is frozen, or a host that is gone without a word, closes no
 * connection: whatever was asked of it would wait for as long as the operating system repeats what nobody confirms.
 */
import { asReplicationError, ReplicationError } from '../core/errors.ts';
import { abortableDelay } from '../core/run-service.ts';
import type { TargetStore } from './target-store.ts';

/** So long an answer may take before it is looked whether the target still lets anybody connect. */
const UNANSWERED_MS = 30_000;
/** What is asked when somebody connects may be answered no more either. */
const CONNECTING_MS = 15_000;

/**
 * What `asked` gives. Rejects with `target_unreachable` when the target has not answered for 30 s and lets nobody connect
 * either: a statement that takes long is no silence.
 */
export async function unlessSilent<T>(
  asked: Promise<T>,
  store: TargetStore,
  applicationName: string,
  unansweredMs = UNANSWERED_MS,
): Promise<T> {
  const answered = new AbortController();
  const watch = async (): Promise<never> => {
    for (;;) {
      await abortableDelay(unansweredMs, answered.signal);
      // Whoever waited for it has it.
      if (answered.signal.aborted) return await new Promise<never>(() => {});
      if (await letsConnect(store, applicationName)) continue;
      throw new ReplicationError(
        'target_unreachable',
        `the target has not answered for ${unansweredMs / 1000} s, and lets nobody connect`,
      );
    }
  };
  try {
    return await Promise.race([asked, watch()]);
  } finally {
    answered.abort();
  }
}

/** Whether somebody can connect; any answer is one, a refusal too. */
async function letsConnect(store: TargetStore, applicationName: string): Promise<boolean> {
  const given = new AbortController();
  const connecting = store.open(applicationName).then(
    async (session) => {
      await session.close();
      return true;
    },
    (thrown: unknown) => {
      const { code, context } = asReplicationError(thrown);
      // What comes with an SQLSTATE the server said itself: too many connections, for one.
      return code !== 'target_unreachable' || context['sqlState'] !== undefined;
    },
  );
  const late = abortableDelay(CONNECTING_MS, given.signal).then(() => false);
  const answers = await Promise.race([connecting, late]);
  given.abort();
  return answers;
}
