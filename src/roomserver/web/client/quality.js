// How good a listener's connection is, in a word.

/** @typedef {'excellent' | 'good' | 'fair' | 'poor' | 'unknown'} Quality */

const WINDOW = 10; // seconds that are looked back on

/** Judges by what was missing in the last ten seconds, and by delay; a slow device is no bad connection. */
export class QualityJudge {
  /** @type {number[]} Concealed milliseconds, as counted, second by second. */
  #history = [];

  /** Once a second. @param {number} concealedMs So far. @param {number} latencyMs As far as the player. @param {number} jitterMs @returns {Quality} */
  judge(concealedMs, latencyMs, jitterMs) {
    this.#history.push(concealedMs);
    if (this.#history.length > WINDOW + 1) this.#history.shift();
    const missing = concealedMs - this.#history[0];
    if (missing > 500 || latencyMs > 1500) return 'poor';
    if (missing > 60 || latencyMs > 600 || jitterMs > 60) return 'fair';
    if (missing > 0 || latencyMs > 300 || jitterMs > 20) return 'good';
    return 'excellent';
  }

  /** What was is not held against what comes. */
  reset() {
    this.#history = [];
  }
}
