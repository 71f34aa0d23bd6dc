/** Looks for a text in everything that JetStream holds, also where it is written as base64 or in hexadecimal digits. */
import type { Nats } from '../../core/nats.ts';

/** The forms that a text may take inside of other bytes. */
export function formsOf(marker: string): readonly string[] {
  const bytes = Buffer.from(marker, 'utf8');
  const base64 = [0, 1, 2].map((shift) => {
    const text = Buffer.concat([Buffer.alloc(shift), bytes]).toString('base64');
    // Characters that also depend on what stands before and behind.
    return text.slice(shift === 0 ? 0 : shift + 1, text.length - (text.endsWith('=') ? 4 : 0));
  });
  return [marker, bytes.toString('hex'), ...base64];
}

/** The places of all streams (those of KV buckets among them) whose messages hold the text in any form. */
export async function streamsHolding(nats: Nats, marker: string): Promise<{ places: string[]; messages: number }> {
  const forms = formsOf(marker);
  const places: string[] = [];
  let messages = 0;
  for await (const { config, state } of nats.manager.streams.list())
    for (let seq = state.first_seq; seq <= state.last_seq; seq++) {
      const message = await nats.manager.streams.getMessage(config.name, { seq });
      if (message === null) continue;
      messages += 1;
      const headers = [...(message.header ?? [])].flat(2).join('\n');
      const text = `${message.subject}\n${headers}\n${Buffer.from(message.data).toString('latin1')}`;
      if (forms.some((form) => text.includes(form))) places.push(`${config.name} ${seq}`);
    }
  return { places, messages };
}
