/**
 * Mixes under names, kept by the server for whoever listens.
 * @module
 */
import { html, icon, repeat } from './dom.js';
import { ask, toast, toastError } from './shell.js';
import { texts } from './texts.js';

const t = texts.presets;
const LONGEST = 64;

export class Presets {
  /** @type {string[]} */
  #names = [];
  #chosen = '';
  #redraw;
  /** @type {import('../client/relay-client.js').Listener | null} */
  #listener = null;

  /** @param {() => void} redraw */
  constructor(redraw) {
    this.#redraw = redraw;
  }

  /** Which there are. @param {import('../client/relay-client.js').Listener} listener */
  async ask(listener) {
    this.#listener = listener;
    try {
      this.#take(await listener.listPresets());
    } catch {
      // The list stays as it is; whoever saves one hears what is wrong.
    }
  }

  template() {
    return html`
      <div class="row presets" role="group" aria-label=${t.title}>
        <select aria-label=${t.choose} ?disabled=${this.#names.length === 0}
          @change=${(/** @type {Event} */ event) => {
            this.#chosen = /** @type {HTMLSelectElement} */ (event.target).value;
            this.#redraw();
          }}>
          ${this.#names.length === 0 ? html`<option>${t.none}</option>` : ''}
          ${repeat(this.#names, (/** @type {string} */ name) => name, (/** @type {string} */ name) => html`
            <option value=${name} ?selected=${name === this.#chosen}>${name}</option>`)}
        </select>
        <button type="button" class="compact" ?disabled=${!this.#chosen} @click=${() => this.#load()}>${t.load}</button>
        <button type="button" class="compact" @click=${() => this.#save()}>${t.save}</button>
        <button type="button" class="compact quiet icon-only" aria-label=${`${t.delete} ${this.#chosen}`}
          ?disabled=${!this.#chosen} @click=${() => this.#delete()}>${icon('trash')}</button>
      </div>`;
  }

  async #save() {
    const name = await ask(
      t.saveTitle,
      html`<div class="field"><label for="preset-name">${t.name}</label>
        <input id="preset-name" name="name" required maxlength=${LONGEST} value=${this.#chosen} autocomplete="off" autofocus></div>`,
      { confirm: t.saveButton, read: (data) => String(data.get('name')).trim() },
    );
    if (!name) return;
    await this.#do(async (listener) => {
      await listener.savePreset(name);
      this.#chosen = name;
      this.#take(await listener.listPresets());
      toast(t.saved(name), 'good');
    });
  }

  async #load() {
    const name = this.#chosen;
    await this.#do(async (listener) => {
      await listener.loadPreset(name);
      toast(t.loaded(name), 'good');
    });
  }

  async #delete() {
    const name = this.#chosen;
    await this.#do(async (listener) => {
      await listener.deletePreset(name);
      this.#take(await listener.listPresets());
      toast(t.deleted(name));
    });
  }

  /** @param {(listener: import('../client/relay-client.js').Listener) => Promise<void>} what */
  async #do(what) {
    if (this.#listener === null) return;
    try {
      await what(this.#listener);
    } catch (error) {
      toastError(error);
    }
  }

  /** @param {string[]} names */
  #take(names) {
    this.#names = names;
    if (!names.includes(this.#chosen)) this.#chosen = names[0] ?? '';
    this.#redraw();
  }
}
