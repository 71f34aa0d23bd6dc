/** What runs beside the stages of a process. */
import { asReplicationError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';

/** Runs what a process can do without: that it failed is logged, and the stages go on. */
export async function alongside(what: string, work: Promise<void>, log: Logger): Promise<void> {
  try {
    await work;
  } catch (thrown) {
    const error = asReplicationError(thrown);
    log.error({ code: error.code, remedy: error.remedy }, `${what}: ${error.message}`);
  }
}
