/**
 * The REST interface as the pages use it.
 *
 * The access token is in memory alone; what outlives a reload is the refresh token in a cookie that
 * no script can read. Tabs share that cookie, and each exchange uses it up, so they take turns.
 * @module
 */
import { RelayError } from '../client/errors.js';
import { kept } from './dom.js';

export { RelayError };

/** @typedef {{ userId: string, email: string, role: string, createdAt: number }} Account */

const LOCK = 'relaycore-refresh';
const HINT = 'signed-in';
const CHANNEL = 'relaycore-session';

/**
 * The session of an account. Events: `change`, when somebody signed in or out, here or in another
 * tab.
 */
class Session extends EventTarget {
  /** @type {string | null} */
  #accessToken = null;
  /** @type {Promise<boolean> | null} */
  #refreshing = null;
  #tabs = 'BroadcastChannel' in window ? new BroadcastChannel(CHANNEL) : null;
  /** @type {Account | null} who is signed in */
  account = null;

  constructor() {
    super();
    this.#tabs?.addEventListener('message', ({ data }) => {
      if (data === 'out') this.#forget();
      if (data === 'in' && this.account === null) void this.resume();
    });
  }

  get accessToken() {
    return this.#accessToken;
  }

  /**
   * Goes on with the session that the browser holds. Whether it may hold one is remembered, so that
   * nobody who never signed in asks the server in vain.
   * @returns {Promise<Account | null>}
   */
  async resume() {
    if (kept.get(HINT) && (await this.refresh())) await this.#look();
    return this.account;
  }

  /** @param {string} email @param {string} password @returns {Promise<Account>} */
  async signIn(email, password) {
    return this.#enter('/auth/broadcaster', { email, password });
  }

  /** @param {string} email @param {string} password @param {string} [invite] @returns {Promise<Account>} */
  async register(email, password, invite) {
    return this.#enter('/auth/register', { email, password, ...(invite && { invite }) });
  }

  /**
   * Signs out in every tab.
   * @throws {RelayError} the server was not reached: the session goes on, for the browser still holds it
   */
  async signOut() {
    await send('POST', '/auth/logout', { body: {} });
    this.#forget();
    this.#tabs?.postMessage('out');
  }

  /** @param {string} oldPassword @param {string} newPassword */
  async changePassword(oldPassword, newPassword) {
    const answer = await request('POST', '/auth/password', {
      body: { oldPassword, newPassword, cookie: true },
    });
    this.#accessToken = answer.accessToken;
  }

  /**
   * Takes a new access token by the cookie; calls that meet are one.
   * @returns {Promise<boolean>} whether there is a session
   */
  refresh() {
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  async #refresh() {
    const exchange = () => send('POST', '/auth/refresh', { body: {} });
    try {
      // Locks are for secure contexts; elsewhere the browser keeps no such cookie either.
      const answer = await (navigator.locks ? navigator.locks.request(LOCK, exchange) : exchange());
      this.#accessToken = answer.accessToken;
      return true;
    } catch (error) {
      if (!(error instanceof RelayError) || ![400, 401, 403].includes(error.status ?? 0)) throw error;
      this.#forget();
      return false;
    }
  }

  /** @param {string} path @param {object} body */
  async #enter(path, body) {
    const answer = await send('POST', path, { body: { ...body, cookie: true } });
    this.#accessToken = answer.accessToken;
    kept.set(HINT, true);
    await this.#look();
    this.#tabs?.postMessage('in');
    return /** @type {Account} */ (this.account);
  }

  async #look() {
    this.account = await request('GET', '/api/broadcaster/me');
    this.dispatchEvent(new Event('change'));
  }

  #forget() {
    const was = this.account;
    this.#accessToken = null;
    this.account = null;
    kept.set(HINT, undefined);
    if (was !== null) this.dispatchEvent(new Event('change'));
  }
}

export const session = new Session();

/**
 * @typedef {object} Options
 * @property {unknown} [body] sent as JSON
 * @property {Record<string, unknown>} [query] what is undefined or null is left out
 * @property {AbortSignal} [signal]
 */

/**
 * A request in the account's name. A token that has expired is renewed, once.
 * @param {string} method @param {string} path @param {Options} [options]
 * @returns {Promise<any>} the answer; null when it is empty
 * @throws {RelayError}
 */
export async function request(method, path, options = {}) {
  try {
    return await send(method, path, options, session.accessToken);
  } catch (error) {
    const renewable =
      error instanceof RelayError && ['token_expired', 'token_invalid', 'unauthorized'].includes(error.code);
    if (!renewable || !(await session.refresh())) throw error;
    return send(method, path, options, session.accessToken);
  }
}

/**
 * All pages of a list, `most` entries at the most.
 * @param {string} path @param {string} name of the list in the answer
 * @param {Record<string, unknown>} [query] @param {number} [most]
 * @returns {Promise<any[]>}
 * @throws {RelayError}
 */
export async function requestAll(path, name, query = {}, most = 1000) {
  const found = [];
  let cursor = null;
  do {
    const page = await request('GET', path, { query: { ...query, cursor } });
    found.push(...page[name]);
    cursor = page.next;
  } while (cursor !== null && found.length < most);
  return found;
}

/**
 * One request, in the name of whoever the token says.
 * @param {string} method @param {string} path @param {Options} [options] @param {string | null} [token]
 * @returns {Promise<any>}
 * @throws {RelayError} code `unreachable` when no answer came
 */
export async function send(method, path, { body, query, signal } = {}, token = null) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null) url.searchParams.set(name, String(value));
  }
  /** @type {Record<string, string>} */
  const headers = {};
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(url, {
      method,
      headers,
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store',
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new RelayError('unreachable', 'the server does not answer');
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw problem(response, answer);
  return answer;
}

/** @param {Response} response @param {any} document RFC 9457, if it is one */
function problem(response, document) {
  const detail = document?.detail ?? response.statusText;
  return new RelayError(document?.code ?? 'internal', detail, {
    status: response.status,
    detail,
    retryAfter: Number(response.headers.get('Retry-After')) || undefined,
    url: document?.url,
  });
}
