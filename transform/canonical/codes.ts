/**
 * Code lists. Units: UN/ECE Recommendation 20, and 21 for packages. Currencies: ISO 4217. Countries: ISO 3166-1
 * alpha-2. Places: UN/LOCODE is checked by form and country, since its list (a hundred thousand places, two issues a
 * year) has no package that follows it.
 */
import { codes as currencyCodes } from 'currency-codes';
import { iso31661Alpha2ToAlpha3 } from 'iso-3166';
import { REC_20_3 } from 'un-ece-recommendation/20/3';
import { REC_21_3 } from 'un-ece-recommendation/21/3';

const UNITS: ReadonlySet<string> = new Set([...REC_20_3, ...REC_21_3].map((entry) => entry.code));
const CURRENCIES: ReadonlySet<string> = new Set(currencyCodes());
const COUNTRIES: ReadonlySet<string> = new Set(Object.keys(iso31661Alpha2ToAlpha3));
/** UN/LOCODE: country, then three characters of which digits are 2 to 9 (Recommendation 16). XZ stands for the high seas. */
const LOCODE = /^([A-Z]{2})([A-Z2-9]{3})$/;

export function isUnit(code: string): boolean {
  return UNITS.has(code);
}

export function isCurrency(code: string): boolean {
  return CURRENCIES.has(code);
}

export function isCountry(code: string): boolean {
  return COUNTRIES.has(code);
}

export function isLocode(code: string): boolean {
  const country = LOCODE.exec(code)?.[1];
  return country !== undefined && (country === 'XZ' || COUNTRIES.has(country));
}
