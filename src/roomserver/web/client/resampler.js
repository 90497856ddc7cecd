// Band-limited interpolation at any ratio, and a ratio that may change with every block.

const PHASES = 512; // between which coefficients are interpolated: -106 dB
const HALF_TAPS = 16; // at one cutoff: 32 taps, flat to 0.41 of the rate, -90 dB beyond 0.59
const BETA = 9; // of the Kaiser window

/** Modified Bessel function of the first kind, order 0. @param {number} x */
function bessel(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/**
 * A windowed sinc in `PHASES` phases. It reads `half` samples before and behind each position.
 *
 * Making one takes about a millisecond; using it allocates nothing.
 */
export class Resampler {
  #table;
  #taps;

  /** @param {number} ratio Input samples per output sample, about; above 1 it filters lower. */
  constructor(ratio) {
    const stretch = Math.max(1, ratio);
    /** Samples that are needed behind a position, and before it. */
    this.half = Math.ceil(HALF_TAPS * stretch);
    this.#taps = 2 * this.half;
    this.#table = new Float32Array((PHASES + 1) * this.#taps);
    const norm = bessel(BETA);
    for (let phase = 0; phase <= PHASES; phase++) {
      let sum = 0;
      const row = phase * this.#taps;
      for (let tap = 0; tap < this.#taps; tap++) {
        const x = tap - this.half + 1 - phase / PHASES;
        const edge = x / this.half;
        const angle = (Math.PI * x) / stretch;
        const window = bessel(BETA * Math.sqrt(Math.max(0, 1 - edge * edge))) / norm;
        const value = (angle === 0 ? 1 : Math.sin(angle) / angle) * window;
        this.#table[row + tap] = value;
        sum += value;
      }
      for (let tap = 0; tap < this.#taps; tap++) this.#table[row + tap] /= sum;
    }
  }

  /**
   * Fills `outLeft` and `outRight`.
   *
   * @param {Float32Array} left @param {Float32Array} right
   * @param {number} position Of the first output sample, in input samples; `half` of them must
   *   stand before it, and behind the last.
   * @param {number} step Input samples per output sample.
   * @param {Float32Array} outLeft @param {Float32Array} outRight
   */
  process(left, right, position, step, outLeft, outRight) {
    const table = this.#table;
    const taps = this.#taps;
    for (let i = 0; i < outLeft.length; i++) {
      const at = position + i * step;
      const whole = Math.floor(at);
      const phase = (at - whole) * PHASES;
      const row = Math.floor(phase);
      const weight = phase - row;
      let k = row * taps;
      let l = 0;
      let r = 0;
      for (let j = whole - this.half + 1; j <= whole + this.half; j++, k++) {
        const c = table[k] + weight * (table[k + taps] - table[k]);
        l += left[j] * c;
        r += right[j] * c;
      }
      outLeft[i] = l;
      outRight[i] = r;
    }
  }
}
