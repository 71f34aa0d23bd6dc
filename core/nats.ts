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
import { messageOf, ReplicationError, type ErrorCode } from './errors.ts';

export interface Nats {
  readonly connection: NatsConnection;
  readonly manager: JetStreamManager;
  /**
   * What has been asked and not answered when the connection breaks is never answered, and the client would wait for it
   * until its time is up: gives the answer, or rejects with `nats_unreachable` then.
   */
  unlessBroken<T>(answer: Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/** Tells those who wait for answers that a connection broke. */
class Breaks {
  readonly #waiting = new Set<(broken: ReplicationError) => void>();

  constructor(connection: NatsConnection) {
    void this.#watch(connection);
  }

  async #watch(connection: NatsConnection): Promise<void> {
    for await (const { type } of connection.status()) {
      if (type !== 'disconnect') continue;
      const broken = new ReplicationError('nats_unreachable', 'the connection to NATS broke before it answered');
      for (const reject of this.#waiting) reject(broken);
    }
  }

  unlessBroken<T>(answer: Promise<T>): Promise<T> {
    let stop: (broken: ReplicationError) => void;
    const broken = new Promise<never>((_, reject) => {
      stop = reject;
      this.#waiting.add(reject);
    });
    return Promise.race([answer, broken]).finally(() => this.#waiting.delete(stop));
  }
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

/**
 * Connects and makes sure that JetStream answers. Reconnects for ever by itself; what is published during an outage is
 * never sent later, so every publisher resumes from the stream.
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
    ...(config.creds_file === undefined ? {} : { authenticator: credsAuthenticator(readFileSync(config.creds_file)) }),
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
    const manager = await jetstreamManager(connection);
    const breaks = new Breaks(connection);
    return {
      connection,
      manager,
      unlessBroken: (answer) => breaks.unlessBroken(answer),
      close: () => connection.close(),
    };
  } catch (thrown) {
    await connection.close();
    if (thrown instanceof errors.RequestError && thrown.isNoResponders())
      throw new ReplicationError('nats_no_jetstream', `JetStream does not answer at ${config.servers.join(', ')}`, {
        cause: thrown,
      });
    throw natsError(thrown, `JetStream at ${config.servers.join(', ')}`);
  }
}
