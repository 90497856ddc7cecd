// A listener's mix on its way to the server and back.

import { defaultMix } from './mixer.js';

const COALESCE_MS = 50; // a dragged fader is not sent step by step

/** @typedef {import('./mixer.js').Mix} Mix */
/** @typedef {import('./mixer.js').FullMix} FullMix */

/** The mix of a message, whole. @param {Mix} message @returns {FullMix} */
export function wholeMix(message) {
  const { faders, pans, mutes, solos, master } = { ...defaultMix(), ...defined(message) };
  return { faders, pans, mutes, solos, master };
}

/** @param {Mix} mix @returns {Mix} */
function defined(mix) {
  return Object.fromEntries(Object.entries(mix).filter(([, value]) => value !== undefined));
}

/**
 * `mix` with lists of one length, for so many channels at least: what is said of more of them stays,
 * for a room may have fewer for a while.
 * @param {FullMix} mix @param {number} count @returns {FullMix}
 */
export function paddedMix(mix, count) {
  const { faders, pans, mutes, solos } = mix;
  const length = Math.max(count, faders.length, pans.length, mutes.length, solos.length);
  const channels = Array.from({ length }, (_, channel) => channel);
  return {
    faders: channels.map((c) => mix.faders[c] ?? 1),
    pans: channels.map((c) => mix.pans[c] ?? 0),
    mutes: channels.map((c) => mix.mutes[c] ?? false),
    solos: channels.map((c) => mix.solos[c] ?? false),
    master: mix.master,
  };
}

/** Knows whether what the server says is the echo of what was sent, or somebody else's hand. */
export class MixState {
  /** @type {FullMix} */
  current;
  #send;
  #changed;
  /** @type {Mix} */
  #unsent = {};
  #registered = false;
  #echoes = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {Mix} mix
   * @param {(change: Mix) => void} send To the server.
   * @param {(by: 'self' | 'owner' | 'preset') => void} changed
   */
  constructor(mix, send, changed) {
    this.current = wholeMix(mix);
    this.#send = send;
    this.#changed = changed;
  }

  /** The listener's own change: in force at once. @param {Mix} change */
  change(change) {
    const given = defined(change);
    this.current = { ...this.current, ...given };
    Object.assign(this.#unsent, given);
    this.#timer ??= setTimeout(() => this.flush(), COALESCE_MS);
    this.#changed('self');
  }

  /** Sends what waits; it waits on while there is no registration. */
  flush() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (!this.#registered) return;
    if (Object.keys(this.#unsent).length === 0) return;
    this.#send(this.#unsent);
    this.#unsent = {};
    this.#echoes++;
  }

  /**
   * Registered: the server has the mix as it was when that was asked for, and owes no answer. What
   * was changed since is sent.
   */
  registered() {
    this.#registered = true;
    this.#echoes = 0;
    this.flush();
  }

  /** The connection is gone; the next registration says the mix. */
  lost() {
    this.#registered = false;
  }

  /** A change was refused. */
  refused() {
    this.#echoes = Math.max(0, this.#echoes - 1);
  }

  /** `mixChanged` came. @param {Mix} message */
  heard(message) {
    this.#echoes--;
    if (this.#echoes > 0 || this.#timer !== undefined) return; // another answer follows
    const own = this.#echoes === 0;
    this.#echoes = 0;
    const mix = wholeMix(message);
    if (own && JSON.stringify(mix) === JSON.stringify(this.current)) return;
    this.current = mix;
    this.#changed('owner');
  }

  /** A preset is in force. @param {Mix} mix */
  loaded(mix) {
    this.current = wholeMix(mix);
    this.#changed('preset');
  }

  /** Not sent any more. */
  end() {
    this.lost();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#unsent = {};
  }
}
