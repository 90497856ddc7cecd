// The page's side of a connection: the worker that holds it, and what its owner is asked and told.

import { RelayError, isPassing, plain, revived } from './errors.js';

/** @typedef {import('./connection.js').Message} Message */
/**
 * @typedef {{
 *   renew: () => Promise<string | null>,
 *   connecting: (error: RelayError | null) => void,
 *   registered: (message: Message) => void,
 *   text: (message: Message) => void,
 *   closed: (error: RelayError) => void,
 *   other: (message: any) => void,
 * }} SessionOwner
 */

export class Session {
  #worker = new Worker(new URL('./session-worker.js', import.meta.url), { type: 'module' });
  #owner;
  #failed = false;
  /** @type {(() => void) | null} */
  #left = null;

  /** @param {SessionOwner} owner */
  constructor(owner) {
    this.#owner = owner;
    this.#worker.onmessage = (event) => this.#hear(event.data);
    this.#worker.onerror = (event) => {
      this.#failed = true;
      const error = new RelayError('worker_failed', event.message || 'the worker did not load');
      this.#owner.closed(error);
    };
  }

  /** @param {any} message @param {Transferable[]} [transfer] */
  tell(message, transfer = []) {
    this.#worker.postMessage(message, transfer);
  }

  /** Sends a text to the server, if there is a connection. @param {Message} message */
  send(message) {
    this.tell({ type: 'send', message });
  }

  /** What registrations to come say. @param {Record<string, unknown>} fields */
  remember(fields) {
    this.tell({ type: 'remember', fields });
  }

  /** Ends the connection, and the worker. @param {number} [bufferedMs] That the server still plays. */
  async leave(bufferedMs = 0) {
    const left = new Promise((resolve) => (this.#left = () => resolve(undefined)));
    this.tell({ type: 'leave', bufferedMs });
    if (!this.#failed) await left;
    this.#worker.onmessage = null;
    this.#worker.terminate();
  }

  /** @param {any} message */
  async #hear(message) {
    if (this.#left !== null && message.type !== 'left') return; // the owner is done with it
    switch (message.type) {
      case 'connecting':
        this.#owner.connecting(message.error && revived(message.error));
        break;
      case 'registered':
        this.#owner.registered(message.message);
        break;
      case 'text':
        this.#owner.text(message.message);
        break;
      case 'closed':
        this.#owner.closed(revived(message.error));
        break;
      case 'renew':
        this.tell({ type: 'renewed', ...(await this.#renew()) });
        break;
      case 'left':
        this.#left?.();
        break;
      default:
        this.#owner.other(message);
    }
  }

  /** A new token, null if there is none, or why there may be one later. */
  async #renew() {
    try {
      return { roomToken: await this.#owner.renew() };
    } catch (thrown) {
      if (!isPassing(thrown)) return { roomToken: null };
      const error =
        thrown instanceof RelayError ? thrown : new RelayError('unreachable', String(thrown));
      return { roomToken: null, error: plain(error) };
    }
  }
}
