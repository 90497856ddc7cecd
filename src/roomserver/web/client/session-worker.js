// The worker in which a connection lives, so that a busy page starves nobody of audio.

import { revived } from './errors.js';
import { ListenerSession } from './listener-session.js';
import { SourceSession } from './source-session.js';

/** @type {ListenerSession | SourceSession | null} */
let session = null;
/**
 * Waits for the page to get a new token.
 * @type {((answer: {roomToken: string | null, error?: Parameters<typeof revived>[0]}) => void) | null}
 */
let renewed = null;

/** @param {any} message @param {Transferable[]} [transfer] */
function tell(message, transfer = []) {
  self.postMessage(message, { transfer });
}

function renew() {
  tell({ type: 'renew' });
  return /** @type {Promise<string | null>} */ (
    new Promise((resolve, reject) => {
      renewed = ({ roomToken, error }) => (error ? reject(revived(error)) : resolve(roomToken));
    })
  );
}

self.onmessage = async ({ data }) => {
  switch (data.type) {
    case 'listen':
      session = new ListenerSession(data.access, data.fields, data.sink, tell, renew);
      session.run();
      break;
    case 'broadcast':
      session = new SourceSession(data.access, data.fields, data.layout, data.port, tell, renew);
      session.run();
      break;
    case 'send':
      session?.send(data.message);
      break;
    case 'remember':
      session?.remember(data.fields);
      break;
    case 'arrange': {
      const { channels, channelNames } = data;
      if (session instanceof SourceSession) session.arrange(data.layout, { channels, channelNames });
      break;
    }
    case 'hold':
      if (session instanceof ListenerSession) session.hold(data.held);
      break;
    case 'buffer':
      if (session instanceof ListenerSession) session.buffer(data.ms);
      break;
    case 'renewed':
      renewed?.(data);
      break;
    case 'leave':
      if (session instanceof SourceSession) await session.leave(data.bufferedMs);
      else session?.close();
      tell({ type: 'left' });
      self.close();
  }
};
