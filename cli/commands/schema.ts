/** `waybill schema`: the JSON Schema of the configuration, for editors. */
import { configJsonSchema } from '../../core/config.ts';
import { EXIT } from '../exit-status.ts';

export function schema(): number {
  console.log(JSON.stringify(configJsonSchema(), undefined, 2));
  return EXIT.good;
}
