// Levels of a signal over the time since they were last taken.

/** Peak and RMS of left and right. */
export class StereoMeter {
  #peaks = [0, 0];
  #squares = [0, 0];
  #count = 0;

  /** @param {Float32Array} left @param {Float32Array} right */
  add(left, right) {
    this.#addTo(0, left);
    this.#addTo(1, right);
    this.#count += left.length;
  }

  /** Linear: peak left, peak right, RMS left, RMS right. @param {Float32Array} into */
  take(into) {
    for (let side = 0; side < 2; side++) {
      into[side] = this.#peaks[side];
      into[2 + side] = Math.sqrt(this.#squares[side] / Math.max(1, this.#count));
      this.#peaks[side] = this.#squares[side] = 0;
    }
    this.#count = 0;
  }

  /** @param {number} side @param {Float32Array} samples */
  #addTo(side, samples) {
    let peak = this.#peaks[side];
    let squares = 0;
    for (let i = 0; i < samples.length; i++) {
      const sample = samples[i];
      squares += sample * sample;
      if (sample > peak) peak = sample;
      else if (-sample > peak) peak = -sample;
    }
    this.#peaks[side] = peak;
    this.#squares[side] += squares;
  }
}

/** dBFS of a linear level; NaN stays NaN. @param {number} level */
export function toDecibels(level) {
  return 20 * Math.log10(level);
}
