/**
 * Icons of 24 × 24 units, drawn with the colour of the text around them.
 * @module
 */
import { html, svg } from '../vendor/lit-html/lit-html.js';

const SHAPES = {
  play: svg`<path d="M8 5.2v13.6a.8.8 0 0 0 1.2.7l10.9-6.8a.8.8 0 0 0 0-1.4L9.2 4.5a.8.8 0 0 0-1.2.7Z" fill="currentColor" stroke="none"/>`,
  stop: svg`<rect x="6.5" y="6.5" width="11" height="11" rx="1.6" fill="currentColor" stroke="none"/>`,
  volume: svg`<path d="M4 9.5v5h3.5L12 18V6L7.5 9.5H4Z" fill="currentColor"/><path d="M15.5 9a4 4 0 0 1 0 6M18 6.5a7.5 7.5 0 0 1 0 11"/>`,
  muted: svg`<path d="M4 9.5v5h3.5L12 18V6L7.5 9.5H4Z" fill="currentColor"/><path d="m16 9.5 5 5m0-5-5 5"/>`,
  people: svg`<circle cx="9" cy="8.5" r="3.2"/><path d="M3.5 19c.4-3.4 2.6-5.2 5.5-5.2s5.1 1.8 5.5 5.2M16 5.6a3.2 3.2 0 0 1 0 5.8m1.6 2.9c1.7.8 2.7 2.4 2.9 4.7"/>`,
  sun: svg`<circle cx="12" cy="12" r="4"/><path d="M12 3v2m0 14v2m9-9h-2M5 12H3m15.4-6.4L17 7M7 17l-1.4 1.4m12.8 0L17 17M7 7 5.6 5.6"/>`,
  moon: svg`<path d="M20 14.5A8.2 8.2 0 0 1 9.5 4 8.2 8.2 0 1 0 20 14.5Z"/>`,
  system: svg`<rect x="3.5" y="5" width="17" height="11.5" rx="1.6"/><path d="M9 20h6"/>`,
  lock: svg`<rect x="5.5" y="10.5" width="13" height="9" rx="1.8"/><path d="M8.5 10.5V8a3.5 3.5 0 0 1 7 0v2.5"/>`,
  copy: svg`<rect x="8.5" y="8.5" width="11" height="11" rx="1.8"/><path d="M15.5 5.5v-.2a1.8 1.8 0 0 0-1.8-1.8H6.3a1.8 1.8 0 0 0-1.8 1.8v7.4a1.8 1.8 0 0 0 1.8 1.8h.2"/>`,
  check: svg`<path d="m5 12.5 4.5 4.5L19 7.5"/>`,
  close: svg`<path d="m6 6 12 12M18 6 6 18"/>`,
  warning: svg`<path d="M12 4 2.8 19.5h18.4L12 4Zm0 6v4.5m0 2.6v.1"/>`,
  info: svg`<circle cx="12" cy="12" r="8.5"/><path d="M12 11v5m0-8.2v.1"/>`,
  trash: svg`<path d="M5 7h14M10 7V4.8h4V7m-7.5 0 .8 12.2h9.4L17.5 7"/>`,
  plus: svg`<path d="M12 5v14M5 12h14"/>`,
  microphone: svg`<rect x="9" y="3.5" width="6" height="11" rx="3"/><path d="M5.5 11.5a6.5 6.5 0 0 0 13 0M12 18v3"/>`,
  tab: svg`<rect x="3.5" y="5" width="17" height="14" rx="1.8"/><path d="M3.5 9.500h17M8.500 5v4.500"/>`,
  file: svg`<path d="M9 17.500V6l10-2v11.500"/><circle cx="6.500" cy="17.500" r="2.500"/><circle cx="16.500" cy="15.500" r="2.500"/>`,
  tone: svg`<path d="M3 12c2-7 4.500-7 6.500-1.500C12 17 14 20 17 15c1.200-2.200 2.200-4.500 4-5"/>`,
  search: svg`<circle cx="10.5" cy="10.5" r="6"/><path d="m15 15 5 5"/>`,
  back: svg`<path d="m14 6-6 6 6 6"/>`,
  forward: svg`<path d="m10 6 6 6-6 6"/>`,
  up: svg`<path d="m6 14 6-6 6 6"/>`,
  down: svg`<path d="m6 10 6 6 6-6"/>`,
  grip: svg`<path d="M9 6v.1M15 6v.1M9 12v.1M15 12v.1M9 18v.1M15 18v.1" stroke-width="2.6"/>`,
  reset: svg`<path d="M5 5v5h5M5.6 10A7.5 7.5 0 1 1 4.5 14"/>`,
  save: svg`<path d="M5 4.5h11L19.5 8v11.5h-15v-15H5Zm3 0v5h7v-5M8 19.5v-6h8v6"/>`,
  menu: svg`<path d="M4 7h16M4 12h16M4 17h16"/>`,
};

/**
 * @param {keyof typeof SHAPES} name
 * An icon is decoration: what it means stands beside it, or in the `aria-label` of its button.
 */
export const icon = (name) => html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"
  fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round"
  stroke-linejoin="round">${SHAPES[name]}</svg>`;
