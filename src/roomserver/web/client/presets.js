// Presets: one request after another, for the server's `error` does not say which it answers.

import { RelayError } from './errors.js';

const ANSWER_MS = 10_000;
/** Errors that may be the answer to a request. */
const REFUSALS = [
  'preset_not_found',
  'too_many_presets',
  'database_away',
  'rate_limited',
  'internal',
  'invalid_message', // of its name, and not of a mix: that is sent before
];

/** @typedef {import('./connection.js').Message} Message */

export class Presets {
  #send;
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();
  /** @type {{answer: string, resolve: (message: Message) => void, reject: (error: RelayError) => void} | null} */
  #waiting = null;

  /** @param {(message: Message) => void} send */
  constructor(send) {
    this.#send = send;
  }

  /** @param {Message} request @param {string} answer The type of the answer. @returns {Promise<Message>} */
  ask(request, answer) {
    const asked = this.#last.then(() => this.#exchange(request, answer));
    this.#last = asked.catch(() => {});
    return asked;
  }

  /** A text came; whether it was an answer. @param {Message} message */
  heard(message) {
    const waiting = this.#waiting;
    if (waiting === null) return false;
    if (message.type === waiting.answer) {
      waiting.resolve(message);
      return true;
    }
    if (message.type !== 'error' || !REFUSALS.includes(message.code)) return false;
    waiting.reject(new RelayError(message.code, message.message));
    return true;
  }

  /** @param {Message} request @param {string} answer @returns {Promise<Message>} */
  #exchange(request, answer) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => done(() => reject(lost())), ANSWER_MS);
      const lost = () => new RelayError('unreachable', 'no answer from the server');
      /** @param {() => void} end */
      const done = (end) => {
        clearTimeout(timer);
        this.#waiting = null;
        end();
      };
      this.#waiting = {
        answer,
        resolve: (message) => done(() => resolve(message)),
        reject: (error) => done(() => reject(error)),
      };
      this.#send(request);
    });
  }
}
