/**
 * Small helpers around the DOM that all pages share; templates are lit-html's.
 * @module
 */
export { html, svg, nothing, render } from '../vendor/lit-html/lit-html.js';
export { repeat } from '../vendor/lit-html/directives/repeat.js';
export { ref } from '../vendor/lit-html/directives/ref.js';
export { live } from '../vendor/lit-html/directives/live.js';
export { classMap } from '../vendor/lit-html/directives/class-map.js';

/**
 * Draws once per animation frame, however often it was asked; where frames do not run (a page in
 * the background) soon all the same, so that what a screen reader hears stays true.
 * @param {() => void} draw
 * @returns {() => void} asks for it
 */
export function coalesced(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    const run = () => {
      if (!asked) return;
      asked = false;
      draw();
    };
    if (document.hidden) setTimeout(run, 100);
    else requestAnimationFrame(run);
  };
}

/** What this browser keeps, under a prefix; a browser that keeps nothing is no error. */
export const kept = {
  /** @param {string} name @param {Storage | null} [where] @returns {any} undefined: nothing */
  get(name, where = storage('localStorage')) {
    try {
      return JSON.parse(where?.getItem(`relaycore:${name}`) ?? 'null') ?? undefined;
    } catch {
      return undefined;
    }
  },
  /** @param {string} name @param {unknown} value undefined forgets it @param {Storage | null} [where] */
  set(name, value, where = storage('localStorage')) {
    try {
      if (value === undefined) where?.removeItem(`relaycore:${name}`);
      else where?.setItem(`relaycore:${name}`, JSON.stringify(value));
    } catch {
      // Full, or forbidden.
    }
  },
};

/** Storage of this tab alone. @returns {Storage | null} null: the browser forbids it */
export const tabStorage = () => storage('sessionStorage');

/** @param {'localStorage' | 'sessionStorage'} name */
function storage(name) {
  try {
    return window[name];
  } catch {
    return null; // and not undefined, which would stand for the usual one
  }
}

let ids = 0;

/** An id that nothing else on the page has. @param {string} name */
export const uniqueId = (name) => `${name}-${++ids}`;

/**
 * Puts a text on the clipboard. @param {string} text
 * @returns {Promise<boolean>} whether that was allowed; over plain http it is not
 */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

export { icon } from './icons.js';
