/**
 * A QR code as a drawing.
 * @module
 */

import { svg } from '../dom.js';
import qrcode from '../../vendor/qrcode-generator/qrcode.mjs';

const QUIET = 4; // modules of margin, without which readers find nothing

/** @param {string} text @param {string} label for those who don't see it */
export function qr(text, label) {
  const code = qrcode(0, 'M');
  code.addData(text, 'Byte');
  code.make();
  const size = code.getModuleCount();
  let path = '';
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      if (code.isDark(row, column)) path += `M${column + QUIET} ${row + QUIET}h1v1h-1z`;
    }
  }
  const side = size + 2 * QUIET;
  return svg`<svg class="qr" viewBox="0 0 ${side} ${side}" role="img" aria-label=${label}
    shape-rendering="crispEdges"><rect width=${side} height=${side} fill="#fff"/><path d=${path} fill="#000"/></svg>`;
}
