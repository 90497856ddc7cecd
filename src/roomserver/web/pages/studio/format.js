/**
 * Numbers and times for people, in the browser's language.
 * @module
 */

import { toDb } from '../scales.js';
import { texts } from '../texts.js';

const numbers = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const moments = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const hours = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });

/** @param {number | null | undefined} value @param {string} [unit] */
export function number(value, unit = '') {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const text = Math.abs(value) >= 100 ? whole.format(value) : numbers.format(value);
  return unit ? `${text}\u202f${unit}` : text;
}

/** @param {number | null | undefined} us Unix microseconds */
export function moment(us) {
  return us ? moments.format(us / 1000) : '–';
}

/** @param {number | null | undefined} us Unix microseconds */
export function exactMoment(us) {
  return us ? exact.format(us / 1000) : '–';
}

/** The time of day, with the date where it is not today. @param {number} us Unix microseconds */
export function since(us) {
  const then = new Date(us / 1000);
  return then.toDateString() === new Date().toDateString() ? hours.format(then) : moments.format(then);
}

/** Hours, minutes and seconds. @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  const s = Math.max(0, Math.floor(seconds));
  const two = (/** @type {number} */ n) => String(n).padStart(2, '0');
  const clock = `${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
  return s >= 3600 ? `${Math.floor(s / 3600)}:${clock}` : clock;
}

/** A level, in dB. @param {number} gain linear */
export function decibels(gain) {
  const db = toDb(gain);
  return db === -Infinity ? '−∞ dB' : texts.mixer.db(db);
}

/** What somebody is called who gave no name. @param {string | null} nickname @param {string} id */
export function person(nickname, id) {
  return nickname || `#${id.slice(0, 6)}`;
}
