/** Mappings are YAML: what is wrong with one is said with the line in the file. */
import { readFileSync } from 'node:fs';
import { LineCounter, parseDocument, type Document } from 'yaml';
import type { z } from 'zod';
import { problemsError, ReplicationError } from '../../core/errors.ts';
import { issueText, type FilePath, type MappingProblem } from './expression.ts';

/** A file, for messages: its name, and the line of a place in it, from 1. */
export interface PlacedFile {
  readonly place: string;
  readonly lineOf: (path: FilePath) => number;
}

/** The text of a mapping. Throws `mapping_invalid`. */
export function readMapping(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new ReplicationError('mapping_invalid', `cannot read mapping ${path}`, { cause });
  }
}

/** Reads a text by a schema. Throws `mapping_invalid` with one line for every problem. */
export function parseYamlFile<T>(schema: z.ZodType<T>, text: string, place: string): PlacedFile & { readonly data: T } {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const lineOf = (path: FilePath): number => lineAt(document, lines, path);
  const [syntax] = document.errors;
  if (syntax !== undefined)
    throw new ReplicationError(
      'mapping_invalid',
      `${place}:${lines.linePos(syntax.pos[0]).line}: is not YAML: ${syntax.message}`,
      { cause: syntax },
    );
  const parsed = schema.safeParse(document.toJS());
  if (!parsed.success)
    throw mappingError(
      { place, lineOf },
      parsed.error.issues.flatMap((issue) => flatten(issue, [])),
    );
  return { data: parsed.data, place, lineOf };
}

/** One error for all problems of a mapping, each with its line. */
export function mappingError({ place, lineOf }: PlacedFile, problems: readonly MappingProblem[]): ReplicationError {
  const lines = problems.map(({ path, message }) => `${place}:${lineOf(path)}: ${path.join('.')}: ${message}`);
  return problemsError('mapping_invalid', `mapping ${place}`, lines);
}

/** The issues inside a union that come nearest: those of the alternative that matched furthest. */
function flatten(issue: z.core.$ZodIssue, above: FilePath): MappingProblem[] {
  const path = [...above, ...(issue.path as (string | number)[])];
  if (issue.code !== 'invalid_union') {
    if (issue.code !== 'unrecognized_keys') return [{ path, message: issueText(issue) }];
    return issue.keys.map((key) => ({ path: [...path, key], message: 'is an unknown key' }));
  }
  const deepest = issue.errors
    .map((issues) => issues.flatMap((inner) => flatten(inner, path)))
    .filter((problems) => problems.some((problem) => problem.path.length > path.length))
    .sort((a, b) => a.length - b.length)[0];
  return deepest ?? [{ path, message: issue.message }];
}

/** The line of the deepest node that exists on a path; of the key where it is one of a map. */
function lineAt(document: Document, lines: LineCounter, path: FilePath): number {
  for (let depth = path.length; depth > 0; depth--) {
    const key = path[depth - 1]!;
    const parent = depth === 1 ? document.contents : document.getIn(path.slice(0, depth - 1), true);
    const items = (parent as { items?: unknown } | undefined)?.items;
    if (!Array.isArray(items)) continue;
    for (const [index, item] of (items as unknown[]).entries()) {
      const pair = item as { key?: { value?: unknown; range?: number[] }; range?: number[] };
      const range = typeof key === 'number' ? (index === key ? pair.range : undefined) : undefined;
      const start = range?.[0] ?? (pair.key?.value === key ? pair.key.range?.[0] : undefined);
      if (start !== undefined) return lines.linePos(start).line;
    }
  }
  return 1;
}
