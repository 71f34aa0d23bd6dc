/** A server, or a tool to get one, cannot be had on this machine. The message says what to install. */
export class ServerUnavailableError extends Error {
  override readonly name = 'ServerUnavailableError';
}

/** The server's port is taken by someone else: with a free choice of port, another one is tried. */
export class PortTakenError extends Error {
  override readonly name = 'PortTakenError';
}

/** The text of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of a system or driver error ('ENOENT', '57P03'), if it has one. */
export function codeOf(error: unknown): string | undefined {
  const code = typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : undefined;
}
