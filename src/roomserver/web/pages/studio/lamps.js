/**
 * Lamps that stay lit once a channel clipped, until somebody puts them out.
 * @module
 */

/** @typedef {import('../../client/relay-client.js').Broadcaster} Broadcaster */

export class Lamps {
  #broadcaster;
  #changed;
  #lit = 0; // how many were seen to be

  /** @param {() => Broadcaster | null} broadcaster that remembers what clipped @param {() => void} changed */
  constructor(broadcaster, changed) {
    this.#broadcaster = broadcaster;
    this.#changed = changed;
    requestAnimationFrame(this.#look);
  }

  /** @param {number} channel */
  isLit(channel) {
    return Boolean(this.#broadcaster()?.levels().clipped[channel]);
  }

  /** @param {number} channel */
  reset(channel) {
    this.#broadcaster()?.resetClipped(channel);
    this.#changed();
  }

  #look = () => {
    requestAnimationFrame(this.#look);
    let lit = 0;
    for (const clipped of this.#broadcaster()?.levels().clipped ?? []) lit += clipped;
    if (lit === this.#lit) return;
    this.#lit = lit;
    this.#changed();
  };
}
