/**
 * Scales of a desk: how far a fader is up, how far a meter deflects.
 * @module
 */

export const MAX_DB = 12;
/** The least level above silence. */
const MIN_DB = -90;
/** Positions of a fader (0…1) and their levels (dB); straight between, −∞ at the very bottom. */
const TAPER = [[0, MIN_DB], [0.0625, -60], [0.25, -30], [0.5, -10], [1, MAX_DB]];
/** Levels (dBFS) and the deflection of a meter (0…1): IEC 60268-18, wide where it matters. */
const DEFLECTION = [[-70, 0], [-60, 0.025], [-50, 0.075], [-40, 0.15], [-30, 0.3], [-20, 0.5], [0, 1]];

/** @param {number} db @returns {number} linear; 0 for −∞ */
export const toLinear = (db) => (db === -Infinity ? 0 : 10 ** (db / 20));

/** @param {number} linear @returns {number} dB; −∞ for 0 */
export const toDb = (linear) => (linear <= 0 ? -Infinity : 20 * Math.log10(linear));

/** @param {number} position of a fader, 0…1 @returns {number} dB */
export function dbOfPosition(position) {
  if (position <= 0) return -Infinity;
  return between(TAPER, Math.min(1, position), 0, 1);
}

/** @param {number} db @returns {number} position of a fader, 0…1 */
export function positionOfDb(db) {
  if (!(db > MIN_DB)) return 0;
  return between(TAPER, Math.min(MAX_DB, db), 1, 0);
}

/** @param {number} db dBFS; NaN is nothing @returns {number} how far a meter deflects, 0…1 */
export function deflection(db) {
  if (!(db > DEFLECTION[0][0])) return 0;
  return between(DEFLECTION, Math.min(0, db), 0, 1);
}

/**
 * @param {number[][]} points @param {number} value
 * @param {0 | 1} from @param {0 | 1} to which column is known, which is wanted
 */
function between(points, value, from, to) {
  let next = 1;
  while (next < points.length - 1 && points[next][from] < value) next += 1;
  const [a, b] = [points[next - 1], points[next]];
  return a[to] + ((value - a[from]) / (b[from] - a[from])) * (b[to] - a[to]);
}
