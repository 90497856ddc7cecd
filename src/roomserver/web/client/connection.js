// One registered WebSocket after another: registers, answers for the clock, comes back by itself.

import { ServerClock, nowUs, pingInterval } from './clock.js';
import { RelayError, closedError, isTemporary } from './errors.js';

const ANSWER_MS = 15_000;
const SILENCE_MS = 6000; // pongs come every two seconds
const FIRST_RETRY_MS = 300; // a server that restarts loses everyone at once: not all in one instant
const LONGEST_RETRY_MS = 10_000;
const LONGEST_TOLD_S = 600; // of a Retry-After
const STEADY_MS = 5000; // after so long the next loss is a new one

/** A text message. @typedef {{type: string, [field: string]: any}} Message */
/**
 * What a connection tells whoever owns it; `fields` makes what a registration says besides room and
 * token. `renew` gets a new token when the one at hand is refused; null: there is none. It throws what
 * time can cure.
 * @typedef {{
 *   fields: () => Record<string, unknown>,
 *   renew: () => Promise<string | null>,
 *   connecting: (error: RelayError | null) => void,
 *   registered: (message: Message) => void,
 *   text: (message: Message) => void,
 *   binary: (message: ArrayBuffer) => void,
 *   closed: (error: RelayError) => void,
 * }} Owner
 */

/** The WebSocket address of a server. @param {string} server */
export function socketUrl(server) {
  const url = new URL(server);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  url.pathname = `${url.pathname.replace(/\/$/, '')}/ws`;
  url.search = url.hash = '';
  return url.href;
}

/** @param {number} ms @param {AbortSignal} signal Also when it is aborted. @returns {Promise<void>} */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      self.removeEventListener('online', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    self.addEventListener('online', done); // no use in waiting any longer
    signal.addEventListener('abort', done);
  });
}

/** For how long to wait before a try, not in step with others. @param {number} tries That failed. */
function backOff(tries) {
  const most = tries === 0 ? FIRST_RETRY_MS : 250 * 2 ** Math.min(tries, 10);
  return Math.random() * Math.min(most, LONGEST_RETRY_MS);
}

/** A way into one room that is kept open until `close`, or until the server says no. */
export class Connection {
  #server;
  #access;
  #kind;
  #owner;
  #closing = new AbortController();
  /** @type {WebSocket | null} Registered. */
  #socket = null;
  /** The fields are others than those it registered with. */
  #outdated = false;

  /**
   * @param {'registerListener' | 'registerSource'} kind
   * @param {{server: string, roomId: string, roomToken: string}} access
   * @param {Owner} owner
   */
  constructor(kind, access, owner) {
    this.#kind = kind;
    this.#server = access.server;
    this.#access = access;
    this.#owner = owner;
    this.clock = new ServerClock();
    this.reconnects = 0;
    this.bytesReceived = 0;
  }

  /** Bytes that were sent and have not gone out yet. */
  get bufferedBytes() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** Whether what is sent goes out. */
  get isRegistered() {
    return this.#socket !== null;
  }

  /** Sends a text; false when there is no connection. @param {Message} message */
  send(message) {
    this.#socket?.send(JSON.stringify(message));
    return this.#socket !== null;
  }

  /** Sends a binary message. @param {ArrayBuffer} packet */
  sendBinary(packet) {
    this.#socket?.send(packet);
  }

  /** Registers anew over another connection at once, as the fields are now. */
  restart() {
    this.#outdated = true;
    const socket = this.#socket;
    this.#socket = null; // nothing more is sent over it
    socket?.close(1000);
  }

  /** Ends it. */
  close() {
    this.#closing.abort();
  }

  /** Connects, and again, until the end. Never throws. */
  async run() {
    let tries = 0;
    let renewed = false;
    /** @type {RelayError | null} */
    let error = null;
    while (!this.#closing.signal.aborted) {
      this.#owner.connecting(error);
      const began = performance.now();
      let stood = false;
      error = await this.#session(() => {
        stood = true;
        renewed = false;
      });
      if (this.#closing.signal.aborted) break;
      if (error.url !== undefined && error.code === 'wrong_server') {
        this.#server = error.url;
      } else if (error.status === 4401 && !renewed) {
        renewed = true; // once; a new one that is refused is the end
        const token = await this.#renew();
        if (this.#closing.signal.aborted) break;
        if (token === null) return this.#owner.closed(error);
        this.#access.roomToken = token;
        continue;
      } else if (!isTemporary(error)) {
        return this.#owner.closed(error);
      }
      if (stood && this.#outdated) {
        error = null; // ours
        continue;
      }
      if (stood) {
        this.reconnects++;
        if (performance.now() - began > STEADY_MS) tries = 0;
      }
      await pause(backOff(tries), this.#closing.signal);
      tries++;
    }
  }

  /** A new token; null: there is none. As long as nobody can say, it is asked for again. */
  async #renew() {
    for (let tries = 0; !this.#closing.signal.aborted; tries++) {
      try {
        return await this.#owner.renew();
      } catch (thrown) {
        const error = /** @type {RelayError} */ (thrown);
        this.#owner.connecting(error);
        const told = Math.min(error.retryAfter ?? 0, LONGEST_TOLD_S) * 1000;
        await pause(told + backOff(tries), this.#closing.signal);
      }
    }
    return null;
  }

  /** One connection from its beginning to its end, which it returns. @param {() => void} stands @returns {Promise<RelayError>} */
  #session(stands) {
    const { signal } = this.#closing;
    return new Promise((resolve) => {
      /** @type {WebSocket} */
      let socket;
      try {
        socket = new WebSocket(socketUrl(this.#server));
      } catch (error) {
        resolve(new RelayError('malformed', String(error), { status: 4400 }));
        return;
      }
      socket.binaryType = 'arraybuffer';
      /** @type {import('./errors.js').Told | null} The `error` that may explain the close behind it. */
      let told = null;
      let registered = false;
      /** @type {ReturnType<typeof setTimeout> | undefined} */
      let pinging;
      /** @param {RelayError} error */
      const end = (error) => {
        clearTimeout(watch);
        clearTimeout(pinging);
        signal.removeEventListener('abort', leave);
        socket.onmessage = socket.onclose = null;
        if (this.#socket === socket) this.#socket = null;
        socket.close(); // on a network that is gone the close itself may never come
        resolve(error);
      };
      const leave = () => end(new RelayError('closed', 'closed by us', { status: 1000 }));
      const silent = () => end(new RelayError('unreachable', 'nothing heard from the server'));
      let watch = setTimeout(silent, ANSWER_MS);
      let heard = performance.now();
      const look = () => {
        const left = (registered ? SILENCE_MS : ANSWER_MS) - (performance.now() - heard);
        if (left <= 0) silent();
        else watch = setTimeout(look, left);
      };
      /** @param {number} count */
      const ping = (count) => {
        pinging = setTimeout(() => {
          socket.send(JSON.stringify({ type: 'ping', t: nowUs() }));
          ping(count + 1);
        }, pingInterval(count));
      };
      signal.addEventListener('abort', leave);
      socket.onclose = (event) => end(closedError(event.code || 1006, told));
      socket.onmessage = (event) => {
        heard = performance.now();
        if (event.data instanceof ArrayBuffer) {
          this.bytesReceived += event.data.byteLength;
          if (registered) this.#owner.binary(event.data);
          return;
        }
        this.bytesReceived += event.data.length;
        const message = parse(event.data);
        if (message === null) return;
        switch (message.type) {
          case 'config':
            socket.send(JSON.stringify(this.#registration()));
            break;
          case 'sourceRegistered':
          case 'listenerRegistered':
            stands();
            if (this.#outdated) {
              socket.close(1000); // the fields changed while it registered
              break;
            }
            registered = true;
            this.clock = new ServerClock(); // a server that was started again has another one
            this.#socket = socket;
            clearTimeout(watch);
            look();
            ping(0);
            this.#owner.registered(message);
            break;
          case 'pong':
            this.clock.add(message.t, message.received, message.sent, nowUs());
            break;
          case 'roomToken':
            this.#access.roomToken = message.roomToken;
            this.#owner.text(message);
            break;
          default:
            if (message.type === 'error') told = message;
            if (registered) this.#owner.text(message);
        }
      };
    });
  }

  #registration() {
    this.#outdated = false;
    const { roomId, roomToken } = this.#access;
    return { type: this.#kind, roomId, roomToken, ...this.#owner.fields() };
  }
}

/** @param {string} text @returns {Message | null} */
function parse(text) {
  try {
    const message = JSON.parse(text);
    return typeof message?.type === 'string' ? message : null;
  } catch {
    return null;
  }
}
