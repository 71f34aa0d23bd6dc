/** Statements that are longer than a packet: what is sent of them comes to the same, and each part fits. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { runLarge } from '../../apply/mysql/large-statement.ts';
import type { Outcome, ServerFacts } from '../../apply/mysql/session.ts';
import { quoteLiteral, quoteName } from '../../apply/mysql/sql.ts';
import { ValueMisfit } from '../../apply/value-misfit.ts';

const MOST = 1024;
const SETTING = /^SET (@\w+) = (?:CONCAT\(\1, )?(?:FROM_BASE64\()?'(.*?)'\)*$/s;

/** A server that knows variables: gives the statements that it was sent, with what these stand for. */
async function sent(sql: string): Promise<string[]> {
  const variables = new Map<string, Buffer | string>();
  const statements: string[] = [];
  const facts = { maxPacketBytes: MOST } as ServerFacts;
  const run = async (text: string): Promise<readonly Outcome[]> => {
    expect(Buffer.byteLength(text)).toBeLessThan(MOST);
    const setting = SETTING.exec(text);
    if (setting === null) {
      if (!/^SET @\w+ = NULL/.test(text)) {
        const whole = text.replaceAll(/@wb_part_\d+/g, (name) => {
          const value = variables.get(name)!;
          return typeof value === 'string' ? quoteLiteral(value) : `FROM_BASE64('${value.toString('base64')}')`;
        });
        statements.push(whole);
      }
      return [{ rows: 1, warnings: 0 }];
    }
    const [, name, part] = setting;
    const known = text.includes('CONCAT(') ? variables.get(name!)! : undefined;
    if (text.includes('FROM_BASE64(')) {
      expect(part!.length % 4).toBe(0);
      variables.set(name!, Buffer.concat([(known as Buffer | undefined) ?? Buffer.of(), Buffer.from(part!, 'base64')]));
    } else {
      expect(part!.replaceAll("''", '')).not.toContain("'");
      expect(Buffer.from(part!).toString()).toBe(part);
      variables.set(name!, ((known as string | undefined) ?? '') + part!.replaceAll("''", "'"));
    }
    return [{ rows: 1, warnings: 0 }];
  };
  await runLarge({ facts, run }, sql);
  return statements;
}

const text = fc.string({ unit: fc.constantFrom("'", '`', 'a', 'ü', '🚚', '\\', '@', ')'), maxLength: 250 });
const bytes = fc.uint8Array({ maxLength: MOST }).map((value) => Buffer.from(value));
const literal = fc.oneof(
  text.map(quoteLiteral),
  bytes.map((value) => `FROM_BASE64('${value.toString('base64')}')`),
  fc.constantFrom('NULL', '17'),
);

test('they come to what they were', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(literal, { minLength: 1, maxLength: 6 }), text, async (values, name) => {
      const sql = `INSERT INTO ${quoteName(name.slice(0, 20))} VALUES (${values.join(', ')})`;
      expect(await sent(sql)).toEqual([sql]);
    }),
  );
});

test('a value that is larger than a packet belongs to its row, which says so', async () => {
  const sql = `INSERT INTO t VALUES ('${'a'.repeat(MOST + 1)}')`;
  await expect(sent(sql)).rejects.toThrow(ValueMisfit);
  await expect(sent(sql)).rejects.toThrow('max_allowed_packet');
});
