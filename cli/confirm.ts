/** Commands that ask before they act. */
import { createInterface } from 'node:readline/promises';
import { ReplicationError } from '../core/errors.ts';

/**
 * Whether somebody types `word`. True without asking where `yes`; throws `config_invalid`, beginning with `what`, where
 * nobody can answer.
 */
export async function confirmed(yes: boolean, word: string, what: string): Promise<boolean> {
  if (yes) return true;
  if (!process.stdin.isTTY) throw new ReplicationError('config_invalid', `${what}; say --yes where nobody can answer`);
  const prompt = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await prompt.question(`type ${word} to go on: `);
  prompt.close();
  return answer.trim() === word;
}
