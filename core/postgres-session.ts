/** Sessions of Postgres whose settings are ours, whatever else their url says. */

/** What `pg` is given of a session. */
export interface PostgresSession {
  readonly connectionString: string;
  readonly application_name: string;
  readonly options?: string;
}

/**
 * A session under a name, with `options` (`-c name=value …`). For `pg` the parameters of a url win over everything else: a
 * name that it gives would hide sessions from whoever takes over from them, and `options` would leave values in another form.
 * So what a url gives stands in front of ours, of which the last counts, and its name is dropped.
 */
export function postgresSession(url: string, applicationName: string, options = ''): PostgresSession {
  const ours = { application_name: applicationName, ...(options === '' ? {} : { options }) };
  if (!URL.canParse(url)) return { connectionString: url, ...ours };
  const parsed = new URL(url);
  const { searchParams } = parsed;
  const given = searchParams.get('options');
  if (given === null && !searchParams.has('application_name')) return { connectionString: url, ...ours };
  searchParams.delete('application_name');
  searchParams.delete('options');
  const both = [given ?? '', options].filter((text) => text !== '').join(' ');
  return { connectionString: parsed.href, ...ours, ...(both === '' ? {} : { options: both }) };
}
