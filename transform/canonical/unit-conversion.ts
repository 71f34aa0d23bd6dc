/** Conversion between units of one kind, exact where the ratio of the units is a finite decimal. */
import { divideDecimals, multiplyDecimals } from './decimal.ts';

/** Size of each unit in the base unit of its kind; all are exact by definition. Codes of UN/ECE Recommendation 20. */
const KINDS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  count: { EA: '1', H87: '1', C62: '1', PR: '2', DZN: '12', GRO: '144', CEN: '100', MIL: '1000' },
  mass: {
    GRM: '0.001',
    KGM: '1',
    MGM: '0.000001',
    TNE: '1000',
    LBR: '0.45359237',
    ONZ: '0.028349523125',
    STN: '907.18474',
    LTN: '1016.0469088',
  },
  length: { MTR: '1', CMT: '0.01', MMT: '0.001', DMT: '0.1', KMT: '1000', INH: '0.0254', FOT: '0.3048', YRD: '0.9144' },
  area: { MTK: '1', CMK: '0.0001', MMK: '0.000001', FTK: '0.09290304', INK: '0.00064516' },
  volume: {
    LTR: '1',
    MLT: '0.001',
    CLT: '0.01',
    DLT: '0.1',
    HLT: '100',
    MTQ: '1000',
    CMQ: '0.001',
    DMQ: '1',
    GLL: '3.785411784',
    GLI: '4.54609',
    FTQ: '28.316846592',
    INQ: '0.016387064',
  },
  time: { SEC: '1', MIN: '60', HUR: '3600', DAY: '86400' },
};

const UNITS = new Map(
  Object.entries(KINDS).flatMap(([kind, units]) =>
    Object.entries(units).map(([code, size]) => [code, { kind, size }] as const),
  ),
);

/** Codes of the units that can be converted. */
export const CONVERTIBLE_UNITS: readonly string[] = [...UNITS.keys()];

/** A quantity in `from` as a quantity in `to`; undefined when the two are not of one kind that is known. */
export function convertUnit(quantity: string, from: string, to: string): string | undefined {
  if (from === to) return quantity;
  const source = UNITS.get(from);
  const target = UNITS.get(to);
  if (source === undefined || target === undefined || source.kind !== target.kind) return undefined;
  return divideDecimals(multiplyDecimals([quantity, source.size]), target.size);
}
