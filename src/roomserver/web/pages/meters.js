/**
 * Meters, drawn once per animation frame by moving what covers them: no layout, no paint of text.
 * Only strips in sight are drawn.
 * @module
 */
import { deflection } from './scales.js';

const FALL = 1.1; // of the whole way, per second
const HOLD_MS = 1500;
const WORTH = 0.002; // a change that can be seen

/** @typedef {{ master: { peak: ArrayLike<number> }, channels: { peak: ArrayLike<number> } }} Levels dBFS */
/**
 * @typedef {object} Meter
 * @property {Element} strip
 * @property {HTMLElement} cover @property {HTMLElement} peak
 * @property {(levels: Levels) => number} read
 * @property {boolean} seen
 * @property {number} level @property {number} held @property {number} heldAt @property {number} drawn
 * @property {number} drawnPeak
 */

export class Meters {
  #levels;
  /** @type {Element | undefined} */
  #root;
  /** @type {Map<Element, Meter>} by the meter's element */
  #meters = new Map();
  #frame = 0;
  #last = 0;
  #sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const meter = this.#meters.get(target);
      if (meter) meter.seen = isIntersecting;
    }
  });
  #changes = new MutationObserver(() => this.#collect());

  /** @param {() => Levels | null} levels asked once per frame; null: nothing plays */
  constructor(levels) {
    this.#levels = levels;
  }

  /** For `ref`: draws what is below this element, until it goes. @param {Element | undefined} root */
  attach = (root) => {
    if (root === this.#root) return;
    cancelAnimationFrame(this.#frame);
    this.#changes.disconnect();
    this.#root = root;
    this.#collect();
    if (root === undefined) return;
    this.#changes.observe(root, { childList: true, subtree: true });
    this.#frame = requestAnimationFrame(this.#draw);
  };

  #collect() {
    const found = new Set(this.#root?.querySelectorAll('.meter'));
    for (const element of this.#meters.keys()) {
      if (found.has(element)) continue;
      this.#sight.unobserve(element);
      this.#meters.delete(element);
    }
    for (const element of found) {
      if (this.#meters.has(element)) continue;
      this.#meters.set(element, {
        strip: element,
        cover: /** @type {HTMLElement} */ (element.querySelector('.cover')),
        peak: /** @type {HTMLElement} */ (element.querySelector('.peak')),
        read: reader(/** @type {HTMLElement} */ (element)),
        seen: true,
        level: 0,
        held: 0,
        heldAt: 0,
        drawn: -1,
        drawnPeak: -1,
      });
      this.#sight.observe(element);
    }
  }

  /** @param {number} now */
  #draw = (now) => {
    this.#frame = requestAnimationFrame(this.#draw);
    const fall = Math.min(0.1, (now - this.#last) / 1000) * FALL;
    this.#last = now;
    const levels = this.#levels();
    for (const meter of this.#meters.values()) {
      const target = levels === null ? 0 : deflection(meter.read(levels));
      meter.level = Math.max(target, meter.level - fall, 0);
      if (meter.level >= meter.held) {
        meter.held = meter.level;
        meter.heldAt = now;
      } else if (now - meter.heldAt > HOLD_MS) {
        meter.held = Math.max(meter.level, meter.held - fall);
      }
      if (!meter.seen) continue;
      if (Math.abs(meter.level - meter.drawn) > WORTH) {
        meter.drawn = meter.level;
        meter.cover.style.setProperty('--level', meter.level.toFixed(3));
      }
      if (Math.abs(meter.held - meter.drawnPeak) > WORTH) {
        meter.drawnPeak = meter.held;
        meter.peak.style.setProperty('--level', meter.held.toFixed(3));
      }
    }
  };
}

/** What a meter shows: a side of the master (`data-side`), or the channel of its strip. @param {HTMLElement} element */
function reader(element) {
  const strip = element.closest('[data-channel]');
  const side = Number(element.dataset.side);
  if (element.dataset.side !== undefined) return (/** @type {Levels} */ levels) => levels.master.peak[side];
  return (/** @type {Levels} */ levels) =>
    levels.channels.peak[Number(/** @type {HTMLElement} */ (strip).dataset.channel)];
}
