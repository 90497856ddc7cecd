// The way into a room over HTTP.

import { RelayError } from './errors.js';

/** @param {string | URL | undefined} server By default the page's own. @returns {string} */
export function serverUrl(server) {
  return new URL(server ?? location.origin, location.href).href.replace(/\/$/, '');
}

/** @param {Response} response @returns {Promise<RelayError>} */
async function problemOf(response) {
  const problem = await response.json().catch(() => ({}));
  const code = typeof problem.code === 'string' ? problem.code : 'http_error';
  const detail = problem.detail ?? `the server answered ${response.status}`;
  const retryAfter = Number(response.headers.get('Retry-After')) || undefined;
  return new RelayError(code, detail, { status: response.status, detail, retryAfter, url: problem.url });
}

/**
 * Joins a room; follows the server to another one that has it.
 *
 * @param {string | URL} server
 * @param {{roomCode: string, password?: string, invite?: string, nickname?: string,
 *   accessToken?: string}} request `roomCode` may be the room's id.
 */
export async function joinRoom(server, request) {
  const { accessToken, ...body } = request;
  /** @type {Record<string, string>} */
  const headers = { 'Content-Type': 'application/json' };
  if (accessToken !== undefined) headers.Authorization = `Bearer ${accessToken}`;
  let at = serverUrl(server);
  for (let moved = false; ; moved = true) {
    const options = { method: 'POST', headers, body: JSON.stringify(body) };
    const response = await fetch(`${at}/auth/room/join`, options).catch((error) => {
      throw new RelayError('unreachable', `the server can't be reached (${error.message})`);
    });
    if (response.ok) return { ...(await response.json()), server: at };
    const problem = await problemOf(response);
    if (problem.code !== 'wrong_server' || problem.url === undefined || moved) throw problem;
    at = serverUrl(problem.url);
  }
}
