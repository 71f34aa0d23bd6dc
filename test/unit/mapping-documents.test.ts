/** docs/mappings.md and docs/entities.md say what the program does. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, it } from 'vitest';
import { CONDITION_OPERATORS, EXPRESSION_OPERATORS } from '../../transform/mapping/expression.ts';
import { parseMapping } from '../../transform/mapping/mapping-file.ts';
import { entityReference } from '../support/entity-reference.ts';

const DOCS = resolve(import.meta.dirname, '../../docs');
const mappings = readFileSync(resolve(DOCS, 'mappings.md'), 'utf8');
/** First cells of the rows of all tables. */
const named = new Set(
  [...mappings.matchAll(/^\| ((?:`\w+`(?:, )?)+) +\|/gm)].flatMap(([, cell]) => cell!.match(/\w+/g)!),
);
/** The forms in the second cells of a table of operators. */
const forms = [...mappings.matchAll(/^\| `\w+`[^|]*\| `(\{.*?\})` +\|/gm)].map(([, form]) => form!);

it('names every operator', () => {
  expect([...EXPRESSION_OPERATORS, ...CONDITION_OPERATORS].filter((operator) => !named.has(operator))).toEqual([]);
});

it('names every way to merge', () => {
  expect(['lww', 'max', 'min', 'rank', 'union', 'delta'].filter((merge) => !named.has(merge))).toEqual([]);
});

it('shows a mapping that is one', () => {
  const [text] = [...mappings.matchAll(/```yaml\n(version[\s\S]*?)```/g)].map(([, yaml]) => yaml!);
  const { blocks } = parseMapping(text!, 'mappings.md');
  expect(blocks.map(({ entity }) => entity.name)).toEqual(['product', 'inventory_position']);
});

it('shows forms of operators that are right', () => {
  expect(forms.length).toBeGreaterThan(30);
  for (const form of forms) {
    const isCondition = CONDITION_OPERATORS.some((operator) => form.startsWith(`{ ${operator}:`));
    const filled = form.replaceAll(/\bcondition\b/g, '{ absent: b }');
    const aggregate = /^\{ (sum|min|max|count|collect):/.test(form);
    const value = isCondition ? `{ if: ${filled}, then: a, else: b }` : filled;
    const mapping = `
version: 1
name: shown
zone: UTC
settings: { site: MAIN }
entities:
  party:
    from: t
    group: ${String(aggregate)}
    fields: { code: id, name: ${value} }
`;
    expect(() => parseMapping(mapping, form)).not.toThrow();
  }
});

// To write it anew: npx vitest run --project unit test/unit/mapping-documents.test.ts -u
it('lists every entity with its fields, groups and rules', async () => {
  await expect(await entityReference()).toMatchFileSnapshot(resolve(DOCS, 'entities.md'));
});
