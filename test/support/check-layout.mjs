/**
 * Checks the layout rules of the repository: which names may stand where, and who may import whom. Run as
 * `node test/support/check-layout.mjs [ROOT]`; prints one `file:line: message` for each violation and exits with 1.
 * Plain JavaScript, so that every supported Node runs it without a build.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const TOP_FOLDERS = new Set(
  ['core', 'capture', 'transform', 'apply', 'monitoring', 'cli', 'sandbox', 'test', 'docs', 'docker'].concat('.ci'),
);
const TOP_FILES = new Set(
  ['README.md', 'LICENSE', 'CHANGELOG.md', 'Dockerfile', 'docker-compose.yml', '.dockerignore'].concat(
    ['package.json', 'package-lock.json', 'tsconfig.json', 'tsconfig.build.json', 'vitest.config.ts'],
    ['.gitignore', '.gitattributes', '.editorconfig', '.nvmrc', '.npmrc'],
    ['.oxlintrc.json', '.prettierrc.json', '.prettierignore'],
  ),
);
/** Not part of the source: made by tools, ignored by git. */
const IGNORED = new Set(['.git', 'node_modules', 'dist', '.cache', 'coverage']);
const FORBIDDEN_FOLDERS = new Set(['src', 'utils', 'util', 'common', 'helpers', 'helper', 'lib', 'shared', 'misc']);
const STAGES = ['capture', 'transform', 'apply', 'monitoring'];
/** What each folder may import. sandbox and test may import everything. */
const MAY_IMPORT = new Map(
  STAGES.map((stage) => [stage, ['core', stage]]).concat([
    ['core', ['core']],
    ['cli', ['cli', 'core'].concat(STAGES)],
  ]),
);
const KEBAB_FOLDER = /^[a-z0-9]+(-[a-z0-9]+)*$/;
const KEBAB_FILE = /^[a-z0-9]+(-[a-z0-9]+)*(\.(test|config|d))?\.(ts|mts|js|mjs)$/;
const CODE_FILE = /\.(ts|mts|cts|tsx|js|mjs|cjs)$/;

/** Checks the tree below `root`; gives `file:line: message` lines, sorted. */
export function checkLayout(root) {
  const violations = [];
  const report = (file, line, message) => violations.push({ file, line, message });
  for (const file of walk(root, '', report)) checkFile(file, readFileSync(join(root, file), 'utf8'), report);
  violations.sort((a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : a.line - b.line));
  return violations.map(({ file, line, message }) => `${file}:${line}: ${message}`);
}

/** The code files of a tree, relative to its root; names that break a rule are reported on the way. */
function walk(root, folder, report) {
  const files = [];
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const { name } = entry;
    const path = posix.join(folder, name);
    if (IGNORED.has(name) || name.endsWith('.log')) continue;
    if (entry.isDirectory()) {
      const isTop = folder === '';
      if (FORBIDDEN_FOLDERS.has(name)) report(path, 1, `a folder may not be called ${name}: name what it holds`);
      else if (isTop && !TOP_FOLDERS.has(name)) report(path, 1, 'no such folder is foreseen at the top level');
      else if (!isTop && !KEBAB_FOLDER.test(name)) report(path, 1, 'a folder name must be kebab-case');
      files.push(...walk(root, path, report));
      continue;
    }
    if (folder === '' && !TOP_FILES.has(name)) report(path, 1, 'no such file is foreseen at the top level');
    if (!CODE_FILE.test(name)) continue;
    if (!KEBAB_FILE.test(name)) report(path, 1, 'a file name must be kebab-case');
    if (/^index\.\w+$/.test(name)) report(path, 1, 'no barrel files: import from the file that defines a name');
    files.push(path);
  }
  return files;
}

function checkFile(file, text, report) {
  const code = blank(text);
  const folder = file.includes('/') ? file.slice(0, file.indexOf('/')) : '';
  const lineAt = (offset) => code.slice(0, offset).split('\n').length;
  const each = (pattern, tell) => {
    for (const match of code.matchAll(pattern)) tell(match, lineAt(match.index + match[0].search(/\S/)));
  };

  for (const { specifier, offset, names } of importsOf(code, text)) {
    const line = lineAt(offset);
    if (/^(node:)?process$/.test(specifier) && /\benv\b/.test(names) && MAY_IMPORT.has(folder) && folder !== 'cli')
      report(file, line, 'only cli/ reads the environment: pass the value in');
    if (!specifier.startsWith('.')) continue;
    if (!/\.(ts|mts|mjs|json)$/.test(specifier)) report(file, line, `import ${specifier} with its .ts extension`);
    const target = posix.normalize(posix.join(posix.dirname(file), specifier));
    const top = target.includes('/') ? target.slice(0, target.indexOf('/')) : '';
    const allowed = MAY_IMPORT.get(folder);
    if (top === '..') report(file, line, `${specifier} lies outside the repository`);
    else if (allowed !== undefined && !allowed.includes(top))
      report(file, line, `${folder}/ may not import ${top === '' ? target : `${top}/`}`);
  }

  if (MAY_IMPORT.has(folder) && folder !== 'cli')
    each(/\bprocess\s*(\?\.|\.)\s*env\b|\bprocess\s*\[\s*['"]env['"]/g, (_, line) =>
      report(file, line, 'only cli/ reads the environment: pass the value in'),
    );
  if (folder !== '')
    each(/\bexport\s+default\b|\bexport\s*\{[^}]*\bas\s+default\b/g, (_, line) =>
      report(file, line, 'no default exports: export by name'),
    );
  if (folder === 'test')
    each(/\b(it|test|describe|suite|bench)(\s*\.\s*\w+)*\s*\.\s*(skip|only|todo)\b/g, (match, line) =>
      report(file, line, `no .${match[3]}: a test runs or is removed`),
    );
  const statements = code.replaceAll(
    /\bexport\s+(type\s+)?(\*(\s+as\s+\w+)?|\{[^}]*\})\s*from\s*(['"])\s*\4\s*;?/g,
    '',
  );
  if (statements.trim() === '' && code.trim() !== '')
    report(file, 1, 'no barrel files: import from the file that defines a name');
}

/** Static and dynamic imports and re-exports: the module's name, where it stands, and the names taken from it. */
function importsOf(code, text) {
  const found = [];
  const pattern =
    /\b(?:import|export)\b(?<names>[^;'"`()]*?)\bfrom\s*(?<from>['"])|\bimport\s*(?<bare>['"])|\b(?:import|require)\s*\(\s*(?<call>['"`])/g;
  for (const match of code.matchAll(pattern)) {
    const { from, bare, call, names = '' } = match.groups;
    const start = match.index + match[0].length;
    const end = code.indexOf(from ?? bare ?? call, start);
    found.push({ specifier: text.slice(start, end), offset: start, names });
  }
  return found;
}

/**
 * The text with comments, and the insides of strings, templates and regular expressions, replaced by spaces: same
 * length, same lines. Expressions inside templates stay.
 */
function blank(text) {
  const out = [...text.replaceAll(/[\u{10000}-\u{10FFFF}]/gu, '  ')];
  const wipe = (from, to) => {
    for (let i = from; i < to; i++) if (out[i] !== '\n') out[i] = ' ';
  };
  /** Depth of braces at which each open template expression ends. */
  const templates = [];
  let depth = 0;
  let last = '';
  let at = text.startsWith('#!') ? text.indexOf('\n') : 0;
  const skipTemplate = (from) => {
    let i = from;
    while (i < text.length && text[i] !== '`' && !(text[i] === '$' && text[i + 1] === '{'))
      i += text[i] === '\\' ? 2 : 1;
    wipe(from, Math.min(i, text.length));
    if (text[i] === '$') {
      depth += 1;
      templates.push(depth);
      return i + 2;
    }
    return i + 1;
  };
  while (at >= 0 && at < text.length) {
    const char = text[at];
    const next = text[at + 1];
    if (char === '/' && next === '/') {
      const end = text.indexOf('\n', at);
      wipe(at, end < 0 ? text.length : end);
      at = end < 0 ? text.length : end;
    } else if (char === '/' && next === '*') {
      const end = text.indexOf('*/', at + 2);
      wipe(at, end < 0 ? text.length : end + 2);
      at = end < 0 ? text.length : end + 2;
    } else if (char === "'" || char === '"') {
      let end = at + 1;
      while (end < text.length && text[end] !== char && text[end] !== '\n') end += text[end] === '\\' ? 2 : 1;
      wipe(at + 1, Math.min(end, text.length));
      last = char;
      at = end + 1;
    } else if (char === '`') {
      last = char;
      at = skipTemplate(at + 1);
    } else if (char === '/' && startsRegExp(last, text, at)) {
      let end = at + 1;
      let inClass = false;
      while (end < text.length && text[end] !== '\n' && (inClass || text[end] !== '/')) {
        if (text[end] === '[') inClass = true;
        else if (text[end] === ']') inClass = false;
        end += text[end] === '\\' ? 2 : 1;
      }
      wipe(at + 1, Math.min(end, text.length));
      last = '/';
      at = end + 1;
    } else {
      if (char === '{') depth += 1;
      if (char === '}') {
        if (templates.at(-1) === depth) {
          templates.pop();
          depth -= 1;
          last = '`';
          at = skipTemplate(at + 1);
          continue;
        }
        depth -= 1;
      }
      if (!/\s/.test(char)) last = char;
      at += 1;
    }
  }
  return out.join('');
}

/** Whether a slash opens a regular expression: by the last thing before it that is not white space. */
function startsRegExp(last, text, at) {
  if (last === '' || '(,=:[!&|?{};+-*%<>~^'.includes(last)) return true;
  return /\b(return|typeof|case|in|of|do|else|yield|await|void|delete|throw)\s*$/.test(
    text.slice(Math.max(0, at - 12), at),
  );
}

function main() {
  const here = fileURLToPath(import.meta.url);
  const root = resolve(process.argv[2] ?? join(dirname(here), '..', '..'));
  const violations = checkLayout(root);
  for (const line of violations) process.stdout.write(`${line}\n`);
  if (violations.length > 0) {
    process.stdout.write(`${violations.length} violation(s) of the layout\n`);
    process.exitCode = 1;
  }
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) main();
