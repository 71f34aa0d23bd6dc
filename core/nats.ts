import { readFileSync } from 'node:fs';
import { jetstreamManager, JetStreamApiError, type JetStreamManager } from '@nats-io/jetstream';
import { jserrors } from '@nats-io/jetstream/internal';
import {
  connect,
  credsAuthenticator,
  errors,
  type NatsConnection,
  type ConnectionOptions,
} from '@nats-io/transport-node';
import type { NatsConfig } from './config.ts';
import { classifyErrors, messageOf, ReplicationError, type ErrorCode } from './errors.ts';

export interface Nats {
  readonly connection: NatsConnection;
  readonly manager: JetStreamManager;
  close(): Promise<void>;
}

/**
 * What has been asked and not answered when a connection breaks is never answered, nor is what is asked until there is one
 * again: the client throws both away and waits for the answer until its time is up. With this, requests reject with
 * `nats_unreachable` at once: those of JetStream and of the KV store, too, which the client makes by `request`.
 */
function failWithoutConnection(connection: NatsConnection): void {
  const waiting = new Set<(broken: ReplicationError) => void>();
  let down = false;
  const watch = async (): Promise<void> => {
    for await (const { type } of connection.status()) {
      if (type === 'reconnect') down = false;
      if (type !== 'disconnect') continue;
      down = true;
      const broken = new ReplicationError('nats_unreachable', 'the connection to NATS broke before it answered');
      for (const reject of waiting) reject(broken);
    }
  };
  void watch();
  const request = connection.request.bind(connection);
  connection.request = async (...asked) => {
    if (down) throw new ReplicationError('nats_unreachable', 'NATS is not connected at this moment');
    let stop: (broken: ReplicationError) => void;
    const broken = new Promise<never>((_, reject) => {
      stop = reject;
      waiting.add(reject);
    });
    return await Promise.race([request(...asked), broken]).finally(() => waiting.delete(stop));
  };
}

/** JetStream error codes (server/errors.json of nats-server) that mean more than "try again". */
const API_CODES: Readonly<Record<number, ErrorCode>> = {
  10023: 'nats_storage', // insufficient resources
  10039: 'nats_no_jetstream', // not enabled for account
  10076: 'nats_no_jetstream', // not enabled
  10047: 'nats_storage', // insufficient storage resources
  10028: 'nats_storage', // exceeded memory or storage limit
  10077: 'nats_storage', // maximum bytes exceeded
  10059: 'stream_missing',
  10071: 'stream_conflict',
  10164: 'stream_conflict',
};

/** What the NATS client throws of the server, the connection or the time; not what it says of wrong arguments. */
const NATS_ERRORS = [
  jserrors.JetStreamNotEnabled,
  jserrors.JetStreamError,
  JetStreamApiError,
  errors.AuthorizationError,
  errors.ClosedConnectionError,
  errors.ConnectionError,
  errors.DrainingConnectionError,
  errors.NoRespondersError,
  errors.PermissionViolationError,
  errors.ProtocolError,
  errors.RequestError,
  errors.TimeoutError,
  errors.UserAuthenticationExpiredError,
];

/** Classifies whatever the NATS client threw. */
export function natsError(thrown: unknown, doing: string): ReplicationError {
  if (thrown instanceof ReplicationError) return thrown;
  const make = (code: ErrorCode): ReplicationError =>
    new ReplicationError(code, `${doing}: ${messageOf(thrown)}`, { cause: thrown });
  if (thrown instanceof jserrors.JetStreamNotEnabled) return make('nats_no_jetstream');
  if (thrown instanceof JetStreamApiError) return make(API_CODES[thrown.code] ?? 'nats_timeout');
  if (thrown instanceof errors.AuthorizationError || thrown instanceof errors.UserAuthenticationExpiredError)
    return make('nats_auth');
  if (thrown instanceof errors.TimeoutError || thrown instanceof errors.NoRespondersError) return make('nats_timeout');
  return make('nats_unreachable');
}

// A request whose place nobody named is tried again like any other: it is no defect that the server did not answer.
classifyErrors((thrown) =>
  NATS_ERRORS.some((kind) => thrown instanceof kind) ? natsError(thrown, 'a request to NATS') : undefined,
);

/**
 * Connects and makes sure that JetStream answers. Reconnects for ever by itself; what is published during an outage is
 * never sent later, so every publisher resumes from the stream, and requests fail at once while there is no connection.
 * Throws `nats_unreachable`, `nats_auth` or `nats_no_jetstream`.
 */
export async function connectNats(config: NatsConfig, clientName: string): Promise<Nats> {
  const options: ConnectionOptions = {
    servers: config.servers,
    name: clientName,
    noAsyncTraces: true,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 250,
    pingInterval: 10_000,
    maxPingOut: 2,
    timeout: 5000,
    ...(config.user === undefined ? {} : { user: config.user }),
    ...(config.password === undefined ? {} : { pass: config.password }),
    ...(config.token === undefined ? {} : { token: config.token }),
    ...(config.creds_file === undefined ? {} : { authenticator: credsAuthenticator(readCreds(config.creds_file)) }),
    ...(config.tls === undefined
      ? {}
      : {
          tls: {
            ...(config.tls.ca_file === undefined ? {} : { caFile: config.tls.ca_file }),
            ...(config.tls.cert_file === undefined ? {} : { certFile: config.tls.cert_file }),
            ...(config.tls.key_file === undefined ? {} : { keyFile: config.tls.key_file }),
          },
        }),
  };
  let connection: NatsConnection;
  try {
    connection = await connect(options);
  } catch (thrown) {
    throw natsError(thrown, `cannot connect to NATS at ${config.servers.join(', ')}`);
  }
  try {
    failWithoutConnection(connection);
    const manager = await jetstreamManager(connection);
    return { connection, manager, close: () => connection.close() };
  } catch (thrown) {
    await connection.close();
    if (thrown instanceof errors.RequestError && thrown.isNoResponders())
      throw new ReplicationError('nats_no_jetstream', `JetStream does not answer at ${config.servers.join(', ')}`, {
        cause: thrown,
      });
    throw natsError(thrown, `JetStream at ${config.servers.join(', ')}`);
  }
}

function readCreds(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new ReplicationError('config_invalid', `nats.creds_file ${file} cannot be read: ${messageOf(cause)}`, {
      cause,
    });
  }
}

/**
 * The connection of a service over all its tries. The client closes one for good where the server refuses the login twice
 * in a row (credentials that expired, a resolver that was away): the next try makes a new one, with credentials read anew.
 */
export class KeptNats {
  readonly #config: NatsConfig;
  readonly #clientName: string;
  #nats: Nats | undefined;

  constructor(config: NatsConfig, clientName: string) {
    this.#config = config;
    this.#clientName = clientName;
  }

  /** Throws as `connectNats` does. */
  async get(): Promise<Nats> {
    if (this.#nats?.connection.isClosed() !== false) this.#nats = await connectNats(this.#config, this.#clientName);
    return this.#nats;
  }

  async close(): Promise<void> {
    await this.#nats?.close();
  }
}
