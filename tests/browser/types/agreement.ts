// The declarations and the modules agree: what one says is assignable to the other.

import type * as declared from '../../../src/roomserver/web/client/relay-client.js';
import { Broadcaster } from '../../../src/roomserver/web/client/broadcaster.js';
import { RelayError } from '../../../src/roomserver/web/client/errors.js';
import { joinRoom } from '../../../src/roomserver/web/client/join.js';
import { findCapabilities } from '../../../src/roomserver/web/client/capabilities.js';
import { Listener } from '../../../src/roomserver/web/client/listener.js';

type Same<A, B> = [A, B] extends [B, A] ? true : never;
type Options<C extends abstract new (options: any) => unknown> = ConstructorParameters<C>[0];

export const listener: declared.Listener = null as unknown as Listener;
export const broadcaster: declared.Broadcaster = null as unknown as Broadcaster;
export const error: declared.RelayError = null as unknown as RelayError;
export const join: typeof declared.joinRoom = joinRoom;
export const find: typeof declared.findCapabilities = findCapabilities;
export const listenerOptions: Same<Options<typeof Listener>, Options<typeof declared.Listener>> = true;
export const state: Same<Listener['state'], declared.PlayerState> = true;
export const statistics: Same<Listener['statistics'], declared.ListenerStatistics> = true;
export const broadcasterState: Same<Broadcaster['state'], declared.Broadcaster['state']> = true;
export const broadcasterOptions: Same<
  Options<typeof Broadcaster>,
  Options<typeof declared.Broadcaster>
> = true;
