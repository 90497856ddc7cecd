// The worker in which a connection lives, so that a busy page starves nobody of audio.

import { ListenerSession } from './listener-session.js';
import { SourceSession } from './source-session.js';

/** @type {ListenerSession | SourceSession | null} */
let session = null;
/** @type {((token: string | null) => void) | null} Waits for the page to get a new token. */
let renewed = null;

/** @param {any} message @param {Transferable[]} [transfer] */
function tell(message, transfer = []) {
  self.postMessage(message, { transfer });
}

function renew() {
  tell({ type: 'renew' });
  return /** @type {Promise<string | null>} */ (new Promise((resolve) => (renewed = resolve)));
}

self.onmessage = async ({ data }) => {
  switch (data.type) {
    case 'listen':
      session = new ListenerSession(data.access, data.fields, data.sink, tell, renew);
      session.run();
      break;
    case 'broadcast':
      session = new SourceSession(data.access, data.fields, data.port, tell, renew);
      session.run();
      break;
    case 'send':
      session?.send(data.message);
      break;
    case 'remember':
      session?.remember(data.fields);
      break;
    case 'hold':
      if (session instanceof ListenerSession) session.hold(data.held);
      break;
    case 'buffer':
      if (session instanceof ListenerSession) session.buffer(data.ms);
      break;
    case 'renewed':
      renewed?.(data.roomToken);
      break;
    case 'leave':
      if (session instanceof SourceSession) await session.leave(data.bufferedMs);
      else session?.close();
      tell({ type: 'left' });
      self.close();
  }
};
