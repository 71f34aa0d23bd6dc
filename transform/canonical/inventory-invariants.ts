/**
 * The invariants of stock, checked as records pass. They warn and are counted; they never stop a flow. A batch is what
 * one source transaction did to records: inside it figures may disagree, at its end they may not.
 */
import type { EvidenceEntity } from '../../core/canonical-config.ts';
import { addDecimals, isNegative, subtractDecimals } from './decimal.ts';
import { inventoryMovement, reservation } from './entities-inventory.ts';
import { location } from './entities-master.ts';
import type { RecordValues } from './entity.ts';
import { atMost, availableOf, isPresent, STOCK } from './inventory.ts';

/** The numbered invariants, by the name under which they are counted. */
export const INVARIANTS = {
  available_identity: 'available = on_hand − on_hold − allocated − soft_reserved',
  picked_within_allocated: '0 ≤ picked ≤ allocated',
  hold_within_on_hand: 'on_hold ≤ on_hand',
  allocated_is_reserved: 'allocated = Σ open hard reservations, per product and location',
  parent_is_sum: 'a location holds what its leaf locations hold together',
  movements_explain_on_hand: 'on_hand changes by the movements that are reported',
  transfer_conserves: 'a transfer changes neither on_hand + in_transit of a product in all locations together',
  despatch_keeps_available: 'a despatch lowers on_hand and allocated together, so available does not move',
} as const;

export type Invariant = keyof typeof INVARIANTS;

/** What a position shows by itself, and what it takes records of other entities to see. */
const BY_ITSELF: readonly Invariant[] = ['available_identity', 'picked_within_allocated', 'hold_within_on_hand'];
const SHOWN_BY: Readonly<Record<EvidenceEntity, readonly Invariant[]>> = {
  reservation: ['allocated_is_reserved'],
  location: ['parent_is_sum'],
  inventory_movement: ['movements_explain_on_hand', 'transfer_conserves', 'despatch_keeps_available'],
};

/** The invariants that can be checked where positions, and records of these entities, are seen. */
export function invariantsShownBy(evidence: readonly EvidenceEntity[]): Invariant[] {
  return [...BY_ITSELF, ...evidence.flatMap((entity) => SHOWN_BY[entity])];
}

/** A record before and after a batch; undefined where it was not, or is no more. */
export interface RecordChange {
  readonly entity: string;
  readonly before: RecordValues | undefined;
  readonly after: RecordValues | undefined;
}

/** A broken invariant, and the record or product that shows it. */
export interface Breach {
  readonly invariant: Invariant;
  readonly key: string;
}

const MOVE = indexesOf(inventoryMovement.index);
const CLAIM = indexesOf(reservation.index);
const PLACE = indexesOf(location.index);
/** A ledger may name ever new lots that no position has: of those the account is not kept for ever (invariant 6). */
const MOST_UNEXPLAINED = 100_000;
const TRANSFERS = new Set(['transfer_out', 'transfer_in']);

function indexesOf(index: ReadonlyMap<string, number>): Readonly<Record<string, number>> {
  return Object.fromEntries(index);
}

export class InvariantMonitor {
  readonly counts: Record<Invariant, number>;
  readonly #positions = new Map<string, RecordValues>();
  /** allocated and hard claims by product and location. */
  readonly #allocated = new Sums();
  readonly #reserved = new Sums();
  #seesReservations = false;
  #seesMovements = false;
  /** Change of on_hand that no movement has explained, by position. */
  readonly #unexplained = new Sums(MOST_UNEXPLAINED);
  readonly #parentOf = new Map<string, string>();
  readonly #childrenOf = new Map<string, Set<string>>();

  /** `evidence`: entities that are sure to be seen; of others it is known once one of them has been. */
  constructor(evidence: readonly EvidenceEntity[] = []) {
    this.#seesReservations = evidence.includes('reservation');
    this.#seesMovements = evidence.includes('inventory_movement');
    this.counts = Object.fromEntries(Object.keys(INVARIANTS).map((name) => [name, 0])) as Record<Invariant, number>;
  }

  /** How many positions are known. */
  get positions(): number {
    return this.#positions.size;
  }

  /** Changes of on_hand that no movement has explained yet, by position. */
  unexplained(): Iterable<readonly [key: string, quantity: string]> {
    return this.#unexplained.entries();
  }

  restoreUnexplained(key: string, quantity: string): void {
    this.#unexplained.add(key, quantity);
  }

  /**
   * Takes what a batch did; gives, and counts, the invariants that are broken after it. Without `together` only what a
   * record shows by itself is checked: while much is still to come, the others would only say so.
   */
  observe(changes: readonly RecordChange[], { together = true }: { readonly together?: boolean } = {}): Breach[] {
    const breaches: Breach[] = [];
    const touched = new Map<string, RecordChange>();
    const movements: RecordValues[] = [];
    const claims = new Set<string>();
    for (const change of changes) {
      const { entity, before, after } = change;
      if (before === undefined && after === undefined) continue;
      if (entity === 'inventory_position') {
        const key = positionKey((after ?? before)!);
        touched.set(key, change);
        this.#position(key, before, after);
        claims.add(claimKey((after ?? before)!));
      } else if (entity === 'inventory_movement') {
        if (after !== undefined && before === undefined) movements.push(after);
      } else if (entity === 'reservation') this.#reservation(before, after, claims);
      else if (entity === 'location') this.#location(before, after);
    }
    for (const [key, { after }] of touched) if (after !== undefined) checkRecord(key, after, breaches);
    if (together) {
      this.#checkClaims(claims, breaches);
      this.#checkParents(touched.keys(), breaches);
      this.#checkMovements(touched, movements, breaches);
    }
    for (const { invariant } of breaches) this.counts[invariant] += 1;
    return breaches;
  }

  /** What these positions show by themselves, and with `together` what everything shows that is known now. */
  audit(positions: Iterable<{ readonly values: RecordValues }>, together: boolean): Breach[] {
    const breaches: Breach[] = [];
    for (const { values } of positions) checkRecord(undefined, values, breaches);
    if (together) {
      this.#checkClaims(new Set([...this.#allocated.keys(), ...this.#reserved.keys()]), breaches);
      this.#checkParents(this.#positions.keys(), breaches);
    }
    for (const { invariant } of breaches) this.counts[invariant] += 1;
    return breaches;
  }

  #checkClaims(claims: Iterable<string>, breaches: Breach[]): void {
    if (!this.#seesReservations) return;
    for (const key of claims)
      if (this.#allocated.of(key) !== this.#reserved.of(key)) breaches.push(breach('allocated_is_reserved', key));
  }

  #position(key: string, before: RecordValues | undefined, after: RecordValues | undefined): void {
    const claim = claimKey((after ?? before)!);
    this.#allocated.add(claim, minus(after?.[STOCK.allocated], before?.[STOCK.allocated]));
    if (after === undefined) this.#positions.delete(key);
    else this.#positions.set(key, after);
  }

  #reservation(before: RecordValues | undefined, after: RecordValues | undefined, claims: Set<string>): void {
    this.#seesReservations = true;
    for (const [values, sign] of [[before, -1] as const, [after, 1] as const]) {
      const place = values?.[CLAIM['location']!];
      if (values === undefined || !isPresent(place) || values[CLAIM['kind']!] !== 'hard') continue;
      const key = `${values[CLAIM['sku']!]!}\u001f${place}`;
      const qty = values[CLAIM['qty']!]!;
      this.#reserved.add(key, sign > 0 ? qty : subtractDecimals('0', qty));
      claims.add(key);
    }
  }

  #location(before: RecordValues | undefined, after: RecordValues | undefined): void {
    const code = (after ?? before)![PLACE['code']!]!;
    const old = this.#parentOf.get(code);
    if (old !== undefined) this.#childrenOf.get(old)?.delete(code);
    const parent = after?.[PLACE['parent']!];
    if (!isPresent(parent)) {
      this.#parentOf.delete(code);
      return;
    }
    this.#parentOf.set(code, parent);
    const children = this.#childrenOf.get(parent);
    if (children === undefined) this.#childrenOf.set(parent, new Set([code]));
    else children.add(code);
  }

  /** Positions of locations that have others below them, where the system keeps such totals. */
  #checkParents(keys: Iterable<string>, breaches: Breach[]): void {
    const checked = new Set<string>();
    for (const key of keys) {
      const [sku, place, lot, owner] = key.split('\u001f') as [string, string, string, string];
      const seen = new Set<string>();
      // A broken hierarchy may run in a circle: no location is climbed twice.
      for (
        let above: string | undefined = place;
        above !== undefined && !seen.has(above);
        above = this.#parentOf.get(above)
      ) {
        seen.add(above);
        const total = `${sku}\u001f${above}\u001f${lot}\u001f${owner}`;
        const record = this.#positions.get(total);
        if (record === undefined || checked.has(total) || (this.#childrenOf.get(above)?.size ?? 0) === 0) continue;
        checked.add(total);
        const leaves = this.#leaves(above).flatMap((leaf) => {
          const onHand = this.#positions.get(`${sku}\u001f${leaf}\u001f${lot}\u001f${owner}`)?.[STOCK.onHand];
          return isPresent(onHand) ? [onHand] : [];
        });
        if ((record[STOCK.onHand] ?? '0') !== addDecimals(leaves)) breaches.push(breach('parent_is_sum', total));
      }
    }
  }

  #leaves(of: string, seen = new Set<string>()): string[] {
    if (seen.has(of)) return [];
    seen.add(of);
    const children = this.#childrenOf.get(of);
    if (children === undefined || children.size === 0) return [of];
    return [...children].flatMap((child) => this.#leaves(child, seen));
  }

  #checkMovements(
    touched: ReadonlyMap<string, RecordChange>,
    movements: readonly RecordValues[],
    breaches: Breach[],
  ): void {
    if (movements.length > 0) this.#seesMovements = true;
    if (!this.#seesMovements) return;
    const moved = new Map<string, RecordValues[]>();
    for (const movement of movements) {
      const key = ['sku', 'location', 'lot', 'owner'].map((name) => movement[MOVE[name]!] ?? '').join('\u001f');
      pushTo(moved, key, movement);
    }
    for (const key of new Set([...touched.keys(), ...moved.keys()])) {
      const change = touched.get(key);
      // What was there before the first figure cannot be explained by movements, and those that came before are in it.
      if (change !== undefined && change.before === undefined) {
        this.#unexplained.forget(key);
        continue;
      }
      const was = change?.before?.[STOCK.onHand] ?? this.#positions.get(key)?.[STOCK.onHand] ?? '0';
      const is = change === undefined ? was : (change.after?.[STOCK.onHand] ?? '0');
      let expected = was;
      for (const movement of moved.get(key) ?? []) {
        const delta = movement[MOVE['delta']!];
        if (isPresent(delta)) expected = addDecimals([expected, delta]);
        else {
          // A count says how much there is: nothing before it needs to be explained any more.
          expected = movement[MOVE['absolute']!]!;
          this.#unexplained.forget(key);
        }
      }
      this.#unexplained.add(key, subtractDecimals(is, expected));
      if (this.#unexplained.of(key) !== '0') breaches.push(breach('movements_explain_on_hand', key));
    }
    this.#checkTransfers(touched, movements, breaches);
    for (const [key, list] of moved) {
      const change = touched.get(key);
      if (change?.before === undefined || change.after === undefined) continue;
      if (!list.every((movement) => movement[MOVE['reason']!] === 'despatch')) continue;
      if (change.before[STOCK.available] !== change.after[STOCK.available])
        breaches.push(breach('despatch_keeps_available', key));
    }
  }

  #checkTransfers(
    touched: ReadonlyMap<string, RecordChange>,
    movements: readonly RecordValues[],
    breaches: Breach[],
  ): void {
    const transferred = new Set<string>();
    const others = new Set<string>();
    for (const movement of movements)
      (TRANSFERS.has(movement[MOVE['reason']!]!) ? transferred : others).add(movement[MOVE['sku']!]!);
    if (transferred.size === 0) return;
    const changesOf = new Map<string, RecordChange[]>();
    for (const change of touched.values()) pushTo(changesOf, (change.after ?? change.before)![STOCK.sku]!, change);
    for (const sku of transferred) {
      if (others.has(sku)) continue;
      const changes = changesOf.get(sku) ?? [];
      const total = (side: 'before' | 'after'): string =>
        addDecimals(
          changes.flatMap((change) =>
            [change[side]?.[STOCK.onHand], change[side]?.[STOCK.inTransit]].filter(isPresent),
          ),
        );
      if (total('before') !== total('after')) breaches.push(breach('transfer_conserves', sku));
    }
  }
}

/** The invariants that one position of stock shows by itself to be broken. */
export function positionBreaches(values: RecordValues): readonly Breach[] {
  const breaches: Breach[] = [];
  checkRecord(undefined, values, breaches);
  return breaches.length === 0 ? SOUND : breaches;
}

const SOUND: readonly Breach[] = [];

/** Invariants 1 to 3: of one record by itself. */
function checkRecord(given: string | undefined, values: RecordValues, breaches: Breach[]): void {
  const broken = (invariant: Invariant): void => {
    breaches.push(breach(invariant, given ?? positionKey(values)));
  };
  if (availableOf(values) !== values[STOCK.available]) broken('available_identity');
  const picked = values[STOCK.picked];
  if (isPresent(picked) && (isNegative(picked) || !atMost(picked, values[STOCK.allocated] ?? '0')))
    broken('picked_within_allocated');
  if (isPresent(values[STOCK.onHold]) && !atMost(values[STOCK.onHold], values[STOCK.onHand]))
    broken('hold_within_on_hand');
}

function pushTo<T>(lists: Map<string, T[]>, key: string, item: T): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [item]);
  else list.push(item);
}

/** Running sums of decimals by key; a sum of zero is forgotten. */
class Sums {
  readonly #sums = new Map<string, string>();
  readonly #most: number;

  /** Of more than `most` sums the oldest one is forgotten. */
  constructor(most = Infinity) {
    this.#most = most;
  }

  of(key: string): string {
    return this.#sums.get(key) ?? '0';
  }

  keys(): Iterable<string> {
    return this.#sums.keys();
  }

  entries(): Iterable<readonly [key: string, sum: string]> {
    return this.#sums.entries();
  }

  forget(key: string): void {
    this.#sums.delete(key);
  }

  add(key: string, value: string): void {
    if (value === '0') return;
    const sum = addDecimals([this.of(key), value]);
    if (sum === '0') this.#sums.delete(key);
    else this.#sums.set(key, sum);
    if (this.#sums.size > this.#most) this.#sums.delete(this.#sums.keys().next().value!);
  }
}

function minus(a: string | null | undefined, b: string | null | undefined): string {
  return subtractDecimals(a ?? '0', b ?? '0');
}

function positionKey(values: RecordValues): string {
  return [STOCK.sku, STOCK.location, STOCK.lot, STOCK.owner].map((index) => values[index] ?? '').join('\u001f');
}

function claimKey(values: RecordValues): string {
  return `${values[STOCK.sku]!}\u001f${values[STOCK.location]!}`;
}

function breach(invariant: Invariant, key: string): Breach {
  return { invariant, key: key.replaceAll('\u001f', '/') };
}
