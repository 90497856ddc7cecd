/**
 * What is moved with a finger, a mouse or the keyboard: `<relay-fader>` and `<relay-pan>`.
 *
 * Both are sliders for assistive technology, move by as much as the pointer does (a touch makes
 * nothing jump), ten times finer with Shift, or under a finger that moved aside, and go back to their
 * rest by a double-click or two taps. They fire
 * `input` with `detail: { value }` while they move. Values come in by the property `value`; while
 * somebody holds the thing it does not follow them.
 * @module
 */
import { MAX_DB, dbOfPosition, positionOfDb, toDb, toLinear } from './scales.js';
import { texts } from './texts.js';

const FINE = 0.1;
const ASIDE_PX = 56; // from where it took hold: a finger has no Shift
const TAPS_MS = 350; // from one to the next; browsers make no double-click of them where panning is ours
const TAP_PX = 6; // that a finger moves without meaning to
const MARKS = [12, 6, 0, -6, -12, -20, -30, -45, -60]; // dB
const DETENT = 0.04; // of a pan's way: around the centre it holds

/** A slider that is dragged; subclasses say what its position (0…1) means. */
class Draggable extends HTMLElement {
  #position = 0;
  #held = false;
  #pointer = NaN; // that holds it: another finger on it changes nothing
  /** @type {number | null} came while it was held */
  #waiting = null;
  #last = 0;
  #start = { along: 0, across: 0 }; // where the pointer took hold
  #tappedAt = -Infinity;
  #exact = 0; // where the pointer would have it, without detent
  // Told rather than asked for: sixty-four strips that ask make the layout anew sixty-four times.
  static #shapes = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      /** @type {Draggable} */ (target).#shaped(contentRect);
    }
  });

  /** Along which axis, as the layout draws it. */
  vertical = false;

  connectedCallback() {
    Draggable.#shapes.observe(this);
    if (this.hasAttribute('role')) return; // it was moved
    this.setAttribute('role', 'slider');
    this.tabIndex = 0;
    this.append(...this.parts());
    this.addEventListener('pointerdown', (event) => {
      if (!this.#held) this.#hold(event);
    });
    this.addEventListener('pointermove', (event) => {
      if (event.pointerId === this.#pointer) this.#drag(event);
    });
    for (const end of /** @type {const} */ (['pointerup', 'pointercancel', 'lostpointercapture'])) {
      this.addEventListener(end, (event) => {
        if (event.pointerId !== this.#pointer) return;
        if (end === 'pointercancel') this.#tappedAt = -Infinity; // the browser scrolls with it
        this.#release();
      });
    }
    this.addEventListener('dblclick', () => this.#move(this.rest));
    this.addEventListener('keydown', (event) => this.#key(event));
    this.place(this.#position);
  }

  disconnectedCallback() {
    Draggable.#shapes.unobserve(this);
  }

  /** @param {DOMRectReadOnly} shape */
  #shaped(shape) {
    this.vertical = shape.height > shape.width;
    this.setAttribute('aria-orientation', this.vertical ? 'vertical' : 'horizontal');
  }

  /** What it is made of. @returns {HTMLElement[]} */
  parts() {
    return ['track', 'knob'].map((name) => {
      const part = document.createElement('span');
      part.className = name;
      return part;
    });
  }

  get position() {
    return this.#position;
  }

  /** From outside. @param {number} position */
  set position(position) {
    if (this.#held) this.#waiting = position;
    else if (position !== this.#position || !this.hasAttribute('aria-valuenow')) this.place(position);
  }

  get rest() {
    return 0;
  }

  /** @param {number} position */
  place(position) {
    this.#position = position;
    this.style.setProperty('--at', position.toFixed(4));
    this.describe();
  }

  describe() {}

  /** Where a key leads. @param {KeyboardEvent} _event @returns {number | null} */
  target(_event) {
    return null;
  }

  /** @param {number} position @returns {number} where it holds */
  hold(position) {
    return position;
  }

  /** @returns {number} */
  get value() {
    return this.#position;
  }

  /** @param {PointerEvent} event */
  #hold(event) {
    if (event.button !== 0) return;
    if (event.pointerType === 'touch') {
      const since = event.timeStamp - this.#tappedAt;
      this.#tappedAt = event.timeStamp;
      if (since < TAPS_MS) {
        this.#move(this.rest);
        return;
      }
    }
    this.#held = true;
    this.#exact = this.#position;
    this.#start = this.#at(event);
    this.#last = this.#start.along;
    this.setPointerCapture(event.pointerId);
    this.#pointer = event.pointerId;
    this.classList.add('held');
    this.focus({ preventScroll: true });
  }

  /** @param {PointerEvent} event */
  #drag(event) {
    if (!this.#held) return;
    const { along, across } = this.#at(event);
    const way = this.vertical ? this.clientHeight : this.clientWidth;
    const aside = event.pointerType === 'touch' && Math.abs(across - this.#start.across) > ASIDE_PX;
    const fine = event.shiftKey || aside;
    const by = ((along - this.#last) / Math.max(1, way)) * (fine ? FINE : 1);
    this.#last = along;
    const moved = Math.hypot(along - this.#start.along, across - this.#start.across);
    if (moved > TAP_PX) this.#tappedAt = -Infinity; // that was no tap
    if (by === 0) return;
    this.#exact = Math.min(1, Math.max(0, this.#exact + by));
    this.#move(fine ? this.#exact : this.hold(this.#exact));
  }

  /** Where a pointer is along the way, from its bottom or left, and across. @param {PointerEvent} event */
  #at(event) {
    const { clientX, clientY } = event;
    return this.vertical ? { along: -clientY, across: clientX } : { along: clientX, across: clientY };
  }

  #release() {
    if (!this.#held) return;
    this.#held = false;
    this.classList.remove('held');
    if (this.#waiting !== null) this.place(this.#waiting);
    this.#waiting = null;
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = ['0', 'Delete', 'Backspace'].includes(event.key) ? this.rest : this.target(event);
    if (target === null) return;
    event.preventDefault();
    this.#move(Math.min(1, Math.max(0, target)));
  }

  /** By hand. @param {number} position */
  #move(position) {
    if (position === this.#position) return;
    this.#waiting = null;
    this.place(position);
    this.dispatchEvent(new CustomEvent('input', { detail: { value: this.value }, bubbles: true }));
  }
}

/** Level: `value` is linear, 0…4 (+12 dB). */
class Fader extends Draggable {
  /** With marks at some levels, where the taper has them. */
  parts() {
    const marks = MARKS.map((db) => {
      const mark = document.createElement('span');
      mark.className = db === 0 ? 'mark unity' : 'mark';
      mark.style.setProperty('--mark', positionOfDb(db).toFixed(4));
      return mark;
    });
    return [...marks, ...super.parts()];
  }

  connectedCallback() {
    super.connectedCallback();
    this.setAttribute('aria-valuemin', '-90');
    this.setAttribute('aria-valuemax', String(MAX_DB));
  }

  get rest() {
    return positionOfDb(0);
  }

  get value() {
    return toLinear(this.db);
  }

  set value(linear) {
    this.position = positionOfDb(toDb(linear));
  }

  get db() {
    return dbOfPosition(this.position);
  }

  describe() {
    const { db } = this;
    this.setAttribute('aria-valuenow', db === -Infinity ? '-90' : db.toFixed(1));
    this.setAttribute('aria-valuetext', db === -Infinity ? texts.mixer.off : texts.mixer.db(db));
  }

  /** @param {KeyboardEvent} event */
  target(event) {
    const { db } = this;
    const by = (/** @type {number} */ step) => {
      if (db === -Infinity) return step > 0 ? positionOfDb(-60) : 0;
      const to = db + step;
      return to <= -75 ? 0 : positionOfDb(to);
    };
    const step = event.shiftKey ? 0.1 : 1;
    switch (event.key) {
      case 'ArrowUp': case 'ArrowRight': return by(step);
      case 'ArrowDown': case 'ArrowLeft': return by(-step);
      case 'PageUp': return by(6);
      case 'PageDown': return by(-6);
      case 'Home': return 0;
      case 'End': return 1;
      default: return null;
    }
  }
}

/** Pan: `value` is −1 (left) … 1 (right). */
class Pan extends Draggable {
  connectedCallback() {
    super.connectedCallback();
    this.setAttribute('aria-valuemin', '-100');
    this.setAttribute('aria-valuemax', '100');
  }

  get rest() {
    return 0.5;
  }

  get value() {
    return this.position * 2 - 1;
  }

  set value(pan) {
    this.position = (pan + 1) / 2;
  }

  /** @param {number} position */
  hold(position) {
    return Math.abs(position - 0.5) < DETENT ? 0.5 : position;
  }

  describe() {
    const percent = Math.round(this.value * 100);
    this.setAttribute('aria-valuenow', String(percent));
    this.setAttribute('aria-valuetext', panText(this.value));
  }

  /** @param {KeyboardEvent} event */
  target(event) {
    const step = event.shiftKey ? 0.005 : 0.025;
    switch (event.key) {
      case 'ArrowRight': case 'ArrowUp': return this.position + step;
      case 'ArrowLeft': case 'ArrowDown': return this.position - step;
      case 'PageUp': return this.position + 0.125;
      case 'PageDown': return this.position - 0.125;
      case 'Home': return 0;
      case 'End': return 1;
      default: return null;
    }
  }
}

/** @param {number} pan −1…1 */
export function panText(pan) {
  const percent = Math.round(pan * 100);
  if (percent === 0) return texts.mixer.centre;
  return percent < 0 ? texts.mixer.left(-percent) : texts.mixer.right(percent);
}

customElements.define('relay-fader', Fader);
customElements.define('relay-pan', Pan);
