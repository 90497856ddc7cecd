// What is heard where samples are missing: the last period of the sound, repeated and faded out.

const SHORTEST_MS = 2.5; // of the periods that are looked for
const LONGEST_MS = 20;
const COMPARED_MS = 8;
const BLEND_MS = 2.5; // at the seams
const RETURN_MS = 5; // from what is made up to what is real
const FULL_MS = 15; // until it begins to fade
const SILENT_MS = 60;
const COARSE = 4; // samples between those looked at first

/** A window that falls from 1 to 0 with level ends. @param {number} t 0 … 1 */
function fall(t) {
  return t <= 0 ? 1 : t >= 1 ? 0 : 0.5 + 0.5 * Math.cos(Math.PI * t);
}

/**
 * Continues a stereo sound that breaks off, without a click at either end.
 *
 * The writer tells it of each seam: `start` where real samples end, `fill` for what is missing,
 * `resume` where they begin again. Nothing is allocated between construction and the end.
 */
export class Concealer {
  #rate;
  #left;
  #right;
  #mono;
  #period = 1;
  #position = 0; // samples made up since `start`
  #returned = 0; // of them in `resume`
  #value = [0, 0]; // by what the seam at the start would miss continuity, and its slope
  #slope = [0, 0];
  #silent = true;

  /** @param {number} sampleRate */
  constructor(sampleRate) {
    this.#rate = sampleRate;
    /** Samples that must stand before `end` when `start` is called. */
    this.history = Math.ceil(((LONGEST_MS + COMPARED_MS + BLEND_MS) * sampleRate) / 1000) + 2;
    const longest = this.#samples(LONGEST_MS) + 1;
    this.#left = new Float32Array(longest);
    this.#right = new Float32Array(longest);
    this.#mono = new Float32Array(this.history);
  }

  /** Whether `resume` has begun to blend: what is missing now needs another `start`. */
  get returning() {
    return this.#returned > 0;
  }

  /** Samples after `start` from which on there is silence. */
  get tail() {
    return this.#samples(SILENT_MS);
  }

  /** @param {number} ms */
  #samples(ms) {
    return Math.round((ms * this.#rate) / 1000);
  }

  /**
   * Real samples end before index `end`.
   *
   * @param {Float32Array} left @param {Float32Array} right @param {number} end
   */
  start(left, right, end) {
    this.#position = this.#returned = 0;
    const energy = this.#prepare(left, right, end);
    this.#silent = energy < 1e-12;
    if (this.#silent) return;
    this.#period = this.#findPeriod();
    this.#keep(left, this.#left, end, 0);
    this.#keep(right, this.#right, end, 1);
  }

  /** From silence: what follows is faded in by `resume`. */
  startSilent() {
    this.#silent = true;
    this.#position = this.#returned = 0;
  }

  /**
   * Makes up `count` samples from index `at` on.
   *
   * @param {Float32Array} left @param {Float32Array} right @param {number} at @param {number} count
   */
  fill(left, right, at, count) {
    for (let i = 0; i < count; i++, this.#position++) {
      left[at + i] = this.#sample(this.#left, 0);
      right[at + i] = this.#sample(this.#right, 1);
    }
  }

  /**
   * Real samples stand at `at` again: blends from what was made up to them.
   *
   * @param {Float32Array} left @param {Float32Array} right @param {number} at
   * @param {number} count How many stand there; if they are too few, those behind them are next.
   * @returns {boolean} Whether it is done.
   */
  resume(left, right, at, count) {
    const blend = this.#samples(RETURN_MS);
    for (let i = 0; i < count && this.#returned < blend; i++, this.#position++) {
      const made = fall(++this.#returned / (blend + 1));
      left[at + i] = this.#sample(this.#left, 0) * made + left[at + i] * (1 - made);
      right[at + i] = this.#sample(this.#right, 1) * made + right[at + i] * (1 - made);
    }
    return this.#returned >= blend;
  }

  /** @param {Float32Array} kept @param {number} side */
  #sample(kept, side) {
    const i = this.#position;
    if (this.#silent) return 0;
    const full = this.#samples(FULL_MS);
    const gain = fall((i - full) / (this.#samples(SILENT_MS) - full));
    if (gain === 0) return 0;
    const seam = fall(i / this.#samples(BLEND_MS));
    const missed = seam === 0 ? 0 : (this.#value[side] + this.#slope[side] * i) * seam;
    return (kept[i % this.#period] + missed) * gain;
  }

  /**
   * Keeps the last period, so that its end leads over to its beginning.
   *
   * @param {Float32Array} samples @param {Float32Array} kept @param {number} end
   * @param {number} side
   */
  #keep(samples, kept, end, side) {
    const period = this.#period;
    const blend = Math.min(this.#samples(BLEND_MS), period >> 1);
    for (let i = 0; i < period; i++) {
      const old = fall((period - i) / (blend + 1)); // rises over the end of the period
      kept[i] = samples[end - period + i] * (1 - old) + samples[end - 2 * period + i] * old;
    }
    // How the sound differs now from what it was a period ago: that much must the seam make up.
    const last = samples[end - 1] - samples[end - 1 - period];
    this.#slope[side] = last - (samples[end - 2] - samples[end - 2 - period]);
    this.#value[side] = last + this.#slope[side];
  }

  /** @param {Float32Array} left @param {Float32Array} right @param {number} end */
  #prepare(left, right, end) {
    let energy = 0;
    const from = end - this.history;
    for (let i = 0; i < this.history; i++) {
      const sample = left[from + i] + right[from + i];
      this.#mono[i] = sample;
      energy += left[from + i] ** 2 + right[from + i] ** 2;
    }
    return energy / this.history;
  }

  /** The lag at which the end of the sound is most like what stands before it. */
  #findPeriod() {
    const first = this.#samples(SHORTEST_MS);
    const last = this.#samples(LONGEST_MS);
    const coarse = this.#mostAlike(first, last, COARSE);
    return this.#mostAlike(
      Math.max(first, coarse - COARSE),
      Math.min(last, coarse + COARSE),
      1,
    );
  }

  /** @param {number} first @param {number} last @param {number} stride */
  #mostAlike(first, last, stride) {
    const mono = this.#mono;
    const end = mono.length;
    const compared = this.#samples(COMPARED_MS);
    let best = first;
    let most = -Infinity;
    for (let lag = first; lag <= last; lag += stride) {
      let product = 0;
      let energy = 1e-20;
      for (let i = end - compared; i < end; i += stride) {
        const before = mono[i - lag];
        product += mono[i] * before;
        energy += before * before;
      }
      const likeness = product / Math.sqrt(energy);
      if (likeness > most) {
        most = likeness;
        best = lag;
      }
    }
    return best;
  }
}
