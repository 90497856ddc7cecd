/**
 * What stands around every page: the bar at the top, messages, dialogs, what screen readers are told.
 * @module
 */
import { html, icon, kept, render, repeat, uniqueId } from './dom.js';
import { describeError, texts } from './texts.js';

const TOAST_MS = 6000;
const THEMES = /** @type {const} */ (['system', 'light', 'dark']);

/**
 * Draws the bar into the page's `<header>`. @param {'rooms' | 'broadcast' | 'dashboard' | ''} here
 * @param {unknown} [extra] stands at the right, before the theme
 */
export function drawShell(here, extra) {
  const header = /** @type {HTMLElement} */ (document.querySelector('body > header'));
  const link = (/** @type {string} */ name, /** @type {string} */ href, /** @type {string} */ text) =>
    html`<a href=${href} aria-current=${name === here ? 'page' : 'false'}>${text}</a>`;
  const theme = /** @type {typeof THEMES[number]} */ (document.documentElement.dataset.theme ?? 'system');
  const image = /** @type {const} */ ({ system: 'system', light: 'sun', dark: 'moon' })[theme];
  render(
    html`<a class="skip" href="#main" @click=${skip}>${texts.shell.skip}</a>
      <a class="brand" href="/"><span class="brand-mark" aria-hidden="true"><i></i><i></i><i></i><i></i></span>${texts.brand}</a>
      <nav aria-label=${texts.shell.navigation}>
        ${link('rooms', '/', texts.shell.rooms)}
        ${link('broadcast', '/broadcast', texts.shell.broadcast)}
        ${link('dashboard', '/dashboard', texts.shell.dashboard)}
      </nav>
      <div class="bar-end">
        ${extra}
        <button class="quiet icon-only" type="button" aria-label=${texts.shell.theme[theme]}
          title=${texts.shell.theme[theme]}
          @click=${() => {
            chooseTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
            drawShell(here, extra);
          }}>${icon(image)}</button>
      </div>`,
    header,
  );
}

/** To the content; what stands behind `#` is a view, or an invite, and stays. @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById('main')?.focus();
}

/** @param {typeof THEMES[number]} theme */
function chooseTheme(theme) {
  document.documentElement.dataset.theme = theme;
  kept.set('theme', theme === 'system' ? undefined : theme);
  dispatchEvent(new Event('themechange'));
}

/** @typedef {{ id: number, text: string, kind: string }} Toast */
/** @type {Toast[]} */
let toasts = [];
let nextId = 0;

/** A message that goes by itself. @param {string} text @param {'info' | 'good' | 'bad'} [kind] */
export function toast(text, kind = 'info') {
  const id = nextId++;
  toasts = [...toasts.filter((one) => one.text !== text), { id, text, kind }].slice(-4);
  drawToasts();
  setTimeout(() => dismiss(id), TOAST_MS);
}

/** Tells of an error. @param {unknown} error */
export function toastError(error) {
  toast(describeError(/** @type {any} */ (error)), 'bad');
}

/** @param {number} id */
function dismiss(id) {
  toasts = toasts.filter((one) => one.id !== id);
  drawToasts();
}

function drawToasts() {
  render(
    repeat(toasts, (/** @type {Toast} */ { id }) => id, (/** @type {Toast} */ { id, text, kind }) => html`
      <div class="toast ${kind}">
        <span>${text}</span>
        <button class="quiet icon-only" type="button" aria-label=${texts.shell.dismiss}
          @click=${() => dismiss(id)}>${icon('close')}</button>
      </div>`),
    region('toasts', 'polite'),
  );
}

/** Says something to screen readers alone. @param {string} text */
export function announce(text) {
  region('announcer', 'polite').textContent = text;
}

/** @param {string} id @param {'polite' | 'assertive'} how */
function region(id, how) {
  let found = document.getElementById(id);
  if (found === null) {
    found = document.createElement('div');
    found.id = id;
    found.setAttribute('role', 'status');
    found.setAttribute('aria-live', how);
    document.body.append(found);
  }
  return found;
}

/**
 * Asks something in a modal dialog.
 * @template T
 * @param {string} title
 * @param {unknown} content of the form: fields with names
 * @param {{ confirm: string, danger?: boolean, read?: (data: FormData) => T }} options
 * @returns {Promise<T | null>} what `read` makes of the form; null: cancelled
 */
export function ask(title, content, { confirm, danger = false, read }) {
  const dialog = document.createElement('dialog');
  const titleId = uniqueId('dialog-title'); // one may ask over another
  dialog.setAttribute('aria-labelledby', titleId);
  document.body.append(dialog);
  return new Promise((resolve) => {
    /** @type {T | null} */
    let answer = null;
    const submit = (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      const data = new FormData(/** @type {HTMLFormElement} */ (event.currentTarget));
      answer = read ? read(data) : /** @type {T} */ (true);
      dialog.close();
    };
    render(
      html`<form method="dialog" @submit=${submit}>
        <h2 id=${titleId}>${title}</h2>
        ${content}
        <div class="actions">
          <button type="button" @click=${() => dialog.close()}>${texts.shell.cancel}</button>
          <button class=${danger ? 'danger' : 'primary'} type="submit">${confirm}</button>
        </div>
      </form>`,
      dialog,
    );
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(answer);
    });
    dialog.showModal();
  });
}
