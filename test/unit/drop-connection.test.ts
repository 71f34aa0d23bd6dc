import { createServer, type AddressInfo, type Server } from 'node:net';
import type { Duplex } from 'node:stream';
import { createConnection, type Connection } from 'mysql2';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dropConnection } from '../../core/drop-connection.ts';

describe('a connection that is dropped', () => {
  let server: Server;
  const errors: unknown[] = [];

  beforeAll(async () => {
    // Says nothing, so that whatever is asked waits for its answer.
    server = createServer((socket) => socket.on('error', () => undefined));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  });
  afterAll(() => {
    server.close();
  });

  async function connected(): Promise<{ connection: Connection; stream: Duplex }> {
    const { port } = server.address() as AddressInfo;
    const connection = createConnection({ host: '127.0.0.1', port, user: 'nobody' });
    connection.on('error', (error) => errors.push(error));
    const { stream } = connection as unknown as { readonly stream: Duplex };
    await new Promise((resolve) => stream.once('connect', resolve));
    return { connection, stream };
  }

  async function asked(connection: Connection): Promise<string> {
    return await new Promise((resolve) => {
      connection.query('SELECT 1', (error) => resolve(error?.message ?? 'answered'));
    });
  }

  it('fails what waits for an answer', async () => {
    const { connection } = await connected();
    const answer = asked(connection);
    dropConnection(connection);
    expect(await answer).toBe('the connection was closed');
  });

  it('fails what waits for an answer also when the server has just hung up', async () => {
    const { connection, stream } = await connected();
    const answer = asked(connection);
    // As a socket is between the end that the server sent and its close, a step of the event loop later.
    stream.destroy();
    dropConnection(connection);
    expect(await answer).toBe('Connection lost: The server closed the connection.');
  });

  it('may be dropped again, and fails what is asked then', async () => {
    const { connection, stream } = await connected();
    dropConnection(connection);
    dropConnection(connection);
    await new Promise((resolve) => stream.once('close', resolve));
    dropConnection(connection);
    expect(await asked(connection)).toMatch(/closed state/);
  });
});
