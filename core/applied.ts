/**
 * How far flows have applied a stream, and how fast, told in plain NATS messages that nobody stores: for a capture that
 * reads tables and must not run far ahead of them. It is never what decides about data.
 */
import type { Subscription } from '@nats-io/transport-node';
import type { Nats } from './nats.ts';

export interface Applied {
  readonly v: 1;
  readonly flow: string;
  /** The last sequence of the stream that the target reflects. */
  readonly seq: number;
  /** What the flow lately wrote in a second in which it had something to write. */
  readonly bytesPerSecond: number;
}

const appliedSubject = (prefix: string, stream: string): string => `${prefix}.applied.${stream}`;

/** What was written before this counts half as much for the rate as what is written now, in milliseconds of work. */
const HALF_MS = 500;
/** What a flow is taken to write in a second before it has shown it. */
const FIRST_RATE = 4 << 20;
/** Batches of less say how long a batch takes at least, and not how fast bytes are written. */
const LEAST_BYTES = 16 << 10;
/** A flow says no more often how far it is: what it leaves unsaid is less than anybody has to know. */
const EVERY_MS = 20;

/** For a flow: tells how far it is. */
export class AppliedTeller {
  readonly #nats: Nats;
  readonly #subject: string;
  readonly #flow: string;
  #bytes = (FIRST_RATE * HALF_MS) / 1000;
  #ms = HALF_MS;
  #toldMs = -Infinity;

  constructor(nats: Nats, prefix: string, stream: string, flow: string) {
    this.#nats = nats;
    this.#subject = appliedSubject(prefix, stream);
    this.#flow = flow;
  }

  /** So many bytes of frames were written in so many milliseconds; `seq`: the target stands there, if it has moved. */
  wrote(bytes: number, ms: number, seq: number | undefined): void {
    if (bytes >= LEAST_BYTES) {
      const kept = 0.5 ** (ms / HALF_MS);
      this.#bytes = this.#bytes * kept + bytes;
      this.#ms = this.#ms * kept + ms;
    }
    const nowMs = performance.now();
    const { connection } = this.#nats;
    if (seq === undefined || nowMs - this.#toldMs < EVERY_MS || connection.isClosed()) return;
    this.#toldMs = nowMs;
    const bytesPerSecond = Math.round((1000 * this.#bytes) / Math.max(1, this.#ms));
    const applied: Applied = { v: 1, flow: this.#flow, seq, bytesPerSecond };
    connection.publish(this.#subject, JSON.stringify(applied));
  }
}

/** Hears how far the flows of a stream are, until the subscription or the connection ends. */
export function hearApplied(
  nats: Nats,
  prefix: string,
  stream: string,
  hear: (applied: Applied) => void,
): Subscription {
  return nats.connection.subscribe(appliedSubject(prefix, stream), {
    callback: (error, message) => {
      if (error !== null) return;
      const applied = message.json<Applied>();
      if (applied.v === 1) hear(applied);
    },
  });
}
