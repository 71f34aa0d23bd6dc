/**
 * Plain NATS messages by which somebody who waits for a position asks those on its way to say at once how far they are, also
 * where they have nothing else to say. Nothing is stored, and one that is lost is asked for again.
 */
import type { Subscription } from '@nats-io/transport-node';
import type { Nats } from './nats.ts';

/** Who is asked: the capture of a source for a frame, or the transform of a flow for its checkpoint. */
export type AskedStage = 'capture' | 'transform';

const askedSubject = (prefix: string, stage: AskedStage, name: string): string => `${prefix}.asked.${stage}.${name}`;

export function askForProgress(nats: Nats, prefix: string, stage: AskedStage, name: string): void {
  if (!nats.connection.isClosed()) nats.connection.publish(askedSubject(prefix, stage, name));
}

/** Hears that it is asked for, until the subscription or the connection ends. */
export function hearProgressAsked(
  nats: Nats,
  prefix: string,
  stage: AskedStage,
  name: string,
  hear: () => void,
): Subscription {
  return nats.connection.subscribe(askedSubject(prefix, stage, name), {
    callback: (error) => {
      if (error === null) hear();
    },
  });
}
