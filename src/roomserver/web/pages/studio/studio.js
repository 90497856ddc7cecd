/**
 * What the Broadcast page is about: one room, its inputs, whether it is live, and who listens.
 * It knows nothing of how that looks; `change` is dispatched whenever something is to be drawn anew.
 * @module
 */

import { RelayError, request, session } from '../api.js';
import { kept, tabStorage } from '../dom.js';
import { Broadcaster } from '../../client/relay-client.js';
import { listenerQuality, uploadHealth } from './health.js';
import { poll } from './poll.js';

const LISTENERS_MS = 2000;
const ROOM_MS = 5000;
const HEALTH_REPORTS = 5; // a report a second: what was lost in the last seconds, not ever
const PAGE = 100;
const KEPT = 'studio';

/**
 * @typedef {{ kind: 'device', deviceId: string, label: string, channels: number[] | null,
 *             channelCount: number, processing: boolean, gain: number, muted: boolean }
 *         | { kind: 'tone', frequency: number, label: string, level: number, gain: number, muted: boolean }
 *         | { kind: 'tab' | 'file', label: string, gain: number, muted: boolean }} Kept
 * An input as it is remembered over a reload; of a file or tab no more than that there was one.
 */

/**
 * @typedef {{ roomId: string, live: boolean, inputs: Kept[], order: number[], names: string[] }} Remembered
 * `order`: of each channel on air, its number when those of the inputs are counted through; `names` go
 * with it.
 */

/** What a window remembers of its room. @returns {Remembered | null} */
export function remembered() {
  const found = kept.get(KEPT, tabStorage());
  const isWhole = typeof found?.roomId === 'string' && ['inputs', 'order', 'names'].every((name) => Array.isArray(found[name]));
  return isWhole ? found : null;
}

export function forget() {
  kept.set(KEPT, undefined, tabStorage());
}

export class Studio extends EventTarget {
  /**
   * @param {any} room as `GET /api/broadcaster/rooms/{roomId}` has it
   */
  constructor(room) {
    super();
    this.room = room;
    /** @type {any[]} */
    this.listeners = [];
    this.total = room.listenerCount ?? 0;
    this.more = false;
    /** @type {number | null} Unix ms */
    this.liveSince = null;
    /** @type {{ code: string, reason: string } | null} why the broadcast is over, when it wasn't stopped here */
    this.ended = null;
    /** @type {import('../../client/relay-client.js').RelayError | null} why it reconnects */
    this.trouble = null;
    /** Whether the browser lets sound run: nothing is sent while it does not, whatever the state. */
    this._runs = true;
    this.health = uploadHealth(null, null);
    /** @type {Map<import('../../client/relay-client.js').Input, Kept>} */
    this._kept = new Map();
    /** @type {import('../../client/relay-client.js').SourceStatus[]} */
    this._reports = [];
    /** @type {Map<string, any>} a player's report before its newest, by client id */
    this._before = new Map();
    this._wanted = PAGE;
    /** @type {Broadcaster | null} */
    this.broadcaster = null;
    /** @type {Promise<Broadcaster> | null} */
    this._opening = null;
    this.disposed = false;
    this._polls = [
      poll(() => this._loadListeners(), LISTENERS_MS),
      poll(() => this._loadRoom(), ROOM_MS),
    ];
  }

  /**
   * A request about the room.
   * @param {string} method
   * @param {string} [what] behind the room's path
   * @param {import('../api.js').Options} [options]
   */
  ask(method, what = '', options = {}) {
    return request(method, `/api/broadcaster/rooms/${this.room.roomId}${what}`, options);
  }

  get state() {
    return this.broadcaster?.state ?? 'idle';
  }

  get isLive() {
    return this.state === 'live' || this.state === 'reconnecting' || this.state === 'connecting' || this.state === 'suspended';
  }

  /** On air, and no sound is sent: the browser has stopped it. */
  get isSilenced() {
    return this.state === 'live' && !this._runs;
  }

  /**
   * The broadcaster, made when it is first asked for; from a user's gesture, for its audio context
   * starts at once.
   * @throws {import('../api.js').RelayError} code `left` when the room was left meanwhile
   */
  open() {
    this._opening ??= this._makeBroadcaster().catch((error) => {
      this._opening = null; // to be tried again
      throw error;
    });
    return this._opening;
  }

  async _makeBroadcaster() {
    const { roomToken } = await this.ask('POST', '/token');
    this._checkIsThere();
    const broadcaster = new Broadcaster({
      roomId: this.room.roomId,
      roomToken,
      renewToken: () => this.ask('POST', '/token'),
    });
    broadcaster.addEventListener('statechange', () => this._moved());
    broadcaster.addEventListener('audio', () => this._lookAtAudio());
    broadcaster.addEventListener('inputs', () => this._inputsChanged());
    broadcaster.addEventListener('status', () => this._reported());
    broadcaster.addEventListener('closed', (event) => this._over(/** @type {CustomEvent} */ (event).detail));
    broadcaster.addEventListener('error', (event) => this._failed(/** @type {CustomEvent} */ (event).detail.error));
    this.broadcaster = broadcaster;
    return broadcaster;
  }

  /**
   * Adds what was remembered, or chosen.
   * @param {Kept & { file?: File }} wish
   */
  async add(wish) {
    const broadcaster = await this.open();
    let input;
    if (wish.kind === 'device') {
      input = await broadcaster.addDevice(wish.deviceId, {
        name: wish.label,
        channelCount: wish.channelCount,
        channels: wish.channels ?? undefined,
        echoCancellation: wish.processing,
      });
    } else if (wish.kind === 'tone') {
      input = broadcaster.addTone({ frequency: wish.frequency, name: wish.label, level: wish.level });
    } else if (wish.kind === 'tab') {
      input = await broadcaster.addTab();
    } else {
      if (!wish.file) throw new TypeError('a file that was chosen once has to be chosen again');
      input = await broadcaster.addFile(wish.file, { loop: true });
    }
    if (this.disposed) broadcaster.removeInput(input); // nothing else would let the device go
    this._checkIsThere();
    input.gain = wish.gain;
    input.muted = wish.muted;
    const { file: _, ...rest } = /** @type {any} */ (wish);
    this._kept.set(input, rest);
    this._remember();
    this._tell();
    return input;
  }

  /** @param {import('../../client/relay-client.js').Input} input */
  remove(input) {
    this.broadcaster?.removeInput(input);
    this._kept.delete(input);
    this._inputsChanged();
  }

  /**
   * @param {import('../../client/relay-client.js').Input} input
   * @param {{ gain?: number, muted?: boolean }} change
   */
  adjust(input, change) {
    Object.assign(input, change);
    Object.assign(this._kept.get(input) ?? {}, change);
    this._remember();
    this._tell();
  }

  /** @param {number} index @param {string} name */
  async rename(index, name) {
    this.broadcaster?.renameChannel(index, name);
    this._remember();
    this._tell();
    // A stream's names are those that it began with, so that of one that is on is the owner's to say.
    if (this.isLive) {
      await this.change({ channelNames: [...(this.broadcaster?.channelNames ?? [])] });
    }
  }

  /** @param {number[]} order the present index of each channel to be */
  reorder(order) {
    this.broadcaster?.reorderChannels(order);
  }

  /** Names and order of before, where there are as many channels as then. @param {Remembered} before */
  restoreChannels({ order, names }) {
    const { broadcaster } = this;
    if (broadcaster?.channelNames.length !== order.length) return;
    broadcaster.reorderChannels(order);
    names.forEach((name, index) => broadcaster.renameChannel(index, name));
  }

  async goLive() {
    this.ended = this.trouble = null;
    const broadcaster = await this.open();
    if (this.room.held) await this.resume();
    this._checkIsThere();
    await broadcaster.start();
    this._lookAtAudio(); // it may never have run
    this._remember();
  }

  async stop() {
    await this.broadcaster?.stop();
    this.liveSince = null;
    this._remember();
    this._tell();
  }

  /** From a press: browsers let sound run then. Whether it does is told by `change`. */
  letRun() {
    void this.broadcaster?.audioContext.resume();
  }

  /** A break: listeners stay. @param {number | null} seconds null: the grace period */
  async suspend(seconds) {
    this._take(await this.ask('POST', '/suspend', { body: seconds === null ? {} : { forS: seconds } }));
  }

  async resume() {
    this._take(await this.ask('POST', '/resume'));
  }

  /** @param {Record<string, unknown>} changes */
  async change(changes) {
    this._take(await this.ask('PATCH', '', { body: changes }));
  }

  async close() {
    await this.ask('DELETE');
    forget();
  }

  showMore() {
    this._wanted += PAGE;
    return this._loadListeners();
  }

  /** Leaves the room as it is; what was on goes on for the grace period. */
  dispose() {
    this.disposed = true;
    for (const stop of this._polls) stop();
    this.broadcaster?.close().catch(() => {});
    this.broadcaster = null;
  }

  refresh() {
    return Promise.all([this._loadListeners(), this._loadRoom()]);
  }

  _checkIsThere() {
    if (this.disposed) throw new RelayError('left', 'the room was left');
  }

  _moved() {
    const { state } = this;
    if (state === 'live') {
      this.liveSince ??= Date.now();
      this.trouble = null;
    } else if (state === 'idle' || state === 'closed') this.liveSince = null;
    if (state !== 'live') {
      this._reports = [];
      this.health = uploadHealth(null, null);
    }
    this._remember();
    this._tell();
  }

  _reported() {
    const status = this.broadcaster?.status ?? null;
    if (status) {
      this._reports.push(status);
      this.total = status.listenerCount;
      if (this._reports.length > HEALTH_REPORTS) this._reports.shift();
    }
    this.health = uploadHealth(status, this._reports.length > 1 ? this._reports[0] : null);
    this._tell();
  }

  /** @param {{ code: string, reason: string }} detail */
  _over(detail) {
    this.ended = detail;
    this.liveSince = null;
    this._remember();
    this._tell();
  }

  _lookAtAudio() {
    const context = this.broadcaster?.audioContext;
    this._runs = context === undefined || context.state === 'running';
    this._tell();
  }

  /** @param {import('../../client/relay-client.js').RelayError} error */
  _failed(error) {
    this.trouble = error;
    this._tell();
  }

  _inputsChanged() {
    this._remember();
    this._tell();
  }

  async _loadRoom() {
    if (!session.account) return; // signed out while on air
    this._take(await this.ask('GET'));
  }

  async _loadListeners() {
    if (!session.account) return;
    /** @type {any[]} */
    const all = [];
    /** @type {any} */
    let page = null;
    do {
      page = await this.ask('GET', '/listeners', { query: { limit: PAGE, cursor: page?.next } });
      all.push(...page.listeners);
    } while (page.next && all.length < this._wanted);
    const known = new Map(this.listeners.map((listener) => [listener.clientId, listener]));
    this.listeners = all.map((listener) => {
      const last = known.get(listener.clientId)?.player ?? null;
      if (last && listener.player && last.at !== listener.player.at) this._before.set(listener.clientId, last);
      const quality = listenerQuality(listener.player, this._before.get(listener.clientId) ?? null);
      return { ...listener, quality };
    });
    for (const id of this._before.keys()) {
      if (!all.some((listener) => listener.clientId === id)) this._before.delete(id);
    }
    this.total = page.total;
    this.more = page.next !== null;
    this._tell();
  }

  /** @param {any} room */
  _take(room) {
    this.room = room;
    this._tell();
  }

  _remember() {
    if (this.disposed) return; // it is another room's turn
    const inputs = this.broadcaster?.inputs.map((input) => this._kept.get(input)).filter(Boolean) ?? [];
    const names = [...(this.broadcaster?.channelNames ?? [])];
    /** @type {number[]} */
    const order = [];
    const places = this.broadcaster?.inputs.flatMap((input) => input.channels) ?? [];
    places.forEach((channel, place) => (order[channel] = place));
    kept.set(KEPT, { roomId: this.room.roomId, live: this.isLive, inputs, order, names }, tabStorage());
  }

  _tell() {
    if (!this.disposed) this.dispatchEvent(new Event('change'));
  }
}
