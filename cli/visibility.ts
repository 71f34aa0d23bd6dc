/** The views beside canonical tables: made before records are applied, so that nobody makes the same tables at the same time. */
import { makeViews } from '../apply/postgres/views.ts';
import type { TargetConfig } from '../core/config.ts';
import { asReplicationError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import { runService } from '../core/run-service.ts';
import { viewComment, visibilityTables, visibilityViews } from '../transform/visibility/visibility-views.ts';

/**
 * Makes what is missing in `schema` of a Postgres target; waits while the target cannot be reached. What this user may not
 * make is logged: records are worth more than views of them.
 */
export async function ensureVisibility(
  target: TargetConfig,
  schema: string,
  { log, signal }: { readonly log: Logger; readonly signal: AbortSignal },
): Promise<void> {
  if (target.kind !== 'postgres') return;
  const views = visibilityViews(schema).map((view) => ({ ...view, comment: viewComment(view) }));
  await runService(
    async () => {
      try {
        const made = await makeViews(target, schema, visibilityTables(schema), views);
        if (made.length > 0) log.info({ schema, views: made }, 'views made');
      } catch (thrown) {
        const error = asReplicationError(thrown);
        if (error.code === 'target_unreachable' || error.code === 'target_conflict') throw error;
        log.error({ code: error.code, remedy: error.remedy }, error.message);
      }
    },
    { name: `views:${schema}`, signal, log },
  );
}
