/** What the Odoo mapping cannot say by itself. */

/**
 * A translated text: since version 16 Odoo keeps it as JSON by language, before that as it is. English first, since
 * look-up tables of units are written in it; else whichever language comes first.
 */
export function translated(value: string | null): string | null {
  if (value === null || !value.startsWith('{')) return value;
  const texts = JSON.parse(value) as Record<string, string>;
  return texts['en_US'] ?? Object.values(texts)[0] ?? null;
}
