// What can go wrong, in words for people, and which of it time can cure.

/** A refusal of the server, or something that this browser could not do. */
export class RelayError extends Error {
  /**
   * @param {string} code Stable, snake_case: of a problem document, an `error` message, or ours.
   * @param {string} message For people.
   * @param {{status?: number, detail?: string, retryAfter?: number, url?: string}} [more]
   */
  constructor(code, message, more = {}) {
    super(message);
    this.name = 'RelayError';
    this.code = code;
    /** @type {number | undefined} HTTP status, or the code that a WebSocket was closed with. */
    this.status = more.status;
    /** @type {string | undefined} */
    this.detail = more.detail;
    /** @type {number | undefined} Seconds. */
    this.retryAfter = more.retryAfter;
    /** @type {string | undefined} Where to go instead (`wrong_server`). */
    this.url = more.url;
  }
}

/** Close codes after which the same registration may succeed later; 1006 is no close frame. */
const TEMPORARY = new Set([1000, 1001, 1005, 1006, 1011, 1012, 1013, 4408, 4413, 4429]);

/** @type {Record<number, [code: string, text: string]>} */
const CLOSED = {
  1001: ['going_away', 'the server is shutting down'],
  1006: ['unreachable', 'the connection broke'],
  1009: ['too_big', 'the server calls our message too big'],
  4400: ['malformed', 'the server calls our message malformed'],
  4401: ['token_invalid', 'the room token is invalid, expired or revoked'],
  4403: ['not_allowed', 'not allowed'],
  4404: ['room_not_found', 'there is no such room'],
  4408: ['timed_out', 'the server heard nothing from us for too long'],
  4409: ['source_taken_over', 'another connection of this account broadcasts now'],
  4410: ['room_closed', 'the room is closed'],
  4413: ['too_slow', 'we were too slow for too long'],
  4421: ['wrong_server', 'the room is on another server'],
  4429: ['rate_limited', 'the room is full, or we sent too much'],
};

/** What an `error` message says. @typedef {{type: string, code?: string, message?: string, url?: string}} Told */
/**
 * Why a connection ended.
 *
 * @param {number} status The close code.
 * @param {Told | null} told The `error` before it.
 */
export function closedError(status, told) {
  const [code, text] = CLOSED[status] ?? ['closed', `the server closed the connection (${status})`];
  return new RelayError(told?.code ?? code, told?.message ?? text, { status, url: told?.url });
}

/** Whether trying again later can help. @param {RelayError} error */
export function isTemporary(error) {
  return TEMPORARY.has(error.status ?? 1006) || error.code === 'room_suspended';
}

/**
 * Whether a request that failed so may succeed later: nobody answered (`fetch` throws a TypeError for
 * that), or the server was asked too often or could not.
 * @param {unknown} error
 */
export function isPassing(error) {
  if (!(error instanceof RelayError)) return error instanceof TypeError;
  const { code, status = 0 } = error;
  return code === 'unreachable' || status === 429 || (status >= 500 && status < 600);
}

/** An error as it goes from a worker to the page. @param {RelayError} error */
export function plain(error) {
  const { code, message, status, detail, retryAfter, url } = error;
  return { code, message, status, detail, retryAfter, url };
}

/** And back. @param {ReturnType<typeof plain>} told */
export function revived(told) {
  return new RelayError(told.code, told.message, told);
}
