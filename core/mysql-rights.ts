/** Which rights a user has in a database, by what the server says it was granted: to itself, or to a role that it has on. */

/** One privilege of a line of SHOW GRANTS, and the databases that it is for: a pattern, or all. */
const LINE = /^(GRANT|REVOKE) (.+) ON (\*|`(?:[^`]|``)*`)\.\* (?:TO|FROM) /;

/** What the user of a session was granted, and its roles that are on: the lines of SHOW GRANTS. */
export async function readGrants(
  query: (sql: string) => Promise<readonly (readonly (string | null)[])[]>,
  flavour: 'mysql' | 'mariadb',
): Promise<string[]> {
  let using = '';
  if (flavour === 'mysql') {
    const [[roles] = []] = await query('SELECT CURRENT_ROLE()');
    if (roles !== undefined && roles !== null && roles !== 'NONE') using = ` FOR CURRENT_USER() USING ${roles}`;
  }
  return (await query(`SHOW GRANTS${using}`)).map(([line]) => line ?? '');
}

/** The rights for a whole database; `grants` are the lines of SHOW GRANTS. `ALL PRIVILEGES` stands for each. */
export function heldRights(grants: readonly string[], database: string): (right: string) => boolean {
  const held = new Set<string>();
  const revoked = new Set<string>();
  for (const line of grants) {
    const match = LINE.exec(line);
    if (match === null) continue;
    const [, verb, list, of] = match as unknown as [string, string, string, string];
    const pattern = of === '*' ? undefined : of.slice(1, -1).replaceAll('``', '`');
    if (pattern !== undefined && !matches(pattern, database)) continue;
    // Columns in brackets are rights in them only.
    for (const right of list.split(', ')) (verb === 'GRANT' ? held : revoked).add(right);
  }
  return (right) => (held.has(right) || held.has('ALL PRIVILEGES')) && !revoked.has(right);
}

/** In a grant `%` and `_` stand for any characters, unless there is a backslash before them. */
function matches(pattern: string, database: string): boolean {
  const source = pattern.replaceAll(/\\?[^]/g, (part) => {
    if (part === '%') return '.*';
    if (part === '_') return '.';
    return part.slice(-1).replaceAll(/[\\^$.*+?()[\]{}|/]/g, String.raw`\$&`);
  });
  return new RegExp(`^${source}$`, 's').test(database);
}
