/**
 * What the views of the Dashboard are given.
 * @module
 */

/**
 * @typedef {object} Page
 * @property {() => void} redraw
 * @property {(error: unknown) => void} fail tells of it
 * @property {(what: () => Promise<unknown>) => void} attempt does it, draws, and tells what went wrong
 */

/** @typedef {{ view: () => unknown, dispose: () => void }} View */

export {};
