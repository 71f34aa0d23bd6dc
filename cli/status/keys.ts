/** Keys of a terminal in raw mode, as far as `waybill status --watch` knows them. */
import type { Scroll } from './screen.ts';

export type Key = 'quit' | Scroll;

const KEYS: Readonly<Record<string, Key>> = {
  q: 'quit',
  Q: 'quit',
  // Ctrl-C and Ctrl-D.
  '\u0003': 'quit',
  '\u0004': 'quit',
  '[A': { lines: -1 },
  k: { lines: -1 },
  '[B': { lines: 1 },
  j: { lines: 1 },
  '[5~': { pages: -1 },
  '[6~': { pages: 1 },
  ' ': { pages: 1 },
  '[H': 'top',
  '[1~': 'top',
  g: 'top',
  '[F': 'bottom',
  '[4~': 'bottom',
  G: 'bottom',
};
const ESC = '\u001B';
/** A sequence as terminals send it for a key (ECMA-48: CSI; SS3 where cursor keys are in application mode), or one character. */
const SEQUENCE = new RegExp(`${ESC}\\[([0-9;]*[@-~])|${ESC}O([A-Z])|([^${ESC}])`, 'g');
/** The beginning of one whose rest comes with the next data. */
const BEGINNING = new RegExp(`${ESC}(?:\\[[0-9;]*|O)?$`);

/** Tells of the keys in what a terminal sends, which may break a sequence anywhere. Gives what takes the data. */
export function keyReader(onKey: (key: Key) => void): (data: Buffer) => void {
  let rest = '';
  return (data) => {
    let text = rest + data.toString('latin1');
    rest = BEGINNING.exec(text)?.[0] ?? '';
    text = text.slice(0, text.length - rest.length);
    for (const [, csi, ss3, character] of text.matchAll(SEQUENCE)) {
      const key = KEYS[character ?? `[${csi ?? ss3}`];
      if (key !== undefined) onKey(key);
    }
  };
}
