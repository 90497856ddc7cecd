// Band-limited interpolation at any ratio, and a ratio that may change with every block.

import { SAMPLE_RATES } from './wire.js';

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
 * A windowed sinc in `PHASES` phases, a row of 2 × `half` coefficients for each. It passes what lies
 * below the output's limits for input that is up to `stretch` times as fast as the output.
 * @typedef {{stretch: number, half: number, coefficients: Float32Array}} ResamplerTable
 */

/**
 * Some milliseconds of work: never for the audio thread.
 * @param {number} stretch Input samples per output sample; 1 if there are fewer.
 * @returns {ResamplerTable}
 */
export function resamplerTable(stretch) {
  const half = Math.ceil(HALF_TAPS * stretch);
  const taps = 2 * half;
  const coefficients = new Float32Array((PHASES + 1) * taps);
  const norm = bessel(BETA);
  // Row by row from both ends: the last is the first one read backwards, and so on.
  for (let phase = 0; phase <= PHASES / 2; phase++) {
    const row = phase * taps;
    const mirrored = (PHASES - phase) * taps;
    let sum = 0;
    for (let tap = 0; tap < taps; tap++) {
      const x = tap - half + 1 - phase / PHASES;
      const edge = x / half;
      const angle = (Math.PI * x) / stretch;
      const window = bessel(BETA * Math.sqrt(Math.max(0, 1 - edge * edge))) / norm;
      const value = (angle === 0 ? 1 : Math.sin(angle) / angle) * window;
      coefficients[row + tap] = value;
      sum += value;
    }
    for (let tap = 0; tap < taps; tap++) {
      coefficients[row + tap] /= sum;
      if (mirrored > row) coefficients[mirrored + taps - 1 - tap] = coefficients[row + tap];
    }
  }
  return { stretch, half, coefficients };
}

/**
 * What it takes to play every rate that rooms may have, lowest stretch first.
 * @param {number} contextRate Of the output.
 */
export function resamplerTables(contextRate) {
  const stretches = SAMPLE_RATES.map((rate) => Math.max(1, rate / contextRate));
  return [...new Set(stretches)].map(resamplerTable);
}

/** Reads `half` samples before and behind each position. Using it allocates nothing. */
export class Resampler {
  #table;
  #taps;

  /** @param {ResamplerTable} table */
  constructor(table) {
    this.stretch = table.stretch;
    /** Samples that are needed behind a position, and before it. */
    this.half = table.half;
    this.#taps = 2 * table.half;
    this.#table = table.coefficients;
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
