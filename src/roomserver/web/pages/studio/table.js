/**
 * Tables: columns say what is in them. On a narrow screen each row is a card; the roles keep it a
 * table for those who hear it.
 * @module
 */

import { html } from '../dom.js';

/**
 * @template T
 * @typedef {{ title: string, cell: (row: T) => unknown, number?: boolean }} Column
 */

/**
 * @template T
 * @param {string} label
 * @param {Column<T>[]} columns the first is what the row is called by
 * @param {T[]} rows
 */
export function table(label, columns, rows) {
  const [first, ...rest] = columns;
  const kind = (/** @type {Column<T>} */ column) => (column.number ? 'number' : '');
  return html`
    <div class="scrolling" tabindex="0" role="region" aria-label=${label}>
      <table role="table" class="cards">
        <thead role="rowgroup"><tr role="row">${columns.map(
          (column) => html`<th role="columnheader" scope="col" class=${kind(column)}>${column.title}</th>`,
        )}</tr></thead>
        <tbody role="rowgroup">${rows.map(
          (row) => html`<tr role="row"><th role="rowheader" scope="row">${first.cell(row)}</th>
            ${rest.map((column) => html`<td role="cell" class=${kind(column)} data-title=${column.title}>${column.cell(row)}</td>`)}</tr>`,
        )}</tbody>
      </table>
    </div>`;
}
