/**
 * Lamps that stay lit once a channel clipped, until somebody puts them out.
 * @module
 */

export class Lamps {
  /** @type {Set<number>} channels */
  #lit = new Set();
  #changed;
  #clipped;

  /**
   * @param {() => ArrayLike<number> | null} clipped newest, by channel: looked at once per frame,
   *   for the next levels replace it
   * @param {() => void} changed
   */
  constructor(clipped, changed) {
    this.#clipped = clipped;
    this.#changed = changed;
    requestAnimationFrame(this.#look);
  }

  /** @param {number} channel */
  isLit(channel) {
    return this.#lit.has(channel);
  }

  /** @param {number} channel */
  reset(channel) {
    this.#lit.delete(channel);
    this.#changed();
  }

  #look = () => {
    requestAnimationFrame(this.#look);
    const clipped = this.#clipped();
    for (let channel = 0; clipped && channel < clipped.length; channel += 1) {
      if (!clipped[channel] || this.#lit.has(channel)) continue;
      this.#lit.add(channel);
      this.#changed();
    }
  };
}
