// The browser client of relaycore rooms: hear a room, broadcast into one. See docs/browser.md.
// Types: relay-client.d.ts.

export { Broadcaster } from './broadcaster.js';
export { findCapabilities } from './capabilities.js';
export { RelayError } from './errors.js';
export { joinRoom } from './join.js';
export { Listener } from './listener.js';
