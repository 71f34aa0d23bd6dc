/** The tables of docs/entities.md, made from the entities themselves. */
import prettier from 'prettier';
import { ENTITIES } from '../../transform/canonical/catalog.ts';
import type { Entity, Field, Tier } from '../../transform/canonical/entity.ts';

const TIERS: Readonly<Record<Tier, string>> = {
  R: 'at once',
  N: 'every ten seconds',
  B: 'every minute',
};

const HEAD = `# Entities

What canonical records consist of. Fields of one group move together: one owner, one decision, one moment. A derived field is
computed, and no mapping supplies it. Field names are column names in the store; its types are those of Postgres. The JSON
Schema of a record is printed by \`waybill schema ENTITY\`. How rows become records: [mappings](mappings.md).

This page is made from the entities (\`transform/canonical/\`), and a test holds it against them.
`;

/** The whole document, as Markdown, formatted as the project's documents are. */
export async function entityReference(): Promise<string> {
  const text = [HEAD, ...[...ENTITIES.values()].map(section)].join('\n');
  const options = await prettier.resolveConfig('docs/entities.md');
  return await prettier.format(text, { ...options, parser: 'markdown' });
}

function section(entity: Entity): string {
  const rules = entity.groupRules.map(({ fields, rule }) => `- \`${fields.join('`, `')}\` ${rule}`);
  return `
## ${entity.name}

${entity.description} Version ${entity.version}; key: \`${entity.key.join('`, `')}\`; delivered by default ${TIERS[entity.tier]}.

| Field | Value | Column | Group | |
| --- | --- | --- | --- | --- |
${entity.fields.map((field) => row(entity, field)).join('\n')}
${rules.length === 0 ? '' : `\n${rules.join('\n')}\n`}`;
}

function row(entity: Entity, { name, type, nullable, key, derived, group }: Field): string {
  const meanings: Readonly<Record<string, string | undefined>> = entity.meanings ?? {};
  const value = type.words === undefined ? type.name : type.words.map((word) => `\`${word}\``).join(', ');
  const where = key ? '_key_' : derived ? '_derived_' : `\`${group}\``;
  return `| \`${name}\` | ${value}${nullable || key ? '' : ', required'} | ${type.sql} | ${where} | ${meanings[name] ?? ''} |`;
}
