/** The API of this process: what looks needs nothing, what acts needs the token, which this tab keeps until it closes. */

const TOKEN = 'waybill-token';
const ACTOR = 'waybill-actor';

export class ApiError extends Error {
  constructor(status, message, remedy) {
    super(message);
    this.status = status;
    this.remedy = remedy;
  }
}

async function answer(response) {
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(response.status, body.error ?? `status ${response.status}`, body.remedy);
  return body;
}

export async function get(path, signal) {
  return answer(await fetch(`/api/${path}`, { signal }));
}

function headers(token, actor) {
  return {
    'Content-Type': 'application/json',
    Authorization: `Bearer ${token}`,
    'Waybill-Actor': encodeURIComponent(actor),
  };
}

export async function post(path, body) {
  const response = await fetch(`/api/${path}`, {
    method: 'POST',
    headers: headers(sessionStorage.getItem(TOKEN) ?? '', sessionStorage.getItem(ACTOR) ?? ''),
    body: JSON.stringify(body),
  });
  if (response.status === 401) lock();
  return answer(response);
}

const listeners = new Set();

export function onLockChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell() {
  for (const listener of listeners) listener();
}

export function unlocked() {
  return sessionStorage.getItem(TOKEN) !== null;
}

export function actor() {
  return sessionStorage.getItem(ACTOR) ?? '';
}

/** Keeps the token when it is right; throws otherwise. */
export async function unlock(token, name) {
  await answer(await fetch('/api/token', { method: 'POST', headers: headers(token, name), body: '{}' }));
  sessionStorage.setItem(TOKEN, token);
  sessionStorage.setItem(ACTOR, name);
  tell();
}

export function lock() {
  sessionStorage.removeItem(TOKEN);
  tell();
}
