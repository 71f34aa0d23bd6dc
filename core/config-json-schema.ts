/** What the JSON Schema of the configuration says of secrets: any of them may be given as `…_file` instead. */

/** Texts that may be kept in files of their own. */
const SECRET = /^(?:url|password|token|secret|previous_secret|salt|encryption_key)$/;

type JsonNode = Readonly<Record<string, unknown>>;

/** Whether `NAME_file` may stand for this name. */
export function isSecretName(name: string): boolean {
  return SECRET.test(name);
}

/** The schema with `NAME_file` beside each secret, of which either is required where the secret was. */
export function withSecretFiles(node: JsonNode): JsonNode {
  const inner = Object.fromEntries(
    Object.entries(node).map(([key, value]) => {
      if (Array.isArray(value)) return [key, value.map((each) => (isNode(each) ? withSecretFiles(each) : each))];
      return [key, isNode(value) ? withSecretFiles(value) : value];
    }),
  );
  const { properties, required = [], allOf = [] } = inner;
  // Not every node that has `properties` is a schema: a name of a property may be one of these words.
  if (!isNode(properties) || node['type'] !== 'object') return inner;
  const secrets = Object.keys(properties).filter((name) => SECRET.test(name));
  if (secrets.length === 0) return inner;
  const needed = (required as string[]).filter((name) => SECRET.test(name));
  const either = needed.map((name) => ({ oneOf: [{ required: [name] }, { required: [`${name}_file`] }] }));
  return {
    ...inner,
    properties: { ...properties, ...Object.fromEntries(secrets.map((name) => [`${name}_file`, { type: 'string' }])) },
    required: (required as string[]).filter((name) => !SECRET.test(name)),
    ...(either.length === 0 ? {} : { allOf: [...(allOf as unknown[]), ...either] }),
  };
}

function isNode(value: unknown): value is JsonNode {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}
