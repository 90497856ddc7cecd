/**
 * The order of the channels on air: moved with a pointer, with buttons, or by writing a number.
 * @module
 */

import { RelayError } from '../api.js';
import { html, icon, nothing, repeat } from '../dom.js';
import { dialog } from './dialogs.js';
import { t } from './texts.js';

/**
 * Lets an order be chosen. It is in force as a whole, for on air each change is heard.
 * @param {import('./studio.js').Studio} studio
 * @returns {Promise<number[] | undefined>} the present index of each channel to be
 * @throws {RelayError} code `order_outdated` when the channels became others meanwhile
 */
export async function chooseOrder(studio) {
  const before = channelsOf(studio);
  const order = before.map((_, index) => index);
  let redraw = () => {};
  /** @type {number | null} the channel that the pointer has hold of */
  let held = null;
  let pointer = NaN; // that has it: another finger changes nothing
  let told = ''; // what lies outside a dialog is not read to anybody

  /** @param {number} from @param {number} to */
  const move = (from, to) => {
    const last = order.length - 1;
    const place = Math.min(last, Math.max(0, to));
    if (from === place || from < 0 || Number.isNaN(place)) return;
    const [channel] = order.splice(from, 1);
    order.splice(place, 0, channel);
    redraw();
  };
  /** By hand: it is told, and what was pressed keeps the focus. @param {Event} event @param {number} from @param {number} to */
  const put = (event, from, to) => {
    const pressed = /** @type {HTMLElement} */ (event.currentTarget);
    const focused = document.activeElement === pressed;
    const channel = order[from];
    move(from, to);
    told = t.movedTo(before[channel].name, order.indexOf(channel) + 1, order.length);
    redraw();
    if (focused) pressed.focus();
  };
  /** A number was written. @param {Event} event @param {number} from */
  const write = (event, from) => {
    const field = /** @type {HTMLInputElement} */ (event.currentTarget);
    const channel = order[from];
    if (field.checkValidity()) put(event, from, field.valueAsNumber - 1);
    field.value = String(order.indexOf(channel) + 1);
  };
  /** The list has the pointer, and not the handle, which goes from place to place. @param {PointerEvent} event @param {number} channel */
  const hold = (event, channel) => {
    if (held !== null || event.button !== 0) return;
    event.preventDefault();
    held = channel;
    pointer = event.pointerId;
    const list = /** @type {HTMLElement} */ (/** @type {HTMLElement} */ (event.currentTarget).closest('ol'));
    list.setPointerCapture(event.pointerId);
  };
  /** @param {PointerEvent} event */
  const drag = (event) => {
    if (held === null || event.pointerId !== pointer) return;
    const from = order.indexOf(held);
    const rows = [.../** @type {HTMLElement} */ (event.currentTarget).children].map((row) => row.getBoundingClientRect());
    const under = rows.findIndex((row) => event.clientY < row.bottom);
    const to = under < 0 ? rows.length - 1 : under;
    // Rows differ in height: one that is not under the pointer then would move back at its next step.
    const { height } = rows[from];
    const isThere = to > from ? event.clientY > rows[to].bottom - height : event.clientY < rows[to].top + height;
    move(from, isThere ? to : to - Math.sign(to - from));
  };
  /** @param {PointerEvent} event */
  const release = (event) => {
    if (event.pointerId !== pointer) return;
    held = null;
    pointer = NaN;
    redraw();
  };

  const row = (/** @type {number} */ channel, /** @type {number} */ place) => {
    const { name, input } = before[channel];
    const last = order.length - 1;
    return html`
      <li class=${channel === held ? 'held' : ''}>
        <span class="grip" aria-hidden="true" title=${t.drag}
          @pointerdown=${(/** @type {PointerEvent} */ event) => hold(event, channel)}>${icon('grip')}</span>
        <input type="number" min="1" max=${order.length} required .value=${String(place + 1)} aria-label=${t.place(name)}
          @change=${(/** @type {Event} */ event) => write(event, place)}
          @keydown=${(/** @type {KeyboardEvent} */ event) => {
            if (event.key !== 'Enter') return;
            event.preventDefault(); // the order is not finished by that
            const field = /** @type {HTMLInputElement} */ (event.currentTarget);
            field.blur(); // which says that it changed
            field.focus();
          }} />
        <span class="what"><strong>${name}</strong>${input === name ? nothing : html` <small>${input}</small>`}</span>
        <button type="button" class="compact quiet icon-only" aria-label=${t.moveUp(name)} aria-disabled=${place === 0}
          @click=${(/** @type {Event} */ event) => put(event, place, place - 1)}>${icon('up')}</button>
        <button type="button" class="compact quiet icon-only" aria-label=${t.moveDown(name)} aria-disabled=${place === last}
          @click=${(/** @type {Event} */ event) => put(event, place, place + 1)}>${icon('down')}</button>
      </li>`;
  };

  const wish = await dialog((/** @type {(answer?: number[]) => void} */ close, again) => {
    redraw = again;
    return html`
      <form class="stack" @submit=${(/** @type {SubmitEvent} */ event) => {
        event.preventDefault();
        close(order);
      }}>
        <h2>${t.orderTitle}</h2>
        <p>${t.orderTold}</p>
        ${studio.isLive ? html`<p class="notice">${t.orderLive}</p>` : nothing}
        <ol class="order" role="list" @pointermove=${drag} @pointerup=${release} @pointercancel=${release}>${repeat(order, (channel) => channel, row)}</ol>
        <p class="unseen" role="status">${told}</p>
        <div class="actions">
          <button type="button" class="quiet" @click=${() => close()}>${t.cancel}</button>
          <button class="primary">${t.orderApply}</button>
        </div>
      </form>`;
  });
  if (wish === undefined) return undefined;
  const now = channelsOf(studio);
  const isSame = now.length === before.length && now.every(({ source }, index) => source === before[index].source);
  if (!isSame) throw new RelayError('order_outdated', 'the channels are others');
  return wish;
}

/** @param {import('./studio.js').Studio} studio */
function channelsOf(studio) {
  const { inputs = [], channelNames: names = [] } = studio.broadcaster ?? {};
  return names.map((given, channel) => {
    const source = inputs.find((input) => input.channels.includes(channel));
    return { name: given || `${t.channel} ${channel + 1}`, input: source?.name ?? '', source };
  });
}
