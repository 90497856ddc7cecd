/**
 * Dialogs that change while they are open; for a plain question there is `ask` of the shell.
 * @module
 */

import { nothing, render, uniqueId } from '../dom.js';

/**
 * Shows a dialog until it is closed; the browser keeps the focus in it and gives it back.
 * @template T
 * @param {(close: (answer?: T) => void, redraw: () => void) => unknown} content draws what is in it
 * @param {{ wide?: boolean }} [options]
 * @returns {Promise<T | undefined>} what it was closed with; undefined when it was dismissed
 */
export function dialog(content, { wide = false } = {}) {
  const element = document.createElement('dialog');
  if (wide) element.className = 'wide';
  document.body.append(element);
  return new Promise((resolve) => {
    /** @type {T | undefined} */
    let answer;
    const close = (/** @type {T | undefined} */ given) => {
      answer = given;
      element.close();
    };
    const redraw = () => render(content(close, redraw), element);
    element.addEventListener('close', () => {
      render(nothing, element);
      element.remove();
      resolve(answer);
    });
    element.addEventListener('click', (event) => {
      if (event.target === element) element.close();
    });
    redraw();
    const title = element.querySelector('h2');
    if (title) {
      title.id = uniqueId('dialog-title');
      element.setAttribute('aria-labelledby', title.id);
    }
    element.showModal();
  });
}
