/**
 * How good a connection is: bars, the word, and a figure if there is one.
 * @module
 */

import { html, nothing } from '../dom.js';
import { t } from './texts.js';

/**
 * @param {import('./health.js').Level} level
 * @param {{ figure?: string, title?: string }} [options]
 */
export function quality(level, { figure, title } = {}) {
  return html`<span class="quality ${level}" title=${title ?? nothing}>
    <span class="bars" aria-hidden="true"><i></i><i></i><i></i><i></i></span>
    <span>${t.quality[level]}${figure ? html` <small class="soft">${figure}</small>` : nothing}</span></span>`;
}
