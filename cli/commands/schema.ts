/** `waybill schema`: the JSON Schema of the configuration, for editors, or of an entity's records, for those who read them. */
import { configJsonSchema } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
import { nearest } from '../../core/nearest.ts';
import { EXIT } from '../exit-status.ts';

export async function schema(entity: string | undefined): Promise<number> {
  console.log(JSON.stringify(entity === undefined ? configJsonSchema() : await ofEntity(entity), undefined, 2));
  return EXIT.good;
}

/** Loaded when asked for: the code lists of the canonical types are large. */
async function ofEntity(name: string): Promise<unknown> {
  const { ENTITIES, ENTITY_NAMES } = await import('../../transform/canonical/catalog.ts');
  const { entityJsonSchema } = await import('../../transform/canonical/entity.ts');
  const entity = ENTITIES.get(name);
  if (entity !== undefined) return entityJsonSchema(entity);
  const near = nearest(name, ENTITY_NAMES);
  const known = near === undefined ? `entities are ${ENTITY_NAMES.join(', ')}` : `did you mean "${near}"?`;
  throw new ReplicationError('config_invalid', `there is no entity "${name}": ${known}`);
}
