/**
 * Comma-separated values that spreadsheets open as they were meant (RFC 4180).
 * @module
 */

/** @typedef {string | number | boolean | null | undefined} Cell */

// A spreadsheet takes what begins so for a formula, and a nickname may be one. Where semicolons or
// tabs separate cells our quotes do not hold, and cells begin behind each of them and in each line.
const FORMULA = /(?<=^|[;\t\r\n])(?=[\s"]*[=+\-@\t\r|%])/g;

/** @param {Cell} cell */
function field(cell) {
  if (cell === null || cell === undefined) return '';
  if (typeof cell === 'number') return Number.isFinite(cell) ? String(cell) : '';
  return `"${String(cell).replace(FORMULA, "'").replaceAll('"', '""')}"`;
}

/**
 * A whole file. Texts that a spreadsheet would run as a formula are made plain by an apostrophe.
 * @param {string[]} head
 * @param {Cell[][]} rows
 */
export function csv(head, rows) {
  return [head, ...rows].map((row) => row.map(field).join(',') + '\r\n').join('');
}

/**
 * Offers a file to be saved.
 * @param {string} name
 * @param {string} text
 */
export function saveCsv(name, text) {
  // Without the mark, Excel takes UTF-8 for something else.
  const url = URL.createObjectURL(new Blob(['\ufeff', text], { type: 'text/csv;charset=utf-8' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
