/** Where each field of a record came from, as the console shows it. */
import type { Config } from '../../core/config.ts';
import type { ExplainView, OriginView, SaidView } from '../../monitoring/console/views.ts';
import type { Origin, SaidField } from '../commands/explain.ts';
import { hiddenColumns, shown } from './hidden-columns.ts';
import { positionText } from './facts.ts';

/** Throws `config_invalid` for a key that the entity does not have. undefined: there is no such record. */
export async function explainRecord(
  config: Config,
  entity: string,
  key: readonly string[],
): Promise<ExplainView | undefined> {
  // Loaded when it is asked for: it brings all that is known of records, which most processes have no need of.
  const { explainFlow } = await import('../commands/explain.ts');
  const found = await explainFlow(config, entity, key);
  if (found.fields === undefined) return undefined;
  const hides = hiddenColumns(config, found.flow);
  return {
    entity,
    flow: found.flow,
    fields: found.fields.map(({ field, value, decided, rule, origin, merged, lost }) => {
      const hidden = hides(config.canonicalFlows[found.flow]!.schema, entity, field);
      const saidView = ({ value: said, ...from }: SaidField): SaidView => ({
        value: shown(said, hidden),
        origin: originView(from),
      });
      return {
        field,
        value: shown(value, hidden),
        decided,
        rule,
        origin: originView(origin),
        merged: merged.map(saidView),
        lost: lost.map(saidView),
      };
    }),
  };
}

function originView({ position, ...origin }: Partial<Origin>): OriginView {
  return { ...origin, ...(position === undefined ? {} : { position: positionText(position) }) };
}
