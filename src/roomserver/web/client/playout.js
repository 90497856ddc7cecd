// When to play: what is known of arrivals, and how much to hold back.

const BIN_S = 2;
const JITTER_BINS = 15; // of half a minute
const BASE_BINS = 3;
const MOST_MS = 500; // of an adaptive target; what came later than that no buffer is to cover
const START_MS = 40; // more than a frame, before anything is known
const SAFETY_MS = 2;

const GAIN = 0.1; // of the error, per second: 1 ms off is caught up with at 100 ppm
const INTEGRAL = GAIN ** 2 / 4; // critically damped
const SMOOTHING_S = 1.5;
const MOST_DRIFT = 500e-6;
const MOST_RATIO = 1000e-6;

/**
 * Follows the delays of frames and says how much of it a player has to hold back.
 *
 * Delays are in frames of the audio context, against an origin of the caller's choice: the moment
 * at which a frame can first be played, less its place on the timeline. The **base** is the
 * smallest of the last seconds, so that a clock that drifts moves it; the **jitter** what the others
 * took longer. A player that holds back the second longest of the last half minute has no gap but
 * from what happens once: that is not followed, the second time is.
 */
export class Arrivals {
  #rate;
  /** Longest delay beyond the base by bin, newest first. */
  #late = new Float64Array(JITTER_BINS);
  /** Smallest delay by bin, newest first. */
  #least = new Float64Array(BASE_BINS).fill(Infinity);
  #binEnds = -Infinity;
  #base = NaN;
  #bins = 0; // in which anything came

  /** @param {number} contextRate */
  constructor(contextRate) {
    this.#rate = contextRate;
  }

  /** The least delay; NaN before the first frame. */
  get base() {
    return this.#base;
  }

  /** Delay beyond the base that is to be expected, in frames of the context. */
  get jitter() {
    if (this.#bins === 0) return (START_MS * this.#rate) / 1000;
    let most = 0;
    let second = 0;
    for (const late of this.#late) {
      if (late > most) {
        second = most;
        most = late;
      } else if (late > second) {
        second = late;
      }
    }
    // In the beginning there is no second one, and little was seen yet.
    const least = this.#bins < 2 ? (START_MS * this.#rate) / 1000 : 0;
    return Math.max(this.#bins < 3 ? most : second, least);
  }

  /** Delays count from another origin from now on. */
  reset() {
    this.#least.fill(Infinity);
    this.#base = NaN;
  }

  /** A frame came. @param {number} delay @param {number} now */
  add(delay, now) {
    if (now >= this.#binEnds) {
      this.#late.copyWithin(1, 0);
      this.#least.copyWithin(1, 0);
      this.#late[0] = 0;
      this.#least[0] = Infinity;
      this.#binEnds = now + BIN_S * this.#rate;
      this.#bins++;
    }
    this.#least[0] = Math.min(this.#least[0], delay);
    this.#base = Math.min(...this.#least);
    const late = delay - this.#base;
    if (late <= (MOST_MS * this.#rate) / 1000) this.#late[0] = Math.max(this.#late[0], late);
  }

  /** Delay to hold back beyond the base. @param {number} quantum What is rendered at once. @param {number} ahead What the resampler reads ahead. */
  target(quantum, ahead) {
    const least = quantum + ahead + (SAFETY_MS * this.#rate) / 1000;
    return Math.min(this.jitter + least, (MOST_MS * this.#rate) / 1000);
  }
}

/**
 * Steers the ratio of the resampler so that a delay stays at its target: proportional to what it is
 * off, and in the long run the difference of the two clocks.
 */
export class ClockFollower {
  #smoothed = 0;
  #drift = 0;

  /** Difference of the clocks: positive when the source's is the faster one. */
  get drift() {
    return this.#drift;
  }

  /** The delay was set anew. */
  reset() {
    this.#smoothed = 0;
  }

  /**
   * How much faster than nominal to read, within ±1000 ppm.
   *
   * @param {number} excess Seconds of delay beyond the target.
   * @param {number} elapsed Seconds since the last time.
   */
  steer(excess, elapsed) {
    this.#smoothed += (excess - this.#smoothed) * Math.min(1, elapsed / SMOOTHING_S);
    const wanted = GAIN * this.#smoothed + this.#drift;
    const ratio = Math.max(-MOST_RATIO, Math.min(MOST_RATIO, wanted));
    if (ratio === wanted) {
      // Not while it is at its limit: what is caught up with is no difference of clocks.
      const drift = this.#drift + INTEGRAL * this.#smoothed * elapsed;
      this.#drift = Math.max(-MOST_DRIFT, Math.min(MOST_DRIFT, drift));
    }
    return ratio;
  }
}
