/**
 * The Dashboard: rooms and their figures, the audit log, the account; for administrators more.
 * Which view is shown stands behind `#`, so that reload and back do what they should.
 * @module
 */

import { RelayError, session } from './api.js';
import { AccountView } from './dashboard/account.js';
import { AuditView } from './dashboard/audit.js';
import { RoomView } from './dashboard/room.js';
import { RoomList } from './dashboard/rooms.js';
import { t } from './dashboard/texts.js';
import { UsersView } from './dashboard/users.js';
import { coalesced, html, nothing, render } from './dom.js';
import { drawShell, toastError } from './shell.js';
import { SignIn, accountMenu } from './studio/signin.js';

/** @typedef {import('./dashboard/page.js').Page} Page */
/** @typedef {import('./dashboard/page.js').View} View */

const main = /** @type {HTMLElement} */ (document.getElementById('main'));
const draw = coalesced(() => {
  drawShell('dashboard', accountMenu());
  render(page(), main);
});
const signIn = new SignIn(draw);

/** @type {Page} */
const tools = {
  redraw: draw,
  fail(error) {
    if (!session.account) return;
    problem = problemOf(error);
    if (problem === null) toastError(error);
    draw();
  },
  attempt(what) {
    what().then(draw, tools.fail);
  },
};

/** @type {{ path: string, title: string, admin?: boolean, make: () => View }[]} */
const VIEWS = [
  { path: '/rooms', title: t.yourRooms, make: () => new RoomList(tools) },
  { path: '/audit', title: t.audit, make: () => new AuditView(tools) },
  { path: '/account', title: t.account, make: () => new AccountView(tools) },
  { path: '/users', title: t.users, admin: true, make: () => new UsersView(tools) },
  { path: '/all-rooms', title: t.allRooms, admin: true, make: () => new RoomList(tools, { everybodys: true }) },
  { path: '/all-audit', title: t.everybodysAudit, admin: true, make: () => new AuditView(tools, { everybodys: true }) },
];

/** @type {View | null} */
let view = null;
let shown = '';
let begun = false; // whether it is known who is signed in
/** @type {string | null} why the view can't be shown */
let problem = null;

const path = () => location.hash.slice(1) || '/rooms';

/** @param {unknown} error @returns {string | null} what stands in place of the view; null: it can stay */
function problemOf(error) {
  if (!(error instanceof RelayError)) return null;
  if (error.code === 'room_not_found') return t.notFound;
  // The administrators' part is not at this address.
  if (error.code === 'not_found' && isAdmins(path())) return t.adminElsewhere;
  return null;
}

/** @param {string} of */
function isAdmins(of) {
  return VIEWS.some((one) => one.admin && one.path === of);
}

/** Shows what the address says. */
function show() {
  view?.dispose();
  view = null;
  problem = null;
  shown = path();
  if (session.account) {
    const [, name, id] = shown.split('/');
    const known = VIEWS.find((one) => one.path === shown);
    if (name === 'rooms' && id) view = new RoomView(tools, decodeURIComponent(id));
    else if (known && known.admin && session.account.role !== 'admin') problem = t.notAdmin;
    else if (known) view = known.make();
    else problem = t.notFound;
    document.title = `${known?.title ?? t.room} · ${t.dashboard}`;
  }
  draw();
}

function page() {
  if (!begun) return html`<p class="empty" role="status">${t.loading}</p>`;
  if (!session.account) return signIn.view(t.signInToSee);
  const isAdmin = session.account.role === 'admin';
  return html`
    <nav class="views" aria-label=${t.views}>
      ${VIEWS.filter((one) => !one.admin || isAdmin).map(
        (one) => html`<a href="#${one.path}" aria-current=${shown.startsWith(one.path) ? 'page' : 'false'}>${one.title}</a>`,
      )}
    </nav>
    ${problem !== null ? html`<p class="panel empty" role="alert">${problem}</p>` : (view?.view() ?? nothing)}`;
}

addEventListener('hashchange', () => {
  show();
  main.focus();
});
session.addEventListener('change', show);

draw();
try {
  await session.resume();
} catch (error) {
  toastError(error);
}
begun = true;
if (view === null) show();
draw();
